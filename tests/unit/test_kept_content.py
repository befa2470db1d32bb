"""What a template does with thoughts, tools, system turns and BOS: kept, or said; never lost."""

from __future__ import annotations

import json

import pytest
from byte_tokenizer import chat_tokenizer

from lengthwise.records import Message
from lengthwise.row_formats import read_row
from lengthwise.rows import Place, Row
from posttrain.kept_content import bos_lines
from posttrain.train_data import tokenize_rows
from posttrain.training_mask import RowRefused, TemplateRefused, assistant_spans, trained_turns

KEEPS = (
    "{% if tools %}<|tools|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS_SYSTEM = KEEPS.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
NO_TOOLS = KEEPS.partition("{% endif %}")[2]
DROPS_ALL_THOUGHTS = KEEPS.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
DROPS_EARLIER_THOUGHTS = KEEPS.replace(
    "{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
)
SPACES_THOUGHTS = KEEPS.replace(
    "{{ m.content }}",
    "{{ m.content | replace('<think>', '<think>\\n') | replace('</think>', '\\n</think>\\n\\n') }}",
)
OPENS_THOUGHTS = KEEPS.replace(
    "{{ m.content }}",
    "{% if '</think>' in m.content and not m.content.startswith('<think>') %}<think>{% endif %}{{ m.content }}",
).replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
THOUGHT = "<think>two and two</think>Four."


@pytest.fixture
def tokenizer(tmp_path):
    return chat_tokenizer(tmp_path / "tokenizer", KEEPS).tokenizer


def turns(*contents: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(contents))


def spans(tokenizer, template, messages, train_on="all", tools=None):
    tokenizer.chat_template = template
    full, found = assistant_spans(tokenizer, messages, trained_turns(messages, train_on=train_on), tools)
    return [full[start:end] for start, end in found]


def test_thoughts_carry_loss_where_the_template_shows_them(tokenizer):
    assert spans(tokenizer, KEEPS, turns("2+2?", THOUGHT)) == [THOUGHT + "<|end|>"]
    spaced = "<think>\ntwo and two\n</think>\n\nFour.<|end|>"
    assert spans(tokenizer, SPACES_THOUGHTS, turns("2+2?", THOUGHT)) == [spaced]
    rest = THOUGHT.removeprefix("<think>") + "<|end|>"  # the generation prompt has written the rest
    assert spans(tokenizer, OPENS_THOUGHTS, turns("2+2?", THOUGHT)) == [rest]


def test_thoughts_that_the_template_drops_are_not_lost_in_silence(tokenizer):
    with pytest.raises(
        RowRefused, match=r"leaves out a part of message 1 \(assistant\) \(templates of thinking"
    ):
        spans(tokenizer, DROPS_ALL_THOUGHTS, turns("2+2?", THOUGHT))
    with pytest.raises(RowRefused, match="leaves out a part of message 1"):
        spans(tokenizer, DROPS_ALL_THOUGHTS, turns("Say: Four.", THOUGHT))  # the words stand in the prompt
    with pytest.raises(TemplateRefused, match="train_on: last"):
        spans(tokenizer, DROPS_EARLIER_THOUGHTS, turns("2+2?", THOUGHT, "3+3?", "<think>.</think>Six."))


def test_thoughts_of_earlier_turns_may_be_dropped_where_only_the_last_is_trained(tokenizer):
    found = spans(
        tokenizer,
        DROPS_EARLIER_THOUGHTS,
        turns("2+2?", THOUGHT, "3+3?", "<think>.</think>Six."),
        train_on="last",
    )
    assert found == ["<think>.</think>Six.<|end|>"]


def test_a_system_turn_that_the_template_drops_is_said(tokenizer):
    messages = (Message(role="system", content="Be brief."), *turns("Hi", "Yo"))
    assert spans(tokenizer, KEEPS, messages) == ["Yo<|end|>"]
    with pytest.raises(RowRefused, match=r"leaves out a part of message 0 \(system\):"):
        spans(tokenizer, DROPS_SYSTEM, messages)


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_tools_are_rendered_as_the_template_has_them(tokenizer, tools):
    given = Row(Place("f", 1), {"prompt": "2+2?", "completion": "Four.", "tools": tools})
    row = read_row(given)
    assert row.tools == tuple(TOOLS)
    tokenizer.chat_template = KEEPS
    (tokens,), refused = tokenize_rows([row], tokenizer, train_on="all")
    expected = tokenizer.apply_chat_template(
        [m.to_dict() for m in row.messages], tools=TOOLS, tokenize=True, return_dict=False
    )
    assert not refused and tokens.input_ids.tolist() == expected
    assert '"name": "add"' in tokenizer.decode(expected)
    assert tokenizer.decode(tokens.labels[tokens.labels >= 0]) == "Four.<|end|>"


def test_a_template_without_tools_refuses_a_row_with_them(tokenizer):
    row = read_row(Row(Place("f", 1), {"prompt": "2+2?", "completion": "Four.", "tools": TOOLS}))
    tokenizer.chat_template = NO_TOOLS
    found, (refused,) = tokenize_rows([row], tokenizer, train_on="all")
    assert not found and "does not show its tools" in refused.reason


@pytest.mark.parametrize("empty", [None, [], ""])
def test_no_tools_are_none(empty):
    row = read_row(Row(Place("f", 1), {"prompt": "2+2?", "completion": "Four.", "tools": empty}))
    assert row.tools is None


def test_rows_without_the_bos_of_the_tokenizer_or_with_two_are_said(tokenizer):
    from tokenizers import processors

    assert not list(bos_lines(tokenizer, [[1, 2]]))  # it puts none before a text
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", bos)]
    )
    assert tokenizer.encode("a")[0] == bos
    assert not list(bos_lines(tokenizer, [[bos, 2], [bos, 3, bos]]))
    lines = list(bos_lines(tokenizer, [[bos, 2], [1, 2], [3], [bos, bos, 4]]))
    assert ["2 rows begin without" in lines[0], "1 rows begin with two" in lines[1]] == [True, True]
