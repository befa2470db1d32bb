"""Training masks for chat templates of every kind, on the embedded model's tokenizer."""

from __future__ import annotations

import pytest

from lengthwise.records import Message
from posttrain.training_mask import (
    RowRefused,
    TemplateRefused,
    assistant_spans,
    check_tokenizer,
    mask_conversations,
    supervised_tokens,
    trained_turns,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ '<|endoftext|>' }}{% for m in messages %}<file_sep>{{ m.role }}<repo_name>\n\n"
    "{{ m.content | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<file_sep>assistant<repo_name>\n\n{% endif %}"
)
MISTRAL = (
    "{{ '<|endoftext|>' }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ '<|endoftext|>' }}{% for m in messages %}<|im_start|>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
DROPS_THOUGHTS = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 < ns.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
END_ONLY_AT_LAST = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if loop.last and m.role == 'assistant' %}"
    "<|im_end|>{% endif %}\n{% endfor %}"
)

TWO_TURNS = [
    Message(role="user", content="Name a colour."),
    Message(role="assistant", content="Blue."),
    Message(role="user", content="Another? \u00e9\u00e8 \u65e5\u672c"),
    Message(role="assistant", content="R\u00f6d \u65e5\u672c\u8a9e \U0001f600 green.\n\nYes"),
]


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


def supervised_pieces(tokenizer, messages, turns):
    """Return the text of each run of supervised tokens."""
    (masked,) = mask_conversations(tokenizer, [assistant_spans(tokenizer, messages, turns)])
    pieces, previous = [], False
    for token, is_on in zip(masked.input_ids, masked.supervised, strict=True):
        if is_on and not previous:
            pieces.append([])
        if is_on:
            pieces[-1].append(token)
        previous = is_on
    return [tokenizer.decode(p) for p in pieces], masked


@pytest.mark.parametrize(
    ("template", "lead"),
    [(None, ""), (CHATML, ""), (LLAMA3, ""), (MISTRAL, " "), (GEMMA, "")],
    ids=["smollm2", "chatml", "llama3", "mistral", "gemma"],
)
def test_supervises_each_answer_and_its_end_of_turn(tokenizer, template, lead):
    if template is not None:
        tokenizer.chat_template = template
    pieces, masked = supervised_pieces(tokenizer, TWO_TURNS, [1, 3])
    assert pieces == [f"{lead}{TWO_TURNS[1].content}<|im_end|>", f"{lead}{TWO_TURNS[3].content}<|im_end|>"]
    assert masked.num_split_tokens == 0
    assert masked.end_of_turn_ids == {tokenizer.eos_token_id}


def test_trains_on_the_ids_that_the_template_gives(tokenizer):
    _, masked = supervised_pieces(tokenizer, TWO_TURNS, [1, 3])
    chat = [m.to_dict() for m in TWO_TURNS]
    assert masked.input_ids == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)


def test_the_unsupervised_start_is_the_prompt_seen_at_inference(tokenizer):
    _, masked = supervised_pieces(tokenizer, TWO_TURNS, [3])
    prompt = tokenizer.apply_chat_template(
        [m.to_dict() for m in TWO_TURNS[:3]], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert masked.supervised.index(True) == len(prompt)
    assert masked.input_ids[: len(prompt)] == prompt


def test_system_turn_is_context(tokenizer):
    messages = [Message(role="system", content="Be brief."), *TWO_TURNS[:2]]
    assert supervised_pieces(tokenizer, messages, [2])[0] == ["Blue.<|im_end|>"]


def test_a_template_that_drops_thoughts_trains_only_the_last_turn(tokenizer):
    tokenizer.chat_template = DROPS_THOUGHTS
    messages = [
        TWO_TURNS[0],
        Message(role="assistant", content="<think>sky</think>Blue."),
        TWO_TURNS[2],
        Message(role="assistant", content="<think>grass</think>Green."),
    ]
    with pytest.raises(TemplateRefused, match="train_on: last"):
        assistant_spans(tokenizer, messages, [1, 3])
    assert supervised_pieces(tokenizer, messages, [3])[0] == ["<think>grass</think>Green.<|im_end|>"]


def test_refuses_a_generation_prompt_that_training_text_lacks(tokenizer):
    tokenizer.chat_template = OPENS_THOUGHT
    with pytest.raises(TemplateRefused, match="generation prompt"):
        assistant_spans(tokenizer, TWO_TURNS[:2], [1])


@pytest.mark.parametrize("template", [NO_END, NO_END.replace("\\n", "")], ids=["newline", "nothing"])
def test_refuses_a_template_without_end_of_turn(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefused, match="teach the model to stop"):
        supervised_pieces(tokenizer, TWO_TURNS[:2], [1])


def test_refuses_an_end_that_only_the_last_turn_has(tokenizer):
    tokenizer.chat_template = END_ONLY_AT_LAST
    with pytest.raises(TemplateRefused, match="once the conversation goes on"):
        assistant_spans(tokenizer, TWO_TURNS, [1, 3])


def test_a_row_that_the_template_refuses_is_that_rows_fault(tokenizer):
    tokenizer.chat_template = MISTRAL
    with pytest.raises(RowRefused, match="only user and assistant roles"):
        assistant_spans(tokenizer, [Message(role="system", content="x"), *TWO_TURNS[:2]], [2])


def test_a_conversation_that_starts_with_the_assistant_is_refused(tokenizer):
    with pytest.raises(RowRefused, match="starts with an assistant turn"):
        assistant_spans(tokenizer, TWO_TURNS[1:3], [0])


def test_counts_tokens_that_join_prompt_and_answer(tokenizer):
    messages = [TWO_TURNS[0], Message(role="assistant", content="\n\nBlue.")]
    _, masked = supervised_pieces(tokenizer, messages, [1])
    assert masked.num_split_tokens == 1


def test_refuses_a_tokenizer_without_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(TemplateRefused, match="chat_template_path"):
        check_tokenizer(tokenizer)


def test_offsets_without_leading_white_space():
    # "a:\n" is the prompt, "\n\nHi there<e>" the turn, "\n" follows it; blanks have no width, at their end.
    offsets = [(0, 1), (1, 2), (3, 3), (5, 5), (5, 7), (8, 13), (13, 16), (17, 17)]
    mask, last, split = supervised_tokens(offsets, [(3, 16)])
    assert mask == [False, False, False, True, True, True, True, False]
    assert (last, split) == ([6], 0)


def test_characters_cut_into_several_tokens():
    offsets = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert supervised_tokens(offsets, [(1, 3)])[0] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("train_on", "num_context", "expected"), [("all", 0, [1, 3]), ("last", 0, [3]), ("all", 2, [3])]
)
def test_which_turns_are_trained(train_on, num_context, expected):
    assert trained_turns(TWO_TURNS, train_on=train_on, num_context=num_context) == expected
