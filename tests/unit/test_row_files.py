"""Where rows are found, and what one value means."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path

import pytest

from lengthwise.config import ConfigError
from lengthwise.records import LengthTarget
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.row_values import length_target, plain, prompt_turns, row_id, without_nan
from lengthwise.rows import BadRow, Row


def write(path: Path, *rows: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def values(data: str, **where) -> list[dict]:
    return [row.values for row in read_rows(find_rows(data, **where)) if isinstance(row, Row)]


class TestFindRows:
    @pytest.mark.parametrize("data", ["gone.jsonl", "./a/b", "/a/b", "~/a", "a", "a/b/c", "a/b.json", ""])
    def test_nothing_there(self, data):
        with pytest.raises(ConfigError, match="prompts: there is no file or folder"):
            find_rows(data, field="prompts")

    @pytest.mark.parametrize("data", ["Write a story. " * 1000, "~nobody-of-this-name/a.jsonl"])
    def test_what_cannot_be_a_path(self, data):
        with pytest.raises(ConfigError, match=f"data: '{data[:13]}.* cannot be looked up"):
            find_rows(data)

    def test_another_kind_of_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"a\.csv is no \.jsonl, \.json, \.parquet file: convert it"):
            find_rows(write(tmp_path / "a.csv"))

    def test_a_folder_is_read_in_the_order_of_names(self, tmp_path):
        write(tmp_path / "b.jsonl", {"n": 2}, {"n": 3})
        write(tmp_path / "a.jsonl", {"n": 1})
        write(tmp_path / ".hidden.jsonl", {"n": 9})
        write(tmp_path / "notes.txt", {"n": 9})
        source = find_rows(str(tmp_path))
        assert [row["n"] for row in values(str(tmp_path))] == [1, 2, 3]
        assert [str(row.place) for row in read_rows(source)][2] == f"{tmp_path}/b.jsonl, line 2"
        assert [(Path(i.path).name, i.num_rows) for i in source.inputs()] == [("a.jsonl", 1), ("b.jsonl", 2)]

    def test_a_folder_without_data(self, tmp_path):
        with pytest.raises(ConfigError, match="holds no .jsonl"):
            find_rows(str(tmp_path))

    def test_a_test_set_is_not_read_with_the_training_set(self, tmp_path):
        write(tmp_path / "train-0.jsonl", {"n": 1})
        write(tmp_path / "train-1.jsonl", {"n": 2})
        assert len(values(str(tmp_path))) == 2
        write(tmp_path / "test.jsonl", {"n": 3})
        with pytest.raises(ConfigError, match="several splits .*: name one file"):
            find_rows(str(tmp_path))

    @pytest.mark.parametrize("named", ["", "data.jsonl", "data.parquet"])
    def test_a_build(self, tmp_path, named):
        write(tmp_path / "data.jsonl", {"n": 1})
        write(tmp_path / "data.parquet")
        write(tmp_path / "dropped.jsonl", {"n": 9})
        data = str(tmp_path / named)
        (tmp_path / ".lock").write_text('{"job": "build"}')
        with pytest.raises(ConfigError, match="has not finished"):
            find_rows(data)
        (tmp_path / "manifest.json").write_text('{"job": "build"}')
        found = find_rows(data)
        assert found.run_folder == tmp_path
        assert [file.name for file in found.files] == [named or "data.jsonl"]
        (tmp_path / "manifest.json").write_text('{"job": "eval"}')
        with pytest.raises(ConfigError, match="is the run folder of 'eval': name that of a build"):
            find_rows(data)

    @pytest.mark.parametrize("manifest", ["{}", "[]", "no JSON"])
    def test_the_manifest_of_another_program(self, tmp_path, manifest):
        write(tmp_path / "rows.jsonl", {"n": 1})
        (tmp_path / "manifest.json").write_text(manifest)
        assert values(str(tmp_path)) == values(str(tmp_path / "rows.jsonl")) == [{"n": 1}]

    def test_a_folder_of_several_formats(self, tmp_path):
        write(tmp_path / "a.jsonl", {"n": 1})
        write(tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=r"several formats \(a.jsonl, a.parquet\): name one file"):
            find_rows(str(tmp_path))


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        import datasets

        asked = []

        def load_dataset(*args, **kwargs):
            asked.append((args, kwargs))
            return [{"n": 1, "day": datetime.date(2024, 5, 1)}, {"n": {1, 2}}]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, *_, **__: name[2:].split("-"))
        return asked

    def test_rows_and_places(self, hub):
        source = find_rows("o/train", split="train", subset="en", revision="abc")
        first, second = read_rows(source)
        assert isinstance(first, Row) and first.values == {"n": 1, "day": "2024-05-01"}
        assert (
            isinstance(second, BadRow)
            and str(second) == "o/train, row 2: column 'n' holds a set, which is no JSON"
        )
        assert hub == [(("o/train", "en"), {"split": "train", "revision": "abc"})]
        (read,) = source.inputs(num_rows=2)
        assert (read.path, read.num_rows) == ("hub:o/train/en@abc#train", 2)

    @pytest.mark.parametrize(("name", "split"), [("o/train-test", "test"), ("o/all", "all")])
    def test_the_split_to_take(self, hub, name, split):
        assert len(list(read_rows(find_rows(name, split=None)))) == 2
        assert hub[0][1]["split"] == split

    def test_no_split_to_take(self, hub):
        with pytest.raises(ConfigError, match="has the splits a, b: name one"):
            list(read_rows(find_rows("o/a-b", split=None)))

    def test_not_to_be_had(self, monkeypatch):
        import datasets

        def load_dataset(*_, **__):
            raise ConnectionError("no route")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(ConfigError, match="data: the hub data set 'o/s' .* no route.* give its path"):
            list(read_rows(find_rows("o/s")))


class TestValues:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (datetime.datetime(2024, 5, 1, 12), "2024-05-01T12:00:00"),
            (datetime.timedelta(hours=1), "1:00:00"),
            (decimal.Decimal("500"), 500),
            (decimal.Decimal("0.5"), 0.5),
            ((1, (2,)), [1, [2]]),
            ({1: b"x"}, {"1": "x"}),
        ],
    )
    def test_plain(self, value, expected):
        assert plain(value) == expected

    def test_without_nan(self):
        assert without_nan({"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": True}) == {
            "a": [None, 1.5, {"b": None}],
            "c": True,
        }

    @pytest.mark.parametrize(
        ("value", "expected"), [(None, None), ("", None), (float("nan"), None), (0, "0"), ("x", "x")]
    )
    def test_row_id(self, value, expected):
        assert row_id(value) == expected

    @pytest.mark.parametrize("value", [[], [{"role": "assistant", "content": "x"}]])
    def test_a_prompt_without_a_user_turn(self, value):
        assert prompt_turns(value) == ()

    def test_length_of_a_table(self):
        cell = {"min": 90.0, "max": None, "unit": None, "relation": "at_least"}
        assert length_target(cell) == LengthTarget(min=90, relation="at_least")
        assert length_target({"requested": None, "words": 5}) is None
