"""Plain texts as sequences of powers of two: each token once, of one text, all with loss, and what is left out."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from byte_tokenizer import PLAIN, chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lengthwise.config import ConfigError
from lengthwise.row_formats import read_row
from lengthwise.rows import Place, Row
from posttrain.curriculum import DecompositionOptions
from posttrain.row_sources import data_sources
from posttrain.text_data import largest_log2, prepare_texts
from posttrain.text_rows import end_of_text_id, read_text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    chat_tokenizer(folder, PLAIN)
    return AutoTokenizer.from_pretrained(folder)


def prepared(folder, tokenizer, texts, *, max_log2=3, weights=None, mixture_rows=None, **options):
    files = []
    for number, part in enumerate(texts if weights else [texts]):
        file = folder / f"texts{number}.jsonl"
        file.write_text(
            "".join(json.dumps({"id": f"{number}-{i}", "text": t}) + "\n" for i, t in enumerate(part))
        )
        files.append(file)
    sources = [source for file in files for source in data_sources(str(file))]
    for source, weight in zip(sources, weights or [], strict=False):
        source.weight = weight
    return prepare_texts(
        sources,
        tokenizer,
        DecompositionOptions(**{"min_log2": 1, "max_log2": max_log2, **options}),
        max_length=64,
        max_tokens=None,
        on_bad_row="raise",
        mixture_rows=mixture_rows,
        seed=0,
    )


def lines_of(data) -> list[str]:
    return list(data.header_lines(max_length=64, limit_from="as set", policy="raise"))


def test_a_text_is_cut_at_powers_of_two_with_its_end_and_carries_loss_throughout(tokenizer, tmp_path):
    """abcdefghij and the end are 11 tokens, 8 + 2 + 1: the last one is below the smallest sequence."""
    data = prepared(tmp_path, tokenizer, ["abcdefghij", "xyz"])
    pieces = [tokenizer.decode(row.input_ids) for row in data.rows]
    assert pieces == ["abcdefgh", "ij", "xyz<|end|>"]
    assert [row.length for row in data.rows] == [8, 2, 4]
    assert all((row.input_ids == row.labels).all() for row in data.rows)
    assert [(row.row.id, row.row.line) for row in data.rows] == [("0-0:0", 1), ("0-0:8", 1), ("0-1:0", 2)]
    assert data.num_supervised_tokens == data.num_tokens == 14


def test_what_is_left_out_is_counted_and_written_down(tokenizer, tmp_path):
    data = prepared(tmp_path, tokenizer, ["a" * 11, "b" * 3, "c" * 7], min_log2=3)
    assert [row.length for row in data.rows] == [8, 8]
    records = [(r.id, r.outcome, r.reason, r.num_tokens, r.num_kept_tokens) for r in data.refused]
    assert records == [
        ("0-0", "truncated", "below_min_log2", 12, 8),
        ("0-1", "rejected", "below_min_log2", 4, 0),
    ]
    (count,) = data.counts
    assert (count.read, count.failed, count.usable, count.drawn) == (3, 0, 2, 2)
    found = lines_of(data)
    assert found[1] == "rows        2 sequences of 8 to 8 tokens from 2 texts, 16 tokens, all supervised"
    assert found[2].startswith("WARNING     8 tokens (33.3%)") and "among them 1 whole texts" in found[2]


def test_little_that_is_left_out_is_said_without_a_warning(tokenizer, tmp_path):
    found = lines_of(prepared(tmp_path, tokenizer, ["a" * 32]))
    assert found[2].startswith("left out    1 tokens (3.0%)")
    assert len(lines_of(prepared(tmp_path, tokenizer, ["a" * 31]))) == 2


def test_texts_of_a_mixture_may_come_again(tokenizer, tmp_path):
    data = prepared(
        tmp_path, tokenizer, [["a" * 7, "b" * 2], ["c" * 7]], weights=[1, 3], mixture_rows=4, min_log2=3
    )
    assert Counter(row.row.source[-7:] for row in data.rows)["1.jsonl"] == 3
    assert [count.drawn for count in data.counts][1] == 3
    assert len(data.refused) <= 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 2))
def test_each_token_of_a_text_is_in_one_sequence_or_left_out(tmp_path_factory, tokenizer, sizes, least, more):
    texts = [chr(ord("a") + place) * size for place, size in enumerate(sizes)]
    folder = tmp_path_factory.mktemp("texts")
    try:
        data = prepared(folder, tokenizer, texts, min_log2=least, max_log2=least + more)
    except ConfigError as error:
        assert f"no text has {2**least} tokens" in str(error)
        assert max(sizes) + 1 < 2**least
        return
    for row in data.rows:
        assert row.length in {2**power for power in range(least, least + more + 1)}
        letters = row.input_ids[row.input_ids != tokenizer.eos_token_id]
        assert len(np.unique(letters)) <= 1  # one document a sequence
        assert len(row.input_ids) - len(letters) <= 1
    assert data.num_tokens + data.num_tokens_left_out == sum(sizes) + len(sizes)
    left_out = sum(r.num_tokens - r.num_kept_tokens for r in data.refused)
    assert left_out == data.num_tokens_left_out


@pytest.mark.parametrize(
    ("options", "limits", "found"),
    [
        ({}, {"max_length": 8192}, 13),
        ({}, {"max_length": 100_000}, 13),
        ({}, {"max_length": 3000}, 11),
        ({}, {"max_length": 8192, "max_tokens": 1024}, 10),
        ({"max_log2": 9}, {"max_length": 8192}, 9),
    ],
)
def test_the_longest_sequences(options, limits, found):
    assert largest_log2(DecompositionOptions(**options), **{"max_tokens": None, **limits}) == found


def test_the_longest_sequences_that_fit_nothing_are_refused():
    with pytest.raises(ConfigError, match="max_log2 is 12, .* but max_length is 2,048: set it to 11"):
        largest_log2(DecompositionOptions(max_log2=12), max_length=2048, max_tokens=None)
    with pytest.raises(ConfigError, match="min_log2 is 8, .* but batching.max_tokens is 200: set it to 7"):
        largest_log2(DecompositionOptions(), max_length=2048, max_tokens=200)


def test_the_end_of_text(tokenizer):
    assert end_of_text_id(tokenizer, None) == tokenizer.eos_token_id
    assert end_of_text_id(tokenizer, "a") == tokenizer.get_vocab()["a"]
    with pytest.raises(ConfigError, match="'<|eot|>', which is no token"):
        end_of_text_id(tokenizer, "<|eot|>")


def test_conversations_are_not_cut_and_texts_are_no_conversations():
    with pytest.raises(
        ValueError, match="has no text .* for conversations set curriculum: {name: length_buckets}"
    ):
        read_text(Row(Place("s", 1), {"prompt": "Hi", "completion": "Yo"}))
    with pytest.raises(ValueError, match="plain text, .* set curriculum: {name: dataset_decomposition}"):
        read_row(Row(Place("s", 1), {"text": "Once upon a time"}))
    assert read_text(Row(Place("s", 7), {"text": "abc", "id": 5})).id == "5"
