"""Reading rows, the length limit, mixtures, and the account of every row."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lengthwise.config import ConfigError
from lengthwise.row_formats import TrainRow, read_row
from lengthwise.rows import Place, Row
from posttrain.over_length import limit_length
from posttrain.prepared_rows import draw_mixture
from posttrain.row_sources import DataSource, data_sources, load_source
from posttrain.train_data import TokenRow, prepare

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def read(row, source="s", line=1):
    return read_row(Row(Place(source, line), row))


def turns(row):
    return [(m.role, m.content) for m in read(row).messages]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"prompt": "Hi", "completion": "Yo"},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"prompt": CHAT[:1], "completion": "Yo"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"instruction": "Hi", "input": "", "output": "Yo"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, CHAT[1]]},
    ],
)
def test_reads_every_shape(row):
    assert turns(row) == [("user", "Hi"), ("assistant", "Yo")]


def test_alpaca_input_and_system():
    row = {"instruction": "Add.", "input": "1 1", "output": "2", "system": "Be brief."}
    assert turns(row) == [("system", "Be brief."), ("user", "Add.\n\n1 1"), ("assistant", "2")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": [{"role": "system", "content": "Be brief."}, *CHAT]},
        {"prompt": "Hi", "completion": "Yo"},
        {"prompt": [{"role": "system", "content": "Be brief."}, CHAT[0]], "completion": CHAT[1:]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"instruction": "Hi", "output": "Yo"},
    ],
)
def test_a_system_text_beside_the_turns_comes_first(row):
    row = {**row, "system": "Be brief."}
    assert turns(row) == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo")]
    assert read(row).num_context == (2 if "prompt" in row else 0)


def test_alpaca_history_becomes_earlier_turns_that_carry_loss():
    row = {
        "instruction": "Hi",
        "output": "Yo",
        "system": "S",
        "history": [["One?", "Two."], ("Red?", "Blue.")],
    }
    roles_and_texts = [("user", "One?"), ("assistant", "Two."), ("user", "Red?"), ("assistant", "Blue.")]
    assert turns(row) == [("system", "S"), *roles_and_texts, ("user", "Hi"), ("assistant", "Yo")]
    assert read(row).num_context == 0
    assert turns({**row, "system": "", "history": []}) == [("user", "Hi"), ("assistant", "Yo")]


def test_marks_that_change_nothing_are_accepted():
    marked = [
        {**CHAT[0], "weight": 0, "loss": False},
        {**CHAT[1], "weight": 1, "train": True, "thinking": ""},
    ]
    assert turns({"messages": marked}) == [("user", "Hi"), ("assistant", "Yo")]
    context = [CHAT[0], {**CHAT[1], "weight": 0}, CHAT[0]]
    assert read({"prompt": context, "completion": "Yo"}).num_context == 3


def test_the_prompt_of_a_prompt_completion_row_is_context():
    row = read({"prompt": [*CHAT, CHAT[0]], "completion": CHAT[1:]})
    assert (row.num_context, len(row.messages)) == (3, 4)


def test_a_row_without_id_gets_one_from_its_content():
    first, again = (read({"messages": CHAT}, s, n) for s, n in (("a", 1), ("b", 9)))
    assert first.id == again.id != ""
    assert read({"messages": CHAT, "id": 7}).id == "7"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x"}, "plain text, not a conversation"),
        ({"conversations": [], "chosen": {}, "rejected": {}}, "preference row"),
        ({"messages": []}, "empty"),
        ({"messages": CHAT[:1]}, "no assistant turn"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": " \n"}]}, "is empty"),
        ({"messages": [CHAT[0], {"role": "tool", "content": "x"}]}, "role 'tool'"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": None}]}, "no text"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "text"}]}]}, "holds no text"),
        ({"instruction": "x", "output": float("nan")}, "output holds no text but a float"),
        ({"messages": CHAT, "tools": {"name": "f"}}, "expected a list of JSON schemas"),
        ({"messages": CHAT, "tools": "f(x)"}, "no JSON"),
        (
            {"messages": [{"role": "system", "content": "A"}, *CHAT], "system": "B"},
            "two system texts: 'B' and 'A'",
        ),
        ({"messages": CHAT, "system": {"a": 1}}, "system holds no text but a dict"),
        ({"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "Hm."}]}, "message 1 has reasoning_content"),
        ({"messages": [CHAT[0], {**CHAT[1], "thinking": "Hm."}]}, "message 1 has thinking"),
        ({"messages": [CHAT[0], {**CHAT[1], "reasoning": ["Hm."]}]}, "message 1 has reasoning"),
        ({"messages": [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT]}, "message 1 has weight: 0"),
        ({"messages": [CHAT[0], {**CHAT[1], "weight": 0.5}]}, "message 1 has weight: 0.5"),
        ({"messages": [CHAT[0], {**CHAT[1], "loss": False}]}, "message 1 has loss: False"),
        ({"conversations": [{"from": "gpt", "value": "Yo", "train": False}]}, "message 0 has train: False"),
        ({"instruction": "x", "output": "y", "history": "Hi"}, "history is 'Hi', expected a list"),
        ({"instruction": "x", "output": "y", "history": [["Hi"]]}, r"history 0 is \['Hi'\], expected a pair"),
        ({"instruction": "x", "output": "y", "history": [["Hi", 1]]}, "history 0 holds no text but a int"),
        (
            {"instruction": "x", "output": "y", "history": [["Hi", ""]]},
            "message 1, an assistant turn, is empty",
        ),
    ],
)
def test_says_why_a_row_cannot_be_read(row, reason):
    with pytest.raises(ValueError, match=reason):
        read(row)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_unreadable_lines_are_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    good = json.dumps({"messages": CHAT}).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\n\n{broken\n\xff\xfe\n" + good)
    loaded = load_source(DataSource(path=str(file)), read_row)
    assert [r.line for r in loaded.rows] == [1, 5]
    assert [(r.line, r.reason.split(":")[0]) for r in loaded.refused] == [
        (3, "not valid JSON"),
        (4, "not UTF-8 text"),
    ]


def test_reads_json_lists_and_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"messages": CHAT}, {"messages": CHAT}]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("rows.json", "rows.parquet"):
        assert len(load_source(DataSource(path=str(tmp_path / name)), read_row).rows) == 2


def test_a_build_is_a_parent(tmp_path):
    write_jsonl(tmp_path / "data.jsonl", [{"messages": CHAT}])
    (tmp_path / ".lock").write_text('{"job": "build"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data: .* has not finished\. Run its command again"):
        data_sources(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"job": "build"}', encoding="utf-8")
    loaded = load_source(data_sources(str(tmp_path))[0], read_row)
    assert loaded.run_folder == tmp_path
    assert [read.path for read in loaded.inputs] == [str(tmp_path / "data.jsonl")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere/at/all.jsonl", "no file or folder"),
        ([], "empty list"),
        ([DataSource(path="a/b", weight=1), DataSource(path="c/d")], "not c/d"),
        ([DataSource(path="a/b", weight=-1)], "above 0"),
    ],
)
def test_refuses_impossible_sources(data, message):
    with pytest.raises(ConfigError, match=message):
        data_sources(data)


def token_row(num_tokens, num_prompt=2, line=1):
    ids = np.arange(num_tokens, dtype=np.int32)
    labels = ids.copy()
    labels[:num_prompt] = -100
    return TokenRow(TrainRow(id=f"r{line}", source="s", line=line, messages=()), ids, labels)


def test_over_length_stops_by_default_and_names_the_longest():
    rows = [token_row(5), token_row(9, line=2), token_row(12, line=3)]
    with pytest.raises(
        ConfigError, match=r"2 of 3 rows .* 8 tokens.*\n  s, line 3: 12 tokens \(10 supervised\)"
    ):
        limit_length(rows, 8, "raise")


def test_over_length_drop():
    kept, records = limit_length([token_row(8), token_row(9, line=2)], 8, "drop")
    assert [r.row.line for r in kept] == [1]
    assert records[0].to_dict() == {
        "id": "r2",
        "source": "s",
        "line": 2,
        "outcome": "rejected",
        "reason": "over_length",
        "num_tokens": 9,
        "num_supervised_tokens": 7,
        "num_kept_tokens": 0,
    }


def test_over_length_truncate_cuts_the_end_and_drops_what_keeps_no_answer():
    kept, records = limit_length([token_row(12), token_row(12, num_prompt=8, line=2)], 8, "truncate")
    assert [r.input_ids.tolist() for r in kept] == [list(range(8))]
    assert [(r.outcome, r.reason, r.num_kept_tokens) for r in records] == [
        ("truncated", "over_length", 8),
        ("rejected", "prompt_over_length", 0),
    ]


def test_mixture_follows_the_weights():
    a, b = [f"a{i}" for i in range(10)], [f"b{i}" for i in range(90)]
    drawn = draw_mixture([a, b], [1, 3], num_rows=None, seed=1)
    assert [len(d) for d in drawn] == [25, 75]
    assert set(Counter(drawn[0]).values()) == {2, 3}  # used up evenly before a third pass
    assert set(Counter(drawn[1]).values()) == {1}
    assert drawn == draw_mixture([a, b], [10, 30], num_rows=None, seed=1)
    assert drawn != draw_mixture([a, b], [1, 3], num_rows=None, seed=2)


def test_mixture_counts_add_up_whatever_the_rounding():
    drawn = draw_mixture([range(7)] * 3, [1, 1, 1], num_rows=20, seed=0)
    assert sorted(len(d) for d in drawn) == [6, 7, 7]


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    from lengthwise.models import resolve_model

    return transformers.AutoTokenizer.from_pretrained(resolve_model("embedded:smollm2-135m").path)


def options(**changes):
    return {
        "max_length": 8192,
        "over_length": "raise",
        "on_bad_row": "raise",
        "train_on": "all",
        "mixture_rows": None,
        "seed": 0,
        **changes,
    }


def test_prepare_accounts_for_every_row(tmp_path, tokenizer):
    long = [CHAT[0], {"role": "assistant", "content": "word " * 200}]
    rows = [{"messages": CHAT}, {"messages": long}, {"messages": []}, {"messages": CHAT[1:]}]
    sources = [DataSource(path=str(write_jsonl(tmp_path / "rows.jsonl", rows)))]
    with pytest.raises(
        ConfigError, match=r"2 of 4 rows(.|\n)* line 3: (.|\n)* line 4: (.|\n)*on_bad_row: drop"
    ):
        prepare(sources, tokenizer, **options(max_length=100, over_length="drop"))
    data = prepare(sources, tokenizer, **options(max_length=100, over_length="drop", on_bad_row="drop"))
    count = data.counts[0]
    assert (count.read, count.failed, count.over_length, count.drawn) == (4, 2, 1, 1)
    assert [(r.line, r.outcome) for r in data.refused] == [(3, "failed"), (4, "failed"), (2, "rejected")]
    assert data.num_supervised_tokens == len(tokenizer("Yo<|im_end|>")["input_ids"])
    header = "\n".join(data.header_lines(max_length=100, limit_from="set", policy="drop"))
    assert "4 rows read, 2 unreadable, 1 over-length, 1 trained on" in header


def test_rows_to_evaluate_on_are_counted_and_their_build_is_a_parent(tmp_path, tokenizer):
    from posttrain.train_output import parents, row_counts

    def build(name, rows):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "data.jsonl", rows)
        (tmp_path / name / "manifest.json").write_text('{"job": "build"}', encoding="utf-8")
        choices = options(max_length=100, over_length="drop", on_bad_row="drop")
        return prepare(data_sources(str(tmp_path / name)), tokenizer, **choices)

    long = [CHAT[0], {"role": "assistant", "content": "word " * 200}]
    data = build("train", [{"messages": CHAT}])
    eval_data = build(
        "held_out", [{"messages": CHAT}, {"messages": CHAT}, {"messages": long}, {"messages": []}]
    )
    plan: Any = SimpleNamespace(data=data, eval_data=eval_data, model=SimpleNamespace(path=tmp_path))
    trained = {"read": 1, "kept": 1, "truncated": 0, "rejected": 0, "failed": 0, "drawn": 1}
    evaluated = {"eval_read": 4, "eval_kept": 2, "eval_truncated": 0, "eval_rejected": 1, "eval_failed": 1}
    assert row_counts(plan) == trained | evaluated
    assert parents(plan) == [tmp_path / "train", tmp_path / "held_out"]
    plan.eval_data = None
    assert (row_counts(plan), parents(plan)) == (trained, [tmp_path / "train"])


def test_prepare_mixes_by_weight(tmp_path, tokenizer):
    sources = []
    for name, count, weight in (("a", 2, 1.0), ("b", 6, 3.0)):
        rows = [{"prompt": f"{name}{i}", "completion": "Yo"} for i in range(count)]
        file = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        sources.append(DataSource(path=str(file), weight=weight))
    data = prepare(sources, tokenizer, **options(mixture_rows=16))
    assert [(c.usable, c.drawn) for c in data.counts] == [(2, 4), (6, 12)]
    assert Counter(r.row.messages[0].content for r in data.rows)["a0"] == 2
    header = "\n".join(data.header_lines(max_length=9, limit_from="set", policy="raise"))
    assert "2 rows read, 0 unreadable, 0 over-length, 4 trained on (2.00 times)" in header


def test_the_dataset_has_what_the_trainer_needs(tmp_path, tokenizer):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"messages": CHAT}, {"prompt": "Hi", "completion": "Yo"}])
    dataset = prepare([DataSource(path=str(file))], tokenizer, **options()).to_dataset()
    assert dataset.column_names == ["input_ids", "labels"]
    row, other = dataset.to_list()
    assert row == other
    supervised = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(supervised) == "Yo<|im_end|>"
    assert all(label in (-100, i) for i, label in zip(row["input_ids"], row["labels"], strict=True))


def test_truncated_rows_are_warned_about(tmp_path, tokenizer):
    rows = [{"messages": [CHAT[0], {"role": "assistant", "content": "word " * 200}]}]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = prepare([DataSource(path=str(file))], tokenizer, **options(max_length=60, over_length="truncate"))
    assert data.longest == 60
    header = "\n".join(data.header_lines(max_length=60, limit_from="set", policy="truncate"))
    assert "teach the model not to stop" in header
