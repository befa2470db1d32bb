"""Pairs as tokens: the same as SFT's, whatever the template, and an account of every row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lengthwise.config import ConfigError
from lengthwise.records import Message
from lengthwise.row_formats import read_row
from lengthwise.rows import Place, Row
from posttrain.pair_data import TokenPair, prepare_pairs, tokenize_pairs
from posttrain.pair_formats import PairRow, read_pair
from posttrain.row_sources import DataSource
from posttrain.train_data import tokenize_rows
from posttrain.training_mask import TemplateRefused

np = pytest.importorskip("numpy")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ '<|endoftext|>' }}" + CHATML.replace("m.content }}", "m.content | trim }}")
NO_GENERATION_PROMPT = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}<|im_end|>"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
DROPS_THOUGHTS = CHATML.replace(
    "{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
)
OPENS_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
SAYS_WHETHER_IT_THINKS = (
    "{% if messages[-1].content.startswith('<think>') %}<|im_start|>system\nThink.<|im_end|>\n{% endif %}"
    + CHATML
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"

USER = {"role": "user", "content": "Hi"}
LONG = "One \u00e9\u00e8 \u65e5\u672c\u8a9e \U0001f600 two.\n\nThree"


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CONVERSATIONS = {
    "one turn": [USER],
    "system": [{"role": "system", "content": "Be kind."}, USER],
    "two turns": [USER, assistant("<think>red</think>Yo"), {"role": "user", "content": "  Which? \n"}],
}
ANSWERS = [LONG, "<think>\nhm\n</think>\n\nBlue.", "No"]


@pytest.fixture(scope="module")
def smollm2():
    transformers = pytest.importorskip("transformers")
    from lengthwise.models import resolve_model

    return transformers.AutoTokenizer.from_pretrained(resolve_model("embedded:smollm2-135m").path)


@pytest.fixture
def tokenizer(smollm2):
    own = smollm2.chat_template
    yield smollm2
    smollm2.chat_template = own


@pytest.fixture(scope="module")
def bytes_(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    from byte_tokenizer import chat_tokenizer

    folder = tmp_path_factory.mktemp("bytes")
    chat_tokenizer(folder, CHATML.replace("<|im_end|>", "<|end|>") + "{# think #}")
    return transformers.AutoTokenizer.from_pretrained(folder)


def pair_of(prompt, chosen: str, rejected: str, line: int = 1) -> PairRow:
    return read_pair(Row(Place("s", line), {"prompt": prompt, "chosen": chosen, "rejected": rejected}))


def tokens_of(tokenizer: Any, *pairs: PairRow) -> list[TokenPair]:
    found, refused = tokenize_pairs(pairs, tokenizer)
    assert not refused
    return found


def sft_tokens(tokenizer: Any, prompt, answer: str) -> tuple[list[int], list[bool]]:
    """Return the ids of the same conversation in SFT, and which carry loss."""
    row = read_row(Row(Place("s", 1), {"prompt": prompt, "completion": answer}))
    (found,), refused = tokenize_rows([row], tokenizer, train_on="all")
    assert not refused
    return found.input_ids.tolist(), (found.labels != -100).tolist()


def assert_same_as_sft(tokenizer: Any, prompt, chosen: str, rejected: str) -> None:
    (pair,) = tokens_of(tokenizer, pair_of(prompt, chosen, rejected))
    for answer, ids in ((chosen, pair.chosen_ids), (rejected, pair.rejected_ids)):
        expected, has_loss = sft_tokens(tokenizer, prompt, answer)
        whole = [*pair.prompt_ids.tolist(), *ids.tolist()]
        assert whole == expected[: len(whole)]
        assert has_loss == [False] * len(pair.prompt_ids) + [True] * len(ids) + [False] * (
            len(expected) - len(whole)
        )
        assert not tokenizer.decode(
            expected[len(whole) :]
        ).strip()  # what is left out is the template's white space


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    "template",
    [None, CHATML, WITH_BOS, NO_GENERATION_PROMPT, DROPS_THOUGHTS],
    ids=["smollm2", "chatml", "bos", "no generation prompt", "drops thoughts"],
)
def test_a_pair_is_what_sft_makes_of_its_conversations(tokenizer, template, name):
    if template is not None:
        tokenizer.chat_template = template
    for chosen, rejected in zip(ANSWERS, [*ANSWERS[1:], ANSWERS[0]], strict=True):
        assert_same_as_sft(tokenizer, CONVERSATIONS[name], chosen, rejected)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_same_with_tokens_that_are_bytes(bytes_, name):
    assert_same_as_sft(bytes_, CONVERSATIONS[name], ANSWERS[0], ANSWERS[1])


def test_literal_tokens(bytes_):
    (pair,) = tokens_of(bytes_, pair_of("Hi", "<think>a</think>b", "c"))
    assert bytes_.decode(pair.prompt_ids) == "<|im_start|>user\nHi<|end|>\n<|im_start|>assistant\n"
    assert bytes_.convert_ids_to_tokens(pair.chosen_ids.tolist()) == [
        "<think>",
        "a",
        "</think>",
        "b",
        "<|end|>",
    ]
    assert bytes_.convert_ids_to_tokens(pair.rejected_ids.tolist()) == ["c", "<|end|>"]
    assert (pair.prompt_ids.dtype, pair.chosen_ids.dtype, pair.rejected_ids.dtype) == (np.int32,) * 3
    assert pair.length == len(pair.prompt_ids) + 5 and pair.num_supervised == 5
    assert pair.end_of_turn_ids == {bytes_.eos_token_id}


def test_one_bos_and_one_end_of_turn(tokenizer):
    tokenizer.chat_template = WITH_BOS
    (pair,) = tokens_of(tokenizer, pair_of([USER], "Yo", "No"))
    bos, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert pair.prompt_ids.tolist().count(bos) == 1 and pair.prompt_ids[0] == bos
    for ids in (pair.chosen_ids.tolist(), pair.rejected_ids.tolist()):
        assert ids.count(bos) == 0 and ids.count(end) == 1 and ids[-1] == end


def test_the_prompt_is_the_one_seen_at_inference(tokenizer):
    prompt = CONVERSATIONS["two turns"]
    (pair,) = tokens_of(tokenizer, pair_of(prompt, "Yo", "No"))
    expected = tokenizer.apply_chat_template(
        prompt, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert pair.prompt_ids.tolist() == expected


def refusal(tokenizer, *pairs: PairRow) -> str:
    found, (refused,) = tokenize_pairs(pairs, tokenizer)
    assert len(found) == len(pairs) - 1
    assert (refused.outcome, refused.line, refused.num_tokens) == ("failed", 2, None)
    return refused.reason


def test_a_prompt_that_depends_on_the_answer_is_refused(tokenizer):
    tokenizer.chat_template = SAYS_WHETHER_IT_THINKS
    pairs = [pair_of("Hi", "Yo", "No"), pair_of("Hi", "<think>hm</think>Yo", "No", line=2)]
    assert refusal(tokenizer, *pairs).startswith(
        "the prompt is rendered differently before the chosen answer: "
    )


def test_a_generation_prompt_that_only_one_answer_goes_on_from_is_refused(tokenizer):
    tokenizer.chat_template = OPENS_THOUGHT
    good = pair_of("Hi", "<think>\nhm\n</think>Yo", "<think>\nha\n</think>No")
    assert "before the rejected answer" in refusal(
        tokenizer, good, pair_of("Hi", "<think>\nhm", "No", line=2)
    )
    with pytest.raises(TemplateRefused, match="generation prompt"):
        tokenize_pairs([pair_of("Hi", "Yo", "No")], tokenizer)


def test_white_space_that_joins_the_prompt_in_one_answer_is_refused(tokenizer):
    tokenizer.chat_template = CHATML
    reason = refusal(tokenizer, pair_of("Hi", "Yo", "No"), pair_of("Hi", "\n\nYo", "No", line=2))
    assert "tokens before chosen" in reason and "joins the end of the generation prompt" in reason


def test_white_space_that_joins_the_prompt_in_both_is_counted_as_in_sft(tokenizer):
    tokenizer.chat_template = CHATML
    assert_same_as_sft(tokenizer, [USER], "\n\nYo", "\n\nNo")
    (pair,) = tokens_of(tokenizer, pair_of("Hi", "\n\nYo", "\n\nNo"))
    assert pair.num_split_tokens == 2


def test_answers_that_the_template_makes_equal_are_refused(tokenizer):
    tokenizer.chat_template = WITH_BOS
    pairs = [pair_of("Hi", "Yo", "No"), pair_of("Hi", "Yo\n", "Yo", line=2)]
    assert "renders chosen and rejected alike" in refusal(tokenizer, *pairs)


def test_a_template_without_end_of_turn_stops_the_job(tokenizer):
    tokenizer.chat_template = NO_END
    with pytest.raises(TemplateRefused, match="teach the model to stop"):
        tokenize_pairs([pair_of("Hi", "Yo", "No")], tokenizer)


def test_the_order_is_kept_over_batches(bytes_):
    pairs = [pair_of("Hi", f"yes {i}", "no", line=i) for i in range(300)]
    found = tokens_of(bytes_, *pairs)
    assert [p.pair.line for p in found] == list(range(300))
    assert bytes_.decode(found[200].chosen_ids) == "yes 200<|end|>"


def token_pair(prompt: int, chosen: list[int], rejected: list[int]) -> TokenPair:
    turn = (Message(role="assistant", content="x"),)
    row = PairRow(id="i", source="s", line=1, prompt=(), chosen=turn, rejected=turn)
    return TokenPair(row, *(np.array(ids, dtype=np.int32) for ids in (range(prompt), chosen, rejected)))


def test_cut_takes_the_ends_of_the_answers():
    pair = token_pair(3, [1, 2, 3, 4], [5, 6]).cut(6)
    assert (pair.prompt_ids.tolist(), pair.chosen_ids.tolist(), pair.rejected_ids.tolist()) == (
        [0, 1, 2],
        [1, 2, 3],
        [5, 6],
    )
    assert pair.length == 6


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (token_pair(6, [1], [2]), "prompt_over_length"),
        (token_pair(4, [1, 2, 3], [1, 2, 4]), "equal_when_cut"),
    ],
)
def test_cut_refuses_what_would_teach_nothing(pair, reason):
    with pytest.raises(ValueError, match=reason):
        pair.cut(6)


def options(**changes: Any) -> dict[str, Any]:
    return {
        "max_length": 8192,
        "over_length": "raise",
        "on_bad_row": "raise",
        "mixture_rows": None,
        "seed": 0,
        **changes,
    }


def source(folder, rows, name="rows", weight=None):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSource(path=str(path), weight=weight)


GOOD_ROW = {"prompt": "Hi", "chosen": "Yo", "rejected": "No"}


def test_prepare_accounts_for_every_pair(tmp_path, bytes_):
    rows = [
        GOOD_ROW,
        {**GOOD_ROW, "rejected": "n" * 200},
        {**GOOD_ROW, "rejected": "Yo"},
        {**GOOD_ROW, "prompt": "p" * 199},
        {"prompt": "Hi", "chosen": "Yo"},
    ]
    sources = [source(tmp_path, rows)]
    with pytest.raises(ConfigError, match=r"2 of 5 rows(.|\n)* line 3: chosen and rejected(.|\n)* line 5: "):
        prepare_pairs(sources, bytes_, **options())
    over_long = r"2 of 3 rows .* 100 tokens(.|\n)*line 2: 244 tokens \(201 (.|\n)*line 4: 243 tokens \(3 sup"
    with pytest.raises(ConfigError, match=over_long):
        prepare_pairs(sources, bytes_, **options(on_bad_row="drop", max_length=100))
    dropped = prepare_pairs(sources, bytes_, **options(on_bad_row="drop", max_length=100, over_length="drop"))
    assert [(r.line, r.outcome, r.reason) for r in dropped.refused[2:]] == [
        (2, "rejected", "over_length"),
        (4, "rejected", "over_length"),
    ]
    data = prepare_pairs(
        sources, bytes_, **options(on_bad_row="drop", max_length=100, over_length="truncate")
    )
    (count,) = data.counts
    assert (count.read, count.failed, count.over_length, count.usable, count.drawn) == (5, 2, 2, 2, 2)
    assert data.refused[2].to_dict() == {
        "id": data.rows[1].pair.id,
        "source": sources[0].path,
        "line": 2,
        "outcome": "truncated",
        "reason": "over_length",
        "num_tokens": 244,
        "num_supervised_tokens": 201,
        "num_kept_tokens": 100,
    }
    assert [(r.line, r.outcome, r.reason) for r in data.refused[3:]] == [
        (4, "rejected", "prompt_over_length")
    ]
    assert data.longest == 100 and data.over_length == (2, 244 + 243)
    assert bytes_.eos_token_id not in data.rows[1].rejected_ids.tolist()
    assert bytes_.eos_token_id in data.rows[1].chosen_ids.tolist()
    header = "\n".join(data.header_lines(max_length=100, limit_from="as set", policy="truncate"))
    assert "5 rows read, 2 unreadable, 2 over-length, 2 trained on" in header
    assert "1 truncated rows have no end-of-turn token: they teach the model not to stop" in header


def test_nothing_left(tmp_path, bytes_):
    with pytest.raises(ConfigError, match="no row is left to train on"):
        prepare_pairs([source(tmp_path, [GOOD_ROW])], bytes_, **options(max_length=9, over_length="drop"))


def test_mixes_by_weight(tmp_path, bytes_):
    sources = [
        source(tmp_path, [{**GOOD_ROW, "prompt": f"{name}{i}"} for i in range(count)], name, weight)
        for name, count, weight in (("a", 2, 1.0), ("b", 6, 3.0))
    ]
    data = prepare_pairs(sources, bytes_, **options(mixture_rows=16))
    assert [(c.usable, c.drawn) for c in data.counts] == [(2, 4), (6, 12)]


def test_the_dataset_has_what_the_collator_takes(tmp_path, bytes_):
    pytest.importorskip("datasets")
    data = prepare_pairs([source(tmp_path, [GOOD_ROW, {**GOOD_ROW, "chosen": "Yes"}])], bytes_, **options())
    dataset = data.to_dataset()
    assert dataset.column_names == ["prompt_ids", "chosen_ids", "rejected_ids"]
    first, second = dataset.to_list()
    assert first["prompt_ids"] == second["prompt_ids"] == data.rows[0].prompt_ids.tolist()
    assert [bytes_.decode(second[name]) for name in ("chosen_ids", "rejected_ids")] == [
        "Yes<|end|>",
        "No<|end|>",
    ]
    num_prompt = len(first["prompt_ids"])
    assert (data.num_tokens, data.num_supervised_tokens) == (4 * num_prompt + 3 + 3 + 4 + 3, 13)
