from __future__ import annotations

import pytest

from lengthwise.contamination import OverlapIndex, texts_of, words_of

QUESTION = (
    "A farmer has seventeen sheep and buys nine more at the market in the next town on a Tuesday. How many?"
)


def seen(prompts: dict[str, list[str]], *rows: object) -> OverlapIndex:
    index = OverlapIndex()
    for key, texts in prompts.items():
        index.add_prompt(key, texts)
    for row in rows:
        index.see_row(row)
    return index


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "26"}]},
        {"conversations": [{"from": "human", "value": QUESTION.upper()}, {"from": "gpt", "value": "26"}]},
        {"prompt": QUESTION.replace(" ", "\n"), "completion": "26"},
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}], "completion": "26"},
        {"instruction": QUESTION.split(". ")[0], "input": QUESTION.split(". ")[1], "output": "26"},
    ],
    ids=["messages", "sharegpt", "prompt_completion", "parts", "alpaca"],
)
def test_a_prompt_is_found_word_for_word_in_rows_of_any_shape(row):
    assert seen({"q": [QUESTION]}, row).verbatim == {"q"}


def test_the_wording_that_is_asked_is_found_as_well_as_the_source():
    index = seen(
        {"q": ["Name a river.", "Name a river. Use about 50 words."]},
        {"text": "name a river use about 50 words"},
    )
    assert index.verbatim == {"q"} and index.copied == set()


def test_a_part_of_a_row_is_copied_but_not_word_for_word():
    row = {"messages": [{"role": "user", "content": f"Here is a riddle: {QUESTION} Think first."}]}
    index = seen({"q": [QUESTION], "other": ["Write twenty words about why the sea is salt and blue and deep, "
                                             "and how ships cross it."]}, row)  # fmt: skip
    assert (index.verbatim, index.copied) == (set(), {"q"})


def test_half_of_the_runs_of_words_make_a_copy():
    words = [f"w{i}" for i in range(20)]  # 8 runs of 13
    prompt = {"q": [" ".join(words)]}
    assert seen(prompt, " ".join(words[:16])).copied == {"q"}  # 4 of 8
    assert seen(prompt, " ".join(words[:15])).copied == set()  # 3 of 8
    assert seen(prompt, " ".join(words[:14]), " ".join(words[6:])).copied == {"q"}  # 2 and 2, of two rows


def test_a_short_prompt_has_no_runs_of_words():
    index = seen({"q": ["Name a river."]}, {"text": "Please name a river. Any river."})
    assert (index.verbatim, index.copied) == (set(), set())


def test_chinese_is_compared_by_characters():
    text = "请写一篇关于春天的散文，要求描写细致。"
    assert len(words_of(text)) == 17
    assert seen({"q": [text]}, {"text": f"题目：{text}谢谢"}).copied == {"q"}


def test_an_empty_prompt_matches_nothing():
    assert seen({"q": ["", "..."]}, {"text": "", "more": "!"}).verbatim == set()


def test_numbers_and_nulls_are_no_text():
    assert list(texts_of({"a": 1, "b": None, "c": ["x", {"d": "y"}]})) == ["x", "y"]
