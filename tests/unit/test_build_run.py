from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_builders.run import main

FLAKY = """
from lengthwise.engines.base import EngineDead
from lengthwise.engines.scripted import obedient

CALLS = 0
LIMIT = None

def reply(prompt, sampling, draw):
    global CALLS
    CALLS += 1
    if LIMIT is not None and CALLS > LIMIT:
        raise EngineDead("killed by the test")
    return obedient(prompt, sampling, draw)
"""


def prompts(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def data(tmp_path) -> str:
    rows = [
        {"id": f"p{i}", "prompt": f"Write a story of {400 + 100 * i} words, number {i}."} for i in range(6)
    ]
    return prompts(tmp_path / "prompts.jsonl", *rows)


def build(folder: Path, data: str, *extra: str, engine: dict[str, Any] | None = None) -> int:
    given = json.dumps({"name": "scripted", **(engine or {})})
    return main(["--model", "script", "--engine", given, "--data", data, "--output_dir", str(folder), *extra])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_a_run_writes_rows_card_and_manifest(tmp_path, data):
    import pyarrow.parquet

    run = tmp_path / "run"
    assert build(run, data) == 0
    kept = rows(run / "data.jsonl")
    assert [row["id"] for row in kept] == [f"p{i}" for i in range(6)]
    table = pyarrow.parquet.read_table(run / "data.parquet").to_pylist()
    assert [row["messages"] for row in table] == [row["messages"] for row in kept]
    assert [row["requested_length"] for row in table] == [400 + 100 * i for i in range(6)]
    assert json.loads(table[0]["provenance"])["plan"] == kept[0]["plan"]
    found = manifest(run)
    assert found["counts"]["inputs"] == found["counts"]["kept"] == 6
    assert {o["path"]: o["num_rows"] for o in found["outputs"]} == {
        "data.jsonl": 6, "data.parquet": 6, "dropped.jsonl": 0, "README.md": None,
    }  # fmt: skip
    assert found["usage"]["num_calls"] == sum(len(row["calls"]) for row in kept)
    assert found["usage"]["completion_tokens"] == sum(
        c["completion_tokens"] for r in kept for c in r["calls"]
    )
    assert found["builder"]["min_length_score"] == 80.0
    assert found["model"]["name"] == "script" and len(found["model"]["identity"]) == 64
    assert "6 rows written by `script`" in (run / "README.md").read_text()


def test_every_input_ends_once_and_little_yield_is_said_loudly(tmp_path, capsys):
    asked = [{"id": f"p{i}", "prompt": f"Write a story of {300 + 10 * i} words."} for i in range(40)]
    data, run = prompts(tmp_path / "p.jsonl", *asked), tmp_path / "run"
    faults = {"error": 0.05, "refusal": 0.2, "truncated": 0.2, "empty": 0.1, "malformed": 0.1}
    assert build(run, data, "--min_kept_frac", "1.0", engine={"faults": faults}) == 0
    kept, dropped = rows(run / "data.jsonl"), rows(run / "dropped.jsonl")
    assert sorted(row["id"] for row in kept + dropped) == sorted(row["id"] for row in asked)
    assert kept and {row["outcome"] for row in dropped} == {"rejected", "failed"}
    counts = manifest(run)["counts"]
    assert counts["kept"] + counts["rejected"] + counts["failed"] == counts["inputs"] == 40
    assert counts["reasons"] == dict(Counter(row["reason"] for row in dropped))
    said = capsys.readouterr().err
    assert "WARNING: only" in said and all(reason in said for reason in counts["reasons"])


def test_duplicates_are_rejected_and_ids_made_unique(tmp_path):
    data = prompts(
        tmp_path / "p.jsonl",
        {"id": 1, "prompt": "Write 400 words on rain."},
        {"id": 1, "prompt": "Write 400 words on snow."},
        {"id": 2, "prompt": "Write 400 words on rain."},
    )
    run = tmp_path / "run"
    assert build(run, data) == 0
    assert [row["id"] for row in rows(run / "data.jsonl")] == ["1", "1#2"]
    (dropped,) = rows(run / "dropped.jsonl")
    assert (dropped["id"], dropped["reason"], dropped["detail"]) == ("2", "duplicate prompt", "as 1")
    counts = manifest(run)["counts"]
    assert (counts["duplicate_prompts"], counts["renamed_ids"]) == (1, 1)


def test_several_rows_of_a_prompt_have_chances_of_their_own_and_its_refusal(tmp_path):
    first = {"id": "1", "prompt": "Write about 300 words on bread."}
    data = prompts(tmp_path / "p.jsonl", first, {"id": "1", "prompt": "Write on salt."}, {**first, "id": "2"})
    run = tmp_path / "run"
    assert build(run, data, "--rows_per_prompt", "2") == 0
    kept = {row["id"]: row for row in rows(run / "data.jsonl")}
    assert list(kept) == ["1", "1#3", "1#2", "1#2#2"]  # the second row of id 1 is 1#2 already
    seeds = [{call["seed"] for call in kept[name]["calls"]} for name in ("1", "1#3")]
    assert not seeds[0] & seeds[1]
    dropped = {row["id"]: row["reason"] for row in rows(run / "dropped.jsonl")}
    assert dropped == {"2": "duplicate prompt", "2#2": "duplicate prompt"}
    assert manifest(run)["counts"]["inputs"] == 6


def test_rows_that_have_their_answers_are_not_made_several_times(tmp_path, capsys):
    data = prompts(tmp_path / "p.jsonl", {"prompt": "Hi", "completion": "Hello."})
    assert build(tmp_path / "run", data, "--builder.name=consistent_code", "--rows_per_prompt=2") == 2
    assert "rows_per_prompt is 2" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_repeats_no_call(tmp_path, data, monkeypatch, capsys):
    (tmp_path / "flaky_script.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import flaky_script  # type: ignore[import-not-found]

    log = tmp_path / "requests.jsonl"
    engine = {"responder": "flaky_script:reply", "request_log": str(log)}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert build(whole, data, engine=engine) == 0
    num_calls = flaky_script.CALLS
    log.unlink()
    flaky_script.CALLS, flaky_script.LIMIT = 0, 7
    assert build(broken, data, engine=engine) == 1
    assert "start the same command again" in capsys.readouterr().err
    assert not (broken / "manifest.json").exists()
    flaky_script.LIMIT = None
    assert build(broken, data, engine=engine) == 0
    assert (broken / "data.jsonl").read_bytes() == (whole / "data.jsonl").read_bytes()
    assert manifest(broken)["usage"] == manifest(whole)["usage"]
    finished = [event["request"] for event in rows(log) if event["event"] == "finished"]
    assert len(finished) == len(set(finished)) == num_calls


def test_a_finished_run_is_not_overwritten(tmp_path, data, capsys):
    assert build(tmp_path / "run", data) == 0
    assert build(tmp_path / "run", data) == 2
    assert "never overwritten" in capsys.readouterr().err


def test_roles_may_have_models_of_their_own(tmp_path, data):
    run = tmp_path / "run"
    assert build(run, data, "--limit", "2", "--roles", '{"planner": {"model": "planner-script"}}') == 0
    calls = [call for row in rows(run / "data.jsonl") for call in row["calls"]]
    assert {(c["role"], c["model"]) for c in calls} == {("planner", "planner-script"), ("writer", "script")}
    assert manifest(run)["roles"]["planner"]["model"] == "planner-script"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--builder.nme", "agent_write"], "nme"),
        (["--builder.name", "agent_wrote"], "did you mean 'agent_write'"),
        (["--builder.max_section", "3"], "did you mean 'max_sections'"),
        (["--engine", '{"name": "vlm"}'], "did you mean 'vllm'"),
        (["--engine", '{"name": "scripted", "context": 3}'], "context_length"),
        (["--roles", '{"judge": {}}'], "it has planner, writer"),
        (["--roles", '{"writer": {"temperature": 1}}'], "it takes model, adapter and engine"),
        (
            ["--roles.planner.engine", "vllm"],
            "roles.planner.engine is 'vllm': write {name: ..., its options}",
        ),
        (["--engine", '{"name": "scripted", "responder": "nowhere"}'], "is not `module:function`"),
        (["--limit", "0"], "limit is 0"),
        (["--prompt_column", "promt"], "did you mean 'prompt'"),
        (["--data", "nowhere.jsonl"], "no file or folder"),
    ],
)
def test_config_errors_end_with_two_and_leave_nothing(tmp_path, data, capsys, extra, message):
    base = {"--model": "script", "--engine": '{"name": "scripted"}', "--data": data}
    base.pop(extra[0], None)
    arguments = [part for pair in base.items() for part in pair]
    assert main([*arguments, "--output_dir", str(tmp_path / "run"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_empty_file_is_a_config_error(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("\n")
    assert build(tmp_path / "run", str(tmp_path / "empty.jsonl")) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_a_run_of_which_nothing_came_stays_open_and_tries_again(tmp_path, data, capsys):
    run = tmp_path / "run"
    assert build(run, data, engine={"faults": {"error": 1.0}}) == 1
    told = capsys.readouterr().err
    assert "all 6 inputs failed, 6 of them with 'engine: EngineError'" in told
    assert not (run / "manifest.json").exists()
    assert build(run, data) == 0
    assert manifest(run)["counts"]["kept"] == 6


def test_how_a_roles_engine_runs_may_change_on_resume(tmp_path, data, monkeypatch):
    run = tmp_path / "run"
    role = '{"planner": {"model": "p", "engine": {"name": "scripted", "delay_seconds": DELAY, "context_length": SIZE}}}'

    def start(delay: str, size: str) -> int:
        return build(
            run, data, "--roles", role.replace("DELAY", delay).replace("SIZE", size), "--max_minutes", "1e-9"
        )

    assert start("0.0", "9000") == 1  # stopped by its limit
    (run / "journal.jsonl").write_text("one answer\n")  # so that the run is bound to its settings
    assert start("0.1", "9000") == 1
    assert start("0.1", "9001") == 2


def test_all_rejected_still_makes_a_whole_run(tmp_path, data):
    import pyarrow.parquet

    run = tmp_path / "run"
    assert build(run, data, engine={"faults": {"refusal": 1.0}}) == 0
    assert rows(run / "data.jsonl") == []
    assert pyarrow.parquet.read_table(run / "data.parquet").num_rows == 0
    assert manifest(run)["counts"]["reasons"] == {"plan: unreadable": 6}
