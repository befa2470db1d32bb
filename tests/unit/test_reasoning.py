"""What a thinking model thought is told from what it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from byte_tokenizer import OPENS, PLAIN, WRITES_BOTH, chat_tokenizer

from lengthwise.engines.base import Sampling
from lengthwise.engines.chat_tokenizer import ChatTokenizer
from lengthwise.engines.reasoning import (
    THINK,
    ReasoningTags,
    begins_inside,
    check_tags,
    count_reasoning_tokens,
    cut_at_stop,
    find_tags,
    split_reasoning,
)
from lengthwise.records import Completion, Message, user
from lengthwise.value_types import ConfigError

PROMPT = user("Hi")


@pytest.mark.parametrize(
    ("text", "inside", "answer", "reasoning"),
    [
        # Qwen3 writes both tags.
        ("<think>\nhm\n</think>\n\nYes.", False, "Yes.", "hm"),
        ("<think>\n\n</think>\n\nYes.", False, "Yes.", ""),
        ("\n<think>hm</think>Yes.", None, "Yes.", "hm"),
        # DeepSeek-R1's template writes the first.
        ("hm\n</think>\n\nYes.", True, "Yes.", "hm"),
        ("<think>\nhm\n</think>\n\nYes.", True, "Yes.", "hm"),
        ("hm</think>Yes.", None, "Yes.", "hm"),
        # Cut before the end of the part.
        ("hm, hm", True, "", "hm, hm"),
        ("hm, hm</thi", True, "", "hm, hm</thi"),
        ("<think>hm, hm", False, "", "hm, hm"),
        ("<think>hm, hm", None, "", "hm, hm"),
        ("", True, "", ""),
        # Answers that talk of tags.
        ("Use <think> and </think>.", None, "Use <think> and </think>.", None),
        ("Close it with </think>.", False, "Close it with </think>.", None),
        ("<think>a</think>b<think>c</think>d", None, "b<think>c</think>d", "a"),
        # An answer keeps its own white space, but for the line breaks after the tag.
        ("<think>a</think>\n\n  indented\n", None, "  indented\n", "a"),
        ("  plain \n", False, "  plain \n", None),
        ("  plain \n", None, "  plain \n", None),
    ],
)
def test_replies_are_split(text, inside, answer, reasoning):
    assert split_reasoning(text, THINK, inside=inside) == (answer, reasoning)


def test_without_tags_a_text_is_untouched():
    for text in ("<think>a</think>b", "a</think>b", " x "):
        assert split_reasoning(text, None, inside=True) == (text, None)


def test_an_empty_opening_tag_says_that_all_replies_begin_inside():
    tags = ReasoningTags("", "</think>")
    assert split_reasoning("hm</think>Yes.", tags) == ("Yes.", "hm")
    assert split_reasoning("hm", tags) == ("", "hm")
    assert begins_inside(tags, PROMPT, "...assistant\n")


@pytest.mark.parametrize(
    ("setting", "template", "vocabulary", "tags"),
    [
        ("auto", "{{ x }}", (), None),
        ("auto", "{% if '</think>' in content %}", (), THINK),
        ("auto", "{{ x }}", ("</think>",), THINK),
        ("auto", "[THINK] [/THINK]", (), ReasoningTags("[THINK]", "[/THINK]")),
        (None, "</think>", ("</think>",), None),
        (["<a>", "</a>"], "</think>", (), ReasoningTags("<a>", "</a>")),
    ],
)
def test_tags_are_found_or_given(setting, template, vocabulary, tags):
    assert find_tags(setting, template, vocabulary) == tags


@pytest.mark.parametrize("setting", ["<think>", [], ["<a>"], ["<a>", ""], ["a", "b", "c"]])
def test_settings_that_are_no_tags_are_refused(setting):
    with pytest.raises(ValueError, match="reasoning_tags is"):
        check_tags(setting)


@pytest.mark.parametrize("setting", ["auto", None, ["<a>", "</a>"], ["", "</a>"]])
def test_settings_that_are_tags_are_taken(setting):
    check_tags(setting)


def test_whether_a_reply_begins_inside_is_seen_at_the_end_of_the_prompt():
    assert begins_inside(THINK, PROMPT, "<|Assistant|><think>\n")
    assert not begins_inside(THINK, PROMPT, "<|im_start|>assistant\n")
    assert not begins_inside(THINK, PROMPT, "assistant\n<think>\n\n</think>\n\n")
    assert not begins_inside(THINK, user("what is <think>"), "user\nwhat is <think><|im_end|>assistant\n")
    prefill = Message(role="assistant", content="<think>first")
    assert begins_inside(THINK, (*PROMPT, prefill), "assistant\n<think>first")
    prefill = Message(role="assistant", content="<think>a</think>So")
    assert not begins_inside(THINK, (*PROMPT, prefill), "assistant\nSo")


def test_the_part_counts_up_to_and_with_its_closing_tag():
    pieces = ["<think>", "a", "b", "</", "think", ">\n", "c"]
    decode = lambda ids: "".join(pieces[i] for i in ids)  # noqa: E731
    assert count_reasoning_tokens(range(7), decode, THINK) == 6
    assert count_reasoning_tokens(range(5), decode, THINK) == 5  # never closed
    assert count_reasoning_tokens([0, 1, 9, 2], lambda ids: "", THINK, close_id=9) == 3


def test_the_first_stop_string_counts():
    assert cut_at_stop("one END two STOP", ("STOP", "END")) == ("one ", True)
    assert cut_at_stop("one", ("STOP",)) == ("one", False)
    assert cut_at_stop("one", ()) == ("one", False)


# --- with a tokenizer -----------------------------------------------------------------------------


def reply(tokenizer: ChatTokenizer, text: str, finish_reason="stop") -> Completion:
    """Return what an engine would: the ids, and their text without special tokens."""
    ids = tokenizer.tokenizer.encode(text)
    return Completion(
        text=tokenizer.tokenizer.decode(ids, skip_special_tokens=True),
        finish_reason=finish_reason,
        num_tokens=len(ids),
        token_ids=tuple(ids),
    )


@pytest.mark.parametrize("special", [False, True])
def test_a_reply_with_both_tags_is_separated_and_counted(tmp_path, special):
    tokenizer = chat_tokenizer(tmp_path, WRITES_BOTH, special=special)
    whole = reply(tokenizer, "<think>hmm</think>\n\nYes é.<|end|>")
    found = tokenizer.separate(whole, PROMPT, Sampling())
    assert (found.text, found.reasoning, found.num_reasoning_tokens) == ("Yes é.", "hmm", 5)
    assert (found.num_tokens, found.token_ids) == (whole.num_tokens, whole.token_ids)


@pytest.mark.parametrize("special", [False, True])
def test_a_part_that_the_template_opens_ends_at_its_closing_tag(tmp_path, special):
    tokenizer = chat_tokenizer(tmp_path, OPENS, special=special)
    found = tokenizer.separate(reply(tokenizer, "hmm</think>Yes"), PROMPT, Sampling())
    assert (found.text, found.reasoning, found.num_reasoning_tokens) == ("Yes", "hmm", 4)
    cut = tokenizer.separate(reply(tokenizer, "hmm", "length"), PROMPT, Sampling())
    assert (cut.text, cut.reasoning, cut.num_reasoning_tokens) == ("", "hmm", 3)
    assert cut.finish_reason == "length"


@pytest.mark.parametrize("special", [False, True])
def test_a_part_cut_before_its_end_leaves_no_answer(tmp_path, special):
    tokenizer = chat_tokenizer(tmp_path, WRITES_BOTH, special=special)
    cut = tokenizer.separate(reply(tokenizer, "<think>hmm", "length"), PROMPT, Sampling())
    assert (cut.text, cut.reasoning, cut.num_reasoning_tokens) == ("", "hmm", 4)


def test_a_closing_tag_of_several_tokens_is_counted(tmp_path):
    chat_tokenizer(tmp_path, PLAIN)  # a byte a token, and no tags in it
    tokenizer = ChatTokenizer(tmp_path, ["<think>", "</think>"])
    found = tokenizer.separate(reply(tokenizer, "<think>hmm</think>Yes"), PROMPT, Sampling())
    assert (found.text, found.reasoning) == ("Yes", "hmm")
    assert found.num_reasoning_tokens == len("<think>hmm</think>")


def test_a_model_without_tags_is_left_alone(tmp_path):
    tokenizer = chat_tokenizer(tmp_path, PLAIN)
    whole = reply(tokenizer, "<think>hmm</think>Yes")
    assert tokenizer.tags is None
    assert tokenizer.separate(whole, PROMPT, Sampling()) is whole
    assert tokenizer.for_model(Sampling(stop=("x",))).stop == ("x",)


def test_stop_strings_count_in_the_answer_only(tmp_path):
    tokenizer = chat_tokenizer(tmp_path, WRITES_BOTH)
    sampling = Sampling(stop=("END",))
    assert tokenizer.for_model(sampling).stop == ()
    whole = reply(tokenizer, "<think>the END?</think>Yes END more", "length")
    found = tokenizer.separate(whole, PROMPT, sampling)
    assert (found.text, found.reasoning, found.finish_reason) == ("Yes ", "the END?", "stop")


def test_under_a_schema_the_reply_is_the_answer(tmp_path):
    tokenizer = chat_tokenizer(tmp_path, OPENS)
    found = tokenizer.separate(reply(tokenizer, '{"a": 1}'), PROMPT, Sampling(json_schema={}))
    assert (found.text, found.reasoning) == ('{"a": 1}', None)
    found = tokenizer.separate(reply(tokenizer, 'hm</think>{"a": 1}'), PROMPT, Sampling(json_schema={}))
    assert (found.text, found.reasoning) == ('{"a": 1}', "hm")
    assert split_reasoning("[]", ReasoningTags("", "</think>"), has_grammar=True) == ("[]", None)


@pytest.mark.parametrize(
    ("name", "opens"), [("qwen3", False), ("qwen3_5_think", True), ("deepseek_r1_distill", True)]
)
def test_published_templates_of_thinking_models_are_understood(tmp_path, name, opens):
    tokenizer = chat_tokenizer(tmp_path, published(name))
    assert tokenizer.tags == THINK
    assert tokenizer.begins_inside(PROMPT) is opens


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "qwen3_instruct_2507", "phi3", "gemma3"])
def test_published_templates_of_other_models_have_no_tags(name):
    assert find_tags("auto", published(name)) is None


def published(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def test_thinking_is_switched_off_by_the_template_s_own_variable(tmp_path):
    thinks = chat_tokenizer(tmp_path, published("qwen3"))
    answers = ChatTokenizer(tmp_path, template_kwargs={"enable_thinking": False})
    added = answers.tokenizer.decode(answers.encode(PROMPT)[len(thinks.encode(PROMPT)) :])
    assert added == "<think>\n\n</think>\n\n"  # an empty part, so that the reply is the answer
    assert not answers.begins_inside(PROMPT)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"enable_thinkin": False}, "no variable 'enable_thinkin' to set; did you mean 'enable_thinking'?"),
        ({"add_generation_prompt": False}, "no variable 'add_generation_prompt' to set"),
    ],
)
def test_a_variable_that_would_change_nothing_is_refused(tmp_path, given, words):
    chat_tokenizer(tmp_path, published("qwen3"))
    with pytest.raises(ConfigError, match=words):
        ChatTokenizer(tmp_path, template_kwargs=given)
