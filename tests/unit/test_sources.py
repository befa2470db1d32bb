from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from data_builders.sources import (
    SHIPPED,
    Columns,
    Refusal,
    Source,
    duplicate_prompts,
    limited,
    read_source,
)
from lengthwise.config import ConfigError
from lengthwise.length_wishes import parse_length_wish
from lengthwise.records import LengthTarget, Message, Sample, sample_id, unique_ids, user


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(data: str | None, **columns: str | None) -> Source:
    return read_source(data, Columns(**columns))  # type: ignore[arg-type]


def test_jsonl(tmp_path):
    data = write(
        tmp_path / "a.jsonl",
        {"id": 7, "prompt": "Write a poem.", "length": 300, "category": "poem"},
        {"prompt": "写一首诗", "length": {"min": 100, "relation": "at_least"}, "lineage": ["x"]},
    )
    source = read(data)
    first, second = source.samples
    assert (first.id, first.messages, first.length) == ("7", user("Write a poem."), LengthTarget.about(300))
    assert first.metadata == {"category": "poem"}
    assert second.id == sample_id(second.messages)
    assert second.length == LengthTarget(min=100, relation="at_least")
    assert second.lineage == ("x",)
    assert source.inputs[0].num_rows == 2 and len(source.inputs[0].sha256 or "") == 64


def test_other_columns_and_turns(tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Write."},
        {"role": "assistant", "content": "Done."},
    ]
    data = write(tmp_path / "a.jsonl", {"messages": turns, "key": "k", "words": 90, "length": "long"})
    (sample,) = read(data, prompt="messages", id="key", length="words").samples
    assert sample.id == "k"
    assert sample.messages == (Message(role="system", content="Be brief."), *user("Write."))
    assert sample.length == LengthTarget.about(90)
    assert sample.metadata == {"length": "long"}


def test_parquet_json_and_folder_hold_the_same(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"id": "a", "prompt": "One."}, {"id": "b", "prompt": "Two."}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "l.json").write_text(json.dumps(rows))
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "1.jsonl", rows[0])
    write(folder / "2.jsonl", rows[1])
    for data in (tmp_path / "p.parquet", tmp_path / "l.json", folder):
        assert [s.id for s in read(str(data)).samples] == ["a", "b"]
        assert [s.instruction for s in read(str(data)).samples] == ["One.", "Two."]


def test_a_build_run_is_read_from_its_jsonl_and_becomes_a_parent(tmp_path):
    requested = LengthTarget.about(500).to_dict()
    write(
        tmp_path / "data.jsonl",
        {"id": "a", "messages": [{"role": "user", "content": "One."}], "length": {"requested": requested}},
    )
    (tmp_path / "manifest.json").write_text('{"job": "build"}')
    source = read(str(tmp_path))
    assert source.samples[0].messages == user("One.")
    assert source.parents == (tmp_path,)
    assert [s.length for s in source.samples] == [LengthTarget.about(500)]


REFUSED = [
    ("", "holds no rows"),
    ('{"prompt": "a"}\n{"prompt": ', "line 2: not valid JSON"),
    ("[1]\n", "line 1: a row must be an object"),
    (
        '{"prompt": "a"}\n\n{"promt": "b"}\n{"promt": "c"}\n',
        r"2 of 3 rows (.|\n)*line 3: there is no column 'prompt': did you mean 'promt'",
    ),
    ('{"text": "a"}\n', "the row has text; set prompt_column"),
    ('{"prompt": 5}\n', "must be a text or a list"),
    ('{"prompt": "a", "length": "long"}\n', "column 'length': it is 'long'.*length_column: null"),
    ('{"prompt": "a", "length": -3}\n', "must be positive"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_bad_files_name_the_line_and_the_remedy(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(str(path))


@pytest.mark.parametrize("data", ["missing.jsonl", "./nowhere", "one-word", "/no/such/folder"])
def test_nothing_there(data):
    with pytest.raises(ConfigError, match="no file or folder"):
        read(data)


def test_a_row_without_prompt_has_messages_instead_where_the_column_is_the_default(tmp_path):
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yo."},
        {"role": "user", "content": "Write."},
        {"role": "assistant", "content": "Done."},
        {"role": "system", "content": "End."},
    ]
    data = write(tmp_path / "a.jsonl", {"messages": turns}, {"prompt": None, "messages": turns, "x": 1})
    assert [[m.content for m in s.messages] for s in read(data).samples] == 2 * [["Hi.", "Yo.", "Write."]]
    assert [dict(s.metadata) for s in read(data).samples] == [{}, {"prompt": None, "x": 1}]
    with pytest.raises(ConfigError, match="there is no column 'text'"):
        read(data, prompt="text")


def test_a_hundred_thousand_rows_are_cheap(tmp_path):
    num_rows = 4000  # enough to tell; the figure a row does not depend on it
    row = {"prompt": "x" * 100, "length": 300, "category": "essay", "language": "en", "year": 2024}
    data = write(tmp_path / "a.jsonl", *({"id": f"r{i}", **row} for i in range(num_rows)))
    tracemalloc.start()
    source = read(data)
    held, peak = (size / num_rows for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    assert len(source.samples) == num_rows
    assert held < 1000 and peak < 1200  # bytes a row, 150 of them its own text


def samples(*names: str) -> list[Sample]:
    return [Sample(id=name, messages=user(f"Write {i}.")) for i, name in enumerate(names)]


def test_ids_are_made_unique_and_counted():
    unique, num_renamed = unique_ids(samples("a", "b", "a", "a", "a#2"))
    assert [s.id for s in unique] == ["a", "b", "a#2", "a#3", "a#2#2"]
    assert num_renamed == 3


def test_limit_is_seeded_keeps_the_order_and_only_adds():
    rows = samples(*(str(i) for i in range(50)))
    ten, twenty = limited(rows, 10, seed=3), limited(rows, 20, seed=3)
    assert len(ten) == 10
    assert [int(s.id) for s in ten] == sorted(int(s.id) for s in ten)
    assert {s.id for s in ten} < {s.id for s in twenty}
    assert ten != limited(rows, 10, seed=4)
    assert limited(rows, None, seed=3) == limited(rows, 99, seed=3) == rows


def test_duplicate_prompts_point_to_the_first():
    rows = [
        Sample(id="a", messages=user("Write.")),
        Sample(id="b", messages=user("Write."), metadata={"plan": ["x"]}),
        Sample(id="c", messages=user("Write."), metadata={"category": "z"}),
        Sample(id="d", messages=user("Write."), length=LengthTarget.about(5)),
    ]
    as_a = Refusal("duplicate prompt", "as a")
    assert duplicate_prompts(rows) == {"b": as_a, "c": as_a}
    assert duplicate_prompts(rows, "plan", None) == {"c": as_a}


def test_shipped_instructions():
    source = read(None)
    rows = source.samples
    assert source.inputs[0].path == str(SHIPPED)
    assert len(rows) >= 64 and not duplicate_prompts(rows) and source.num_renamed == 0
    languages = [s.metadata["language"] for s in rows]
    assert languages.count("en") == 2 * languages.count("zh")
    assert len({s.metadata["category"] for s in rows}) >= 10
    wishes = [wish for s in rows if (wish := parse_length_wish(s.instruction)) is not None]
    assert len(wishes) > 0.8 * len(rows)
    assert min(w.nominal for w in wishes) >= 300 and max(w.nominal for w in wishes) <= 8000
