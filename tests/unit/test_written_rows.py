from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders import agent_write
from data_builders.written_rows import WrittenRows, code_digest, row_key
from lengthwise.outcomes import Counts, Failed, Kept, Outcome, Rejected
from lengthwise.records import LengthTarget, Sample, user
from lengthwise.run_dir import RunDir


def sample(number: int, **fields: Any) -> Sample:
    return Sample(**({"id": f"s{number}", "messages": user(f"prompt {number}")} | fields))


SAMPLES = [sample(i) for i in range(6)]
KEYS = [row_key(s, None) for s in SAMPLES]
OUTCOMES: list[Outcome] = [
    Kept({"id": "s0", "text": "— “quoted”"}),
    Rejected("refusal", {"text": "no"}),
    Kept({"id": "s2", "text": "half a pair \udcff"}),
    Failed("engine: EngineError", {"error": "500"}),
    Kept({"id": "s4", "text": "d"}),
    Rejected("refusal"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def open_rows(folder: Path, origin: str = "code") -> WrittenRows:
    return WrittenRows(RunDir(path=folder, job="build", config={}, resumed=True), origin)


def write(rows: WrittenRows, *numbers: int, retried: bool = False) -> None:
    for number in numbers:
        outcome = Kept({"id": f"s{number}", "text": "at last"}) if retried else OUTCOMES[number]
        rows.write(KEYS[number], SAMPLES[number], outcome)


def content(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "data.jsonl").read_bytes(), (folder / "dropped.jsonl").read_bytes()


def ids(data: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in data.splitlines()]


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    rows = open_rows(tmp_path / "whole")
    write(rows, *range(6))
    rows.finish(KEYS)
    return content(tmp_path / "whole")


def test_rows_go_to_their_file_with_their_end_and_reason(folder, whole):
    data, dropped = whole
    assert ids(data) == ["s0", "s2", "s4"]
    assert [(r["id"], r["outcome"], r["reason"]) for r in map(json.loads, dropped.splitlines())] == [
        ("s1", "rejected", "refusal"),
        ("s3", "failed", "engine: EngineError"),
        ("s5", "rejected", "refusal"),
    ]
    assert json.loads(dropped.splitlines()[0])["messages"] == [{"role": "user", "content": "prompt 1"}]


def test_what_has_ended_is_taken_over_but_a_failed_input_is_tried_again(folder, whole):
    first = open_rows(folder)
    write(first, 0, 1, 2, 3)
    first.close()
    again = open_rows(folder)
    assert [again.has_ended(key) for key in KEYS] == [True, True, True, False, False, False]
    assert again.counts(KEYS) == Counts(
        kept=2, rejected=1, failed=1, reasons={"refusal": 1, "engine: EngineError": 1}
    )
    write(again, 3, 4, 5)
    again.finish(KEYS)
    assert content(folder) == whole
    assert not (folder / ".ended.jsonl").exists()
    assert again.counts(KEYS).total == 6


def test_a_retried_input_comes_back_to_its_place(folder):
    first = open_rows(folder)
    write(first, *range(6))
    first.close()
    again = open_rows(folder)
    write(again, 3, retried=True)
    assert ids(content(folder)[0]) == ["s0", "s2", "s4", "s3"]  # while it runs, as they come
    again.finish(KEYS)
    data, dropped = content(folder)
    assert ids(data) == ["s0", "s2", "s3", "s4"]
    assert ids(dropped) == ["s1", "s5"]
    assert again.counts(KEYS) == Counts(kept=4, rejected=2, reasons={"refusal": 2})


def test_inputs_that_a_larger_limit_adds_come_in_between(folder, whole):
    first = open_rows(folder)
    write(first, 0, 2, 5)
    first.close()
    again = open_rows(folder)
    write(again, 1, 3, 4)
    again.finish(KEYS)
    assert content(folder) == whole


@pytest.mark.parametrize("name", ["data.jsonl", "dropped.jsonl", ".ended.jsonl"])
def test_files_cut_or_damaged_at_any_byte_lose_only_what_follows(tmp_path, name, whole):
    done = tmp_path / "done"
    rows = open_rows(done)
    write(rows, *range(6))
    rows.close()
    files = {file.name: file.read_bytes() for file in done.iterdir()}
    for place in range(len(files[name])):
        for damaged in (files[name][:place], files[name][:place] + b"\0" + files[name][place + 1 :]):
            (done / name).write_bytes(damaged)
            again = open_rows(done)
            ended = [again.has_ended(key) for key in KEYS]
            write(again, *[i for i in range(6) if not ended[i]])
            again.finish(KEYS)
            assert content(done) == whole, (name, place, ended)
            for other, data in files.items():
                (done / other).write_bytes(data)


def test_nothing_is_taken_over_from_other_code_or_weights(folder):
    first = open_rows(folder)
    write(first, 0, 1, 2)
    first.close()
    again = open_rows(folder, origin="other code")
    assert not any(again.has_ended(key) for key in KEYS)
    assert content(folder) == (b"", b"")


def test_rows_without_notes_are_made_anew(folder, whole):
    first = open_rows(folder)
    write(first, 0, 1)
    first.close()
    (folder / ".ended.jsonl").unlink()
    again = open_rows(folder)
    assert not again.has_ended(KEYS[0])
    write(again, *range(6))
    again.finish(KEYS)
    assert content(folder) == whole


@pytest.mark.parametrize(
    ("other", "first"),
    [
        (sample(0, id="x"), None),
        (sample(0, messages=user("another")), None),
        (sample(0, length=LengthTarget.about(100)), None),
        (sample(0, metadata={"plan": ["a"]}), None),
        (sample(0, lineage=("x",)), None),
        (sample(0), "s7"),  # a larger limit added an earlier row that asks the same
    ],
)
def test_whatever_decides_a_row_is_in_its_key(other, first):
    assert row_key(other, first) != KEYS[0]


def test_the_code_is_in_the_digest(tmp_path):
    import types

    first = code_digest(agent_write)
    assert first == code_digest(agent_write)
    own = types.ModuleType("own")
    own.__file__ = str(tmp_path / "own.py")
    (tmp_path / "own.py").write_text("A = 1\n")
    before = code_digest(own)
    (tmp_path / "own.py").write_text("A = 2\n")
    assert len({first, before, code_digest(own)}) == 3
