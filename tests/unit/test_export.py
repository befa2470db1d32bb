"""What a finished evaluation gives to other tools, read back with their own readers."""

from __future__ import annotations

import builtins
import csv
import io
import json
import math
import shutil
from pathlib import Path

import pytest

from evals.export import main, write_table
from evals.run import main as evaluate

ASKED = ["--model", "scripted", "--engine.name", "scripted", "--limit", "4"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """Two replies to each prompt of two tasks; some cut, some prompts failed, one metric unscored."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    faults = '{"truncated": 0.3, "error": 0.15}'
    flags = ["--tasks", "longbench_write", "tlg", "--num_samples", "2", "--sampling.temperature", "0.5"]
    assert not evaluate([*ASKED, *flags, f"--engine.faults={faults}", "--output_dir", str(folder)])
    (file,) = folder.glob("samples_tlg_*.jsonl")
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    del row["metrics"]["fm"]
    row["unscored"] = {"fm": "the judge did not answer"}
    file.write_text("\n".join([json.dumps(row), *rest]) + "\n", encoding="utf-8")
    return folder


def results(folder: Path) -> dict:
    (file,) = folder.glob("results_*.json")
    return json.loads(file.read_text(encoding="utf-8"))


def samples(folder: Path, task: str) -> list[dict]:
    (file,) = folder.glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def failed(folder: Path, task: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["task"] == task]


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_inspect_reads_the_log_as_the_run_has_it(evaluated, tmp_path, suffix):
    log_module = pytest.importorskip("inspect_ai.log")
    file = tmp_path / f"log{suffix}"
    assert not main([str(evaluated), "--format", "inspect", "--task", "tlg", "--output", str(file)])
    log = log_module.read_eval_log(str(file))
    rows, lost, found = samples(evaluated, "tlg"), failed(evaluated, "tlg"), results(evaluated)
    assert log.status == "success" and log.eval.task == "tlg" and log.eval.model == "scripted"
    assert (log.eval.config.epochs, log.eval.model_generate_config.temperature) == (2, 0.5)
    assert log.eval.metadata["lengthwise"]["config"]["tasks"] == ["longbench_write", "tlg"]
    assert log.eval.metadata["lengthwise"]["seed"] == 42
    assert (log.eval.dataset.name, log.eval.dataset.samples) == ("length_control", 4)
    found_samples = {
        (s.id, s.epoch): s for s in log.samples if s.error is None
    }  # inspect sorts them by epoch
    assert len(found_samples) == len(rows)
    scored = [found_samples[row["id"], row["completion_index"] + 1] for row in rows]
    assert [s.output.completion for s in scored] == [row["resps"][0] for row in rows]
    assert {s.epoch for s in scored} == {1, 2}
    assert [s.scores["pm"].value for s in scored] == [row["metrics"]["pm"] for row in rows]
    stops = {"length": "max_tokens", "stop": "stop"}
    assert [s.output.stop_reason for s in scored] == [stops[row["finish_reason"]] for row in rows]
    assert {s.output.stop_reason for s in scored} == {"max_tokens", "stop"}
    assert scored[0].metadata["flags"] == rows[0]["flags"]
    assert [s.error.message for s in log.samples if s.error] == [f"failed: {row['reason']}" for row in lost]
    unscored = scored[0].scores["fm"]
    assert math.isnan(unscored.value) and unscored.explanation == "the judge did not answer"
    scores = {score.name: score for score in log.results.scores}
    row = found["results"]["tlg"]
    assert scores["pm"].metrics["proportion"].value == row["pm,none"]
    assert scores["pm"].metrics["stderr"].value == row["pm_stderr,none"]
    assert (scores["fm"].scored_samples, scores["fm"].unscored_samples) == (len(rows) - 1, 1)
    assert log.results.completed_samples == len(rows)
    assert log.results.total_samples == len(rows) + 2 * len(lost)
    usage = log.stats.model_usage["scripted"]
    assert usage.output_tokens == sum(row["num_tokens"] for row in rows)
    assert usage.input_tokens == sum(len(row["arguments"][0]["content"].split()) for row in rows[::2])


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_inspect_reads_the_head_and_the_summaries_alone(evaluated, tmp_path, suffix):
    log_module = pytest.importorskip("inspect_ai.log")
    file = tmp_path / f"log{suffix}"
    main([str(evaluated), "--format", "inspect", "--task", "longbench_write", "--output", str(file)])
    head = log_module.read_eval_log(str(file), header_only=True)
    rows = samples(evaluated, "longbench_write")
    assert head.samples is None and head.results.completed_samples == len(rows)
    summaries = log_module.read_eval_log_sample_summaries(str(file))
    assert len(summaries) == len(rows) + len(failed(evaluated, "longbench_write"))
    by_id = {(s.id, s.epoch): s for s in summaries}
    assert by_id[rows[0]["id"], 1].scores["s_l"].value == rows[0]["metrics"]["s_l"]


def test_a_folder_gets_one_log_for_each_task(evaluated, tmp_path, capsys):
    log_module = pytest.importorskip("inspect_ai.log")
    assert not main([str(evaluated), "--format", "inspect", "--output", str(tmp_path / "logs")])
    assert {Path(info.name).name for info in log_module.list_eval_logs(str(tmp_path / "logs"))} == {
        "base_longbench_write.eval",
        "base_tlg.eval",
    }
    assert main([str(evaluated), "--format", "inspect", "--output", str(tmp_path / "logs")]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "inspect", "--output", "all.eval"], "name one with --task"),
        (["--format", "inspect", "--output", "all.txt"], "named .eval or .json"),
        (["--format", "csv", "--task", "tgl"], "did you mean 'tlg'"),
        (["--format", "latex", "--samples"], "goes with csv or parquet"),
        (["--format", "parquet"], "name a file with --output"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    evaluated, tmp_path, monkeypatch, capsys, flags, message
):
    monkeypatch.chdir(tmp_path)
    assert main([str(evaluated), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_runs_that_have_no_results_are_refused(evaluated, tmp_path, capsys):
    unfinished = shutil.copytree(evaluated, tmp_path / "unfinished")
    (unfinished / "manifest.json").unlink()
    assert main([str(unfinished), "--format", "inspect"]) == 2
    assert "start its evaluation again" in capsys.readouterr().err
    trained = tmp_path / "trained"
    trained.mkdir()
    manifest = {"job": "sft", "config": {}, "config_digest": "", "created": ""}
    (trained / "manifest.json").write_text(json.dumps(manifest))
    assert main([str(trained), "--format", "csv"]) == 2
    assert "which has no results to export" in capsys.readouterr().err


def test_without_inspect_the_package_is_named(evaluated, tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "inspect_ai":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([str(evaluated), "--format", "inspect", "--output", str(tmp_path / "logs")]) == 2
    assert "pip install" in capsys.readouterr().err


def test_the_table_has_every_estimate(evaluated, tmp_path, capsys):
    main([str(evaluated), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = results(evaluated)
    assert list(rows[0]) == ["task", "slice", "metric", "value", "stderr", "low", "high", "n"]
    assert float(rows[0]["value"]) == found["results"]["longbench_write"]["s_l,none"]
    assert [float(rows[0][end]) for end in ("low", "high")] == found["results"]["longbench_write"][
        "s_l_ci,none"
    ]
    slices = {row["slice"] for row in rows if row["task"] == "tlg"}
    assert {"all", "level 0", "degenerate no"} <= slices
    import pandas

    main([str(evaluated), "--format", "parquet", "--output", str(tmp_path / "t.parquet")])
    assert len(pandas.read_parquet(tmp_path / "t.parquet")) == len(rows)
    main([str(evaluated), "--format", "parquet", "--samples", "--output", str(tmp_path / "s.parquet")])
    replies = pandas.read_parquet(tmp_path / "s.parquet")
    assert len(replies) == sum(len(samples(evaluated, task)) for task in ("longbench_write", "tlg"))
    assert replies["metric:s_l"][0] == samples(evaluated, "longbench_write")[0]["metrics"]["s_l"]
    assert replies["unscored:fm"].dropna().tolist() == ["the judge did not answer"]


def test_markdown_and_latex_escape_what_they_must(capsys):
    rows = [{"task": "a|b", "slice": "50 % of_it", "metric": "pm", "value": 0.123456, "stderr": None, "n": 4}]
    columns = ("task", "slice", "metric", "value", "stderr", "n")
    write_table(rows, "markdown", None, columns)
    assert capsys.readouterr().out.splitlines()[-1] == "| a\\|b | 50 % of_it | pm | 0.1235 | - | 4 |"
    write_table(rows, "latex", None, columns)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "\\begin{tabular}{lllrrr}"
    assert lines[4] == "a|b & 50 \\% of\\_it & pm & 0.1235 & - & 4 \\\\"
