"""Prompts to be answered while a model is trained: what is read, what is refused, what rewards get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from byte_tokenizer import PLAIN, chat_tokenizer
from tiny_model import tiny_model
from transformers import AutoTokenizer

from lengthwise.config import ConfigError
from posttrain.budget_prompts import with_budget
from posttrain.end_of_turn import end_of_turn_ids
from posttrain.prompt_data import PromptData, prepare_prompts, with_columns
from posttrain.row_sources import data_sources


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer(folder, PLAIN)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def prepared(tmp_path, tokenizer):
    def prepare(rows: list[dict[str, Any]], **options: Any) -> PromptData:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings: dict[str, Any] = {
            "max_length": 200,
            "over_length": "raise",
            "on_bad_row": "raise",
            "mixture_rows": None,
            "seed": 0,
        }
        return prepare_prompts(data_sources(str(file)), tokenizer, **settings | options)

    return prepare


def test_a_prompt_may_be_text_a_question_or_messages_and_keeps_its_columns(prepared):
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "?"},
    ]
    data = prepared(
        [
            {"id": "a", "prompt": "2+2?", "answer": "4"},
            {"id": "b", "question": "3+3?", "answer": 6},
            {"id": "c", "messages": talk, "length": {"min": 10}},
        ]
    )
    columns = data.to_dataset()
    assert columns["row_id"] == ["a", "b", "c"]
    assert columns[0]["prompt"] == [{"role": "user", "content": "2+2?"}]
    assert [message["content"] for message in columns[2]["prompt"]] == ["Hi", "Yo", "?"]
    rows = [with_columns(row) for row in columns]
    assert [row["length"] for row in rows] == [None, None, {"min": 10}]
    assert [row["answer"] for row in rows] == ["4", 6, None]
    assert all(set(row) == {"prompt", "row_id", "answer", "length"} for row in rows)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x"}, "it needs prompt, question, or messages"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}, "of assistant"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused_or_listed(prepared, row, reason):
    good = {"prompt": "Hi"}
    with pytest.raises(ConfigError, match=reason):
        prepared([good, row])
    data = prepared([good, row], on_bad_row="drop")
    assert [r.line for r in data.refused] == [2] and reason in data.refused[0].reason
    assert len(data.rows) == 1


def test_the_budgets_sentence_counts_and_no_prompt_is_cut(prepared):
    rows = [{"prompt": "x" * n} for n in (10, 60)]
    bare = prepared(rows)
    stated = prepared(rows, stated=lambda messages: with_budget(messages, 256))
    added = stated.lengths[0] - bare.lengths[0]
    assert added > 20
    limit = bare.longest + added - 1
    with pytest.raises(ConfigError):
        prepared(rows, stated=lambda messages: with_budget(messages, 256), max_length=limit)
    for policy in ("drop", "truncate"):
        kept = prepared(
            rows, stated=lambda messages: with_budget(messages, 256), max_length=limit, over_length=policy
        )
        assert len(kept.rows) == 1 and len(kept.refused) == 1


def test_the_ends_of_turns_are_known(tmp_path):
    tiny_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    (end,) = end_of_turn_ids(tokenizer)
    assert tokenizer.decode([end]) == "<|end|>"
