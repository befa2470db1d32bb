"""`lengthwise export RUN --rows`: shapes, splits, files, and a card that says where the rows come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders import export
from data_builders.run import main as build
from lengthwise import cli
from lengthwise.config import ConfigError

PAIR = {
    "id": "p",
    "prompt": [{"role": "user", "content": "Hi"}],
    "chosen": [{"role": "assistant", "content": "Hello"}],
    "rejected": [{"role": "assistant", "content": "Go"}],
}
ROW = {
    "id": "r",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ],
    "topic": "greeting",
}


@pytest.mark.parametrize(
    ("form", "row", "wanted"),
    [
        ("messages", ROW, {"id": "r", "messages": ROW["messages"]}),
        ("prompt_completion", ROW, {"id": "r", "prompt": ROW["messages"][:2], "completion": ROW["messages"][2:]}),
        ("sharegpt", ROW, {"id": "r", "conversations": [
            {"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"}]}),
        ("alpaca", ROW, {"id": "r", "system": "Be kind.", "instruction": "Hi", "input": "", "output": "Hello"}),
        ("pairs", PAIR, PAIR),
    ],
)  # fmt: skip
def test_shapes(form, row, wanted):
    assert export.shaped(row, form) == wanted
    if form != "pairs":
        assert export.shaped(row, form, ["topic"]) == {**wanted, "topic": "greeting"}


@pytest.mark.parametrize(
    ("form", "row", "columns", "message"),
    [
        ("pairs", ROW, [], "the rows are no pairs"),
        ("alpaca", PAIR, [], "the rows are pairs"),
        ("messages", ROW, ["x"], "has no x"),
        ("alpaca", {**ROW, "messages": ROW["messages"] + ROW["messages"][1:]}, [], "has several turns"),
    ],
)
def test_what_has_no_such_shape_is_named(form, row, columns, message):
    with pytest.raises(ConfigError, match=message):
        export.shaped(row, form, columns)


def test_rows_of_a_prompt_are_never_on_both_sides():
    answer = {"role": "assistant", "content": "a"}
    asked = [f"Question {i // 2}{'!' * (i % 2)}" for i in range(400)]
    rows = [
        {"id": f"{i}", "messages": [{"role": "user", "content": text}, answer]}
        for i, text in enumerate(asked)
    ]
    parts = export.split_by_prompt([{"id": row["id"]} for row in rows], rows, 0.2)
    sides = [{int(row["id"]) // 2 for row in part} for part in parts.values()]
    assert not sides[0] & sides[1] and 50 < len(parts["eval"]) < 110
    assert len(parts["train"]) + len(parts["eval"]) == 400
    assert list(export.split_by_prompt(rows, rows, 0)) == ["train"]


@pytest.fixture
def run(tmp_path) -> Path:
    data = tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [
        {
            "id": str(i),
            "prompt": f"Write on topic number {i}.",
            "completion": f"Topic {i} is a fine thing to write on.",
        }
        for i in range(20)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = json.dumps({"name": "gate", "answer_likeness": None})
    assert build([f"--builder={given}", f"--data={data}", f"--output_dir={tmp_path / 'run'}"]) == 0
    return tmp_path / "run"


@pytest.mark.parametrize("files", export.FILES)
def test_what_is_written_is_what_datasets_reads(run, tmp_path, files):
    from datasets import load_dataset, load_from_disk

    folder = tmp_path / "out"
    given = [str(run), "--rows=messages", f"--files={files}", f"--output_dir={folder}", "--eval_frac=0.3"]
    assert cli.main(["export", *given, "--license=cc-by-4.0", "--terms=Nobody objects."]) == 0
    found: Any = load_from_disk(str(folder)) if files == "datasets" else load_dataset(str(folder))
    assert sum(part.num_rows for part in found.values()) == 20 and set(found) == {"train", "eval"}
    assert found["train"][0]["messages"][1]["role"] == "assistant"
    card = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "- split: eval" in card and "Nobody objects." in card
    assert "rows.jsonl (" in card and f"- train: {found['train'].num_rows} rows" in card


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--eval_frac=1"], "--eval_frac is 1.0"),
        (["--push_to=me"], "--push_to is 'me'"),
        (["--output_dir=."], "is there already"),
    ],
)
def test_wrong_flags(run, tmp_path, capsys, more, message):
    given = ["export", str(run), "--rows", "messages"]
    if not any(word.startswith("--output_dir") for word in more):
        more = [*more, f"--output_dir={tmp_path / 'out'}"]
    assert cli.main([*given, *more]) == 2
    assert message in capsys.readouterr().err


def test_only_what_is_asked_for_is_uploaded(run, tmp_path, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, name, **options):
            calls.append((name, options["private"]))

        def upload_folder(self, **options):
            calls.append((options["repo_id"], options["repo_type"]))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    given = ["export", str(run), "--rows=messages", "--files=jsonl"]
    assert cli.main([*given, f"--output_dir={tmp_path / 'a'}"]) == 0 and not calls
    assert cli.main([*given, f"--output_dir={tmp_path / 'b'}", "--push_to=me/rows"]) == 0
    assert calls == [("me/rows", True), ("me/rows", "dataset")]


def test_ends_of_lines_that_only_python_knows_and_rows_of_other_keys(tmp_path):
    rows = [
        {"id": "a", "prompt": "One", "completion": "A\u2028b and c\x85d stand here."},
        {"id": "b", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Two"},
                                 {"role": "assistant", "content": "Here is another text of some words."}]},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, out = tmp_path / "run", tmp_path / "out"
    assert build(["--builder.name=gate", f"--data={tmp_path / 'rows.jsonl'}", f"--output_dir={run}"]) == 0
    assert cli.main(["export", str(run), "--rows=alpaca", "--files=parquet", f"--output_dir={out}"]) == 0
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(out / "train.parquet").to_pylist()
    assert [row["system"] for row in found] == ["", "Be kind."] and "\u2028" in found[0]["output"]


def test_other_folders_are_refused(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "--rows=messages", f"--output_dir={tmp_path / 'x'}"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
