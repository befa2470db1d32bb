"""Draft, critique, revision: what each request shows, how rounds are scored, and the rows made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_builders.run import main as build_main
from evals.run import main as eval_main
from evals.tasks.writing_refine import configured
from lengthwise.records import Attempt, LengthTarget, Sample, user
from lengthwise.refinement.writing_loop import length_facts

MODEL = '''
"""Writes 10 words, and 10 more with each revision, or what the kind in the request says."""
import re
from pathlib import Path


def reply(prompt, sampling, draw):
    asked = prompt[-1].content
    with Path(__file__).with_suffix(".prompts").open("a") as file:
        file.write(asked)
    kind = re.search(r"kind: (\\w+)", asked)[1]
    if "Say what should be changed" in asked and kind == "silent":
        return ""
    if "Say what should be changed" in asked:
        return "It is too short."
    revised = "What should be changed" in asked
    before = len(re.findall(r"\\bword\\b", asked))
    if kind == "shrinks" and revised:
        return "word " * (before // 2)
    if kind == "empty" and revised:
        return ""
    return "word " * (before + 10 if revised else 10)
'''


@pytest.fixture
def engine(tmp_path, monkeypatch) -> str:
    name = f"writer_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return json.dumps(
        {"name": "scripted", "responder": f"{name}:reply", "request_log": str(tmp_path / "log")}
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prompts(folder: Path, *kinds: str) -> Path:
    path = folder / "prompts.jsonl"
    rows = [{"id": k, "prompt": f"Tell of the sea. kind: {k}", "type": "t", "length": 30} for k in kinds]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(
    tmp_path: Path, engine: str, *kinds: str, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path / "run"
    task = {"name": "writing_refine", "data": str(prompts(tmp_path, *kinds)), **options}
    arguments = [f"--tasks={json.dumps([task])}", "--model=m", f"--engine={engine}", f"--output_dir={folder}"]
    assert eval_main(arguments) == 0
    rows = {row["id"]: row for row in read(next(folder.glob("samples_*.jsonl")))}
    return rows, json.loads(next(folder.glob("results_*.json")).read_text())


def test_each_draft_is_scored_as_the_task_does(tmp_path, engine):
    rows, results = evaluate(tmp_path, engine, "grows", "shrinks", "empty")
    words = {
        k: [len(a["text"].split()) for a in row["attempts"] if a["kind"] == "draft"]
        for k, row in rows.items()
    }
    assert words == {"grows": [10, 20, 30], "shrinks": [10, 5, 2], "empty": [10, 0]}
    curve = [rows["grows"]["metrics"][f"s_l_round_{k}"] for k in range(3)]
    assert curve == [0.0, 75.0, 100.0] and rows["grows"]["metrics"]["s_l"] == 100.0
    points = results["rounds"]["writing_refine_longbench_write"]["s_l"]["rounds"]
    assert [(p["improved"], p["worsened"]) for p in points] == [(0, 0), (1, 0), (1, 0)]
    assert rows["empty"]["metrics"]["ended_early"] == 1 and rows["grows"]["metrics"]["ended_early"] == 0
    assert rows["empty"]["flags"]["empty"] and rows["empty"]["metrics"]["s_l"] == 0


def test_tokens_hold_critiques_and_independent_drafts_are_what_they_pay_for(tmp_path, engine):
    rows, results = evaluate(tmp_path, engine, "grows")
    row = rows["grows"]
    chain = [a for a in row["attempts"] if a["kind"] != "independent"]
    assert [a["kind"] for a in chain] == ["draft", "critique", "draft", "critique", "draft"]
    assert row["total_tokens"] == sum(a["num_tokens"] for a in chain) == row["metrics"]["tokens_round_2"]
    # Ten tokens a draft: as many are begun as the chain's tokens pay for.
    begun = sum(a["kind"] == "independent" for a in row["attempts"])
    assert begun == min(8, -(-(row["total_tokens"] - 10) // 10))
    # Ten words are all that an independent draft ever has here.
    assert [row["metrics"][f"independent_round_{k}"] for k in range(3)] == [0.0, 0.0, 0.0]
    assert [
        p["value"] for p in results["rounds"]["writing_refine_longbench_write"]["independent"]["rounds"]
    ] == [
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("counted", [False, True])
def test_what_is_counted_is_said_only_where_asked(tmp_path, engine, counted):
    evaluate(tmp_path, engine, "grows", counted=counted, rounds=1, max_independent=0)
    said = next(tmp_path.glob("writer*.prompts")).read_text()
    assert said.count("The text has 10 words; about 30 words were asked.") == (2 if counted else 0)


def test_greedy_drafts_are_all_one_so_that_none_is_made_beside_a_chain(tmp_path, engine):
    rows, results = evaluate(tmp_path, engine, "grows", sampling={"temperature": 0})
    assert not any(a["kind"] == "independent" for a in rows["grows"]["attempts"])
    assert "independent" not in results["rounds"]["writing_refine_longbench_write"]


def test_a_greedy_chain_of_one_draft_has_no_independent_ones(tmp_path, engine):
    rows, results = evaluate(tmp_path, engine, "silent", sampling={"temperature": 0})
    assert [a["kind"] for a in rows["silent"]["attempts"]] == ["draft", "critique"]
    assert "independent" not in results["rounds"]["writing_refine_longbench_write"]


def scored(rounds: int, text: str, num_tokens: int, *more: Attempt) -> Mapping[str, float]:
    """Return the metrics of a chain that began with a draft of two words asked, beside which others could be made."""
    task = configured(task="longbench_write", rounds=rounds)
    note = {"independent": True, "options": task.options}
    draft = Attempt(kind="draft", text=text, finish_reason="stop", num_tokens=num_tokens, note=note)
    sample = Sample(id="1", messages=user("Write 2 words."), length=LengthTarget.about(2))
    return task.score_attempts(sample, text, "stop", (draft, *more)).metrics


def test_a_critique_without_a_revision_is_paid_for_and_ends_a_chain_early():
    found = scored(2, "a b", 30, Attempt(kind="critique", text="", finish_reason="length", num_tokens=256))
    assert [found[f"tokens_round_{k}"] for k in range(3)] == [30, 286, 286] and found["ended_early"] == 1


def test_a_draft_of_no_tokens_is_among_the_independent_ones():
    found = scored(1, "", 0)
    assert found["independent_round_0"] == found["s_l_round_0"] == 0 and found["ended_early"] == 1


def test_options_are_known_again_as_json_has_them():
    task = configured(task="lifebench", options={"controls": ["about"]})
    assert (
        task.options["inner"] == {"controls": ["about"]}
        and json.loads(json.dumps(task.options)) == task.options
    )


def test_a_full_context_ends_the_rounds_and_cuts_no_text(tmp_path, engine):
    small = json.dumps({**json.loads(engine), "context_length": 160})
    rows, _ = evaluate(tmp_path, small, "grows", rounds=6, max_independent=0)
    row = rows["grows"]
    drafts = [a for a in row["attempts"] if a["kind"] == "draft"]
    assert row["metrics"]["ended_early"] == 1 and 1 < len(drafts) < 7
    assert all(draft["finish_reason"] == "stop" for draft in drafts)


def test_replies_that_the_task_opens_are_not_revised(tmp_path, engine, capsys):
    task = {"name": "writing_refine", "task": "tlg", "options": {"mlt": "given"}}
    arguments = [f"--tasks={json.dumps([task])}", "--model=m", f"--engine={engine}"]
    assert eval_main([*arguments, f"--output_dir={tmp_path / 'run'}"]) == 2
    assert "itself opens" in capsys.readouterr().err


def test_facts_of_each_kind_of_length():
    assert length_facts("a b", LengthTarget(min=5, relation="at_least")).endswith(
        "at least 5 words were asked."
    )
    assert length_facts("a b", LengthTarget(min=5, max=9, relation="range")).endswith(
        "5 to 9 words were asked."
    )
    assert length_facts("a b", None) == "" == length_facts("a", LengthTarget(min=5, max=5, unit="tokens"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "at least 1"),
        ({"task": "code_refine"}, "more than score one text"),
        ({"task": "golden_thread"}, "more than score one text"),
        ({"task": "gsm8k"}, "more than score one text"),
        ({"task": "longen", "options": {"nonsense": 1}}, "no option 'nonsense'"),
    ],
)
def test_wrong_options_are_refused(tmp_path, engine, capsys, options, said):
    task = {"name": "writing_refine", "data": str(prompts(tmp_path, "grows")), **options}
    arguments = [f"--tasks={json.dumps([task])}", "--model=m", f"--engine={engine}"]
    assert eval_main([*arguments, f"--output_dir={tmp_path / 'run'}"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("form", ["messages", "pairs"])
def test_rows_of_texts_that_got_better(tmp_path, engine, form):
    method = {"name": "writing_refine", "length_weight": 1.0, "form": form}
    data, folder = prompts(tmp_path, "grows", "shrinks", "empty"), tmp_path / "built"
    arguments = [f"--builder={json.dumps(method)}", "--model=m", f"--engine={engine}", "--min_kept_frac=0"]
    assert build_main([*arguments, f"--data={data}", f"--output_dir={folder}"]) == 0
    (row,) = read(folder / "data.jsonl")
    assert row["id"] == "grows" and row["gain"] == 100.0 and len(row["drafts"]) == 3
    answer = row["messages"][-1] if form == "messages" else row["chosen"][0]
    assert len(answer["content"].split()) == 30
    if form == "pairs":
        assert len(row["rejected"][0]["content"].split()) == 10
    assert row["drafts"][1]["critique"] == "It is too short."
    reasons = {row["id"]: row["reason"] for row in read(folder / "dropped.jsonl")}
    assert reasons == {"shrinks": "no gain", "empty": "no revision is whole"}
