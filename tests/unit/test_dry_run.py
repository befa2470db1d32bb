"""`--dry_run`: says what would run, refuses what would fail, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_builders import run as build
from evals import run as evaluation
from lengthwise.run_dir import RunDir

SCRIPTED = '--engine={"name": "scripted"}'


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": "Write on tea.", "length": 300},
        {"prompt": "Write on ice.", "length": 500},
        {"prompt": "Write on tea.", "length": 300},
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_a_build_counts_its_rows_and_writes_nothing(prompts, capsys):
    words = ["--name=x", "--model=m", SCRIPTED, "--data=prompts.jsonl", "--dry_run"]
    assert build.main(words) == 0
    said = capsys.readouterr().out
    assert "run         outputs/build/x: new" in said
    assert "writer: m through scripted" in said
    assert (
        "3 read, 3 taken, 1 of them to be rejected (1 duplicate prompt); 1,100 words asked for by 3 of 3"
        in said
    )
    assert [file.name for file in prompts.iterdir()] == ["prompts.jsonl"]


def test_an_evaluation_counts_its_calls_and_writes_nothing(prompts, capsys):
    words = ["--model=m", SCRIPTED, "--tasks", "tlg", "longen", "--limit=6", "--sampling.max_tokens=64"]
    assert evaluation.main([*words, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "task        tlg: 6 of 54 prompts, 1 completion each, of at most 64 tokens" in said
    assert "calls       12" in said
    assert [file.name for file in prompts.iterdir()] == ["prompts.jsonl"]


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (build.main, ["--data=no.jsonl"], "no file or folder 'no.jsonl'"),
        (build.main, ["--data=prompts.jsonl", '--engine={"name": "hf"}'], "model: there is no folder 'm'"),
        (evaluation.main, ["--tasks=tlgg"], "did you mean 'tlg'?"),
        (evaluation.main, ["--tasks=tlg", "--output_dir=prompts.jsonl/x"], "prompts.jsonl is no folder"),
        (evaluation.main, ["--tasks=tlg", "--output_dir=done"], "holds a finished run"),
    ],
)
def test_what_would_fail_is_refused(prompts, capsys, main, words, message):
    RunDir.open_for("eval", "done", {}).finish(seed=1)
    engine = [] if any(word.startswith("--engine") for word in words) else [SCRIPTED]
    assert main(["--name=x", "--model=m", *engine, *words, "--dry_run"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_an_unfinished_run_is_announced_and_held_to_its_settings(prompts, capsys):
    words = ["--name=x", "--model=m", SCRIPTED, "--data=prompts.jsonl"]
    assert build.main(words) == 0
    Path("outputs/build/x/manifest.json").unlink()
    capsys.readouterr()
    assert build.main([*words, "--dry_run"]) == 0
    assert "goes on with an unfinished run" in capsys.readouterr().out
    assert build.main([*words, "--seed=1", "--dry_run"]) == 2
    assert "seed: begun with 0, now 1" in capsys.readouterr().err
