"""Preference rows of every shape, and why some cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from lengthwise.rows import Place, Row
from posttrain.pair_formats import PairRow, read_pair

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello!"}
BAD = {"role": "assistant", "content": "What?"}
SYSTEM = {"role": "system", "content": "Be kind."}
EARLIER = [{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Blue."}]


def read(row: dict[str, Any]) -> PairRow:
    return read_pair(Row(Place("s", 3), row))


def turns(pair: PairRow) -> list[list[tuple[str, str]]]:
    return [[(m.role, m.content) for m in part] for part in (pair.prompt, pair.chosen, pair.rejected)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
        {"prompt": None, "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"messages": [USER], "chosen": GOOD, "rejected": "What?"},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello!"},
            "rejected": {"from": "gpt", "value": "What?"},
        },
        {
            "chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}],
            "rejected": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "What?"}],
        },
        {"instruction": "Hi", "input": "", "chosen": "Hello!", "rejected": "What?"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "chosen": GOOD,
            "rejected": BAD,
        },
    ],
)
def test_reads_every_shape(row):
    pair = read(row)
    assert turns(pair) == [[("user", "Hi")], [("assistant", "Hello!")], [("assistant", "What?")]]
    assert (pair.source, pair.line, pair.chosen_score, pair.rejected_score) == ("s", 3, None, None)


def test_earlier_turns_and_system_are_the_prompt():
    whole = {"chosen": [SYSTEM, *EARLIER, USER, GOOD], "rejected": [SYSTEM, *EARLIER, USER, BAD]}
    apart = {"prompt": [*EARLIER, USER], "system": "Be kind.", "chosen": GOOD, "rejected": BAD}
    both = {**apart, "chosen": whole["chosen"], "rejected": [*EARLIER, USER, BAD]}
    for row in (whole, apart, both):
        prompt, chosen, rejected = turns(read(row))
        assert prompt == [("system", "Be kind."), ("user", "Red?"), ("assistant", "Blue."), ("user", "Hi")]
        assert (chosen, rejected) == ([("assistant", "Hello!")], [("assistant", "What?")])


def test_answers_may_have_much_in_common():
    pair = read({"prompt": "Hi", "chosen": "<think>Hm.</think>Hello!", "rejected": "<think>Hm.</think>Hello"})
    assert pair.chosen[0].content == "<think>Hm.</think>Hello!"


def test_without_a_prompt_the_last_turn_is_the_answer_even_if_a_longer_start_is_shared():
    repeated = [USER, GOOD, USER, GOOD]
    assert len(read({"chosen": repeated, "rejected": [*repeated[:3], BAD]}).prompt) == 3


@pytest.mark.parametrize(
    "keys",
    [
        ("chosen_score", "rejected_score"),
        ("score_chosen", "score_rejected"),
        ("chosen_rating", "rejected_rating"),
        ("chosen-rating", "rejected-rating"),
    ],
)
def test_scores(keys):
    row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    pair = read({**row, keys[0]: 8, keys[1]: 2.5})
    assert (pair.chosen_score, pair.rejected_score) == (8.0, 2.5)
    pair = read({**row, keys[0]: 8, keys[1]: float("nan")})
    assert (pair.chosen_score, pair.rejected_score) == (8.0, None)
    with pytest.raises(ValueError, match="is '8', expected a number"):
        read({**row, keys[0]: "8"})


def test_a_pair_without_id_gets_one_from_its_content():
    row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    assert read(row).id == read({"prompt": [USER], "chosen": GOOD, "rejected": BAD}).id != ""
    assert read({**row, "chosen": "What?", "rejected": "Hello!"}).id != read(row).id
    assert read({**row, "id": 7}).id == "7"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "Yo", "rejected": "Yo"}, "chosen and rejected are equal"),
        ({"prompt": "Hi", "chosen": [USER, GOOD], "rejected": "Hello!"}, "chosen and rejected are equal"),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "chosen and rejected are equal"),
        ({"prompt": "Hi", "chosen": "Yo", "rejectd": "No"}, "no rejected answer; did you mean 'rejectd'"),
        ({"prompt": "Hi", "choosen": "Yo", "rejected": "No"}, "no chosen answer; did you mean 'choosen'"),
        ({"prompt": "Hi", "chosen": None, "rejected": "No"}, "no chosen answer; its keys are prompt, chosen"),
        ({"promt": "Hi", "chosen": "Yo", "rejected": "No"}, "no prompt; did you mean 'promt'"),
        (
            {"chosen": "Yo", "rejected": "No"},
            "no prompt; its keys are chosen, rejected .it needs one of prompt",
        ),
        ({"chosen": [USER, GOOD], "rejected": "No"}, "it has no prompt"),
        ({"chosen": [EARLIER[0], GOOD], "rejected": [USER, BAD]}, "no common prompt: .* 'Red.' and 'Hi'"),
        ({"prompt": "Hi", "chosen": [USER], "rejected": BAD}, "chosen is the prompt without an answer"),
        ({"prompt": "Yo", "chosen": [USER], "rejected": BAD}, "chosen is no assistant turn but .* 'user'"),
        ({"prompt": "Ha", "chosen": [USER, GOOD], "rejected": BAD}, "chosen has 2 turns .user, assistant."),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD, USER, GOOD]}, "rejected has 3 turns"),
        (
            {"chosen": [USER, GOOD, USER], "rejected": [USER, GOOD, EARLIER[0]]},
            "its prompt ends with an assist",
        ),
        ({"prompt": "Hi", "chosen": "Yo", "rejected": " \n"}, "rejected is empty"),
        ({"prompt": " ", "chosen": "Yo", "rejected": "No"}, "prompt is empty"),
        ({"prompt": [], "chosen": "Yo", "rejected": "No"}, "prompt: its list of messages is empty"),
        ({"prompt": "Hi", "chosen": [], "rejected": "No"}, r"chosen is \[\], expected a text"),
        ({"prompt": "Hi", "chosen": 3, "rejected": "No"}, "chosen is 3, expected a text"),
        ({"prompt": "Hi", "chosen": ["Yo"], "rejected": "No"}, "chosen: message 0 is not an object"),
        (
            {"prompt": "Hi", "chosen": GOOD, "rejected": {**BAD, "role": "tool"}},
            "rejected: .* the role 'tool'",
        ),
        ({"prompt": "Hi", "chosen": {**GOOD, "thinking": "Hm."}, "rejected": BAD}, "chosen: .* has thinking"),
        (
            {"prompt": [USER, GOOD], "chosen": "Yo", "rejected": "No"},
            "its prompt ends with an assistant turn",
        ),
        (
            {"prompt": [USER, {**GOOD, "content": ""}, USER], "chosen": "Yo", "rejected": "No"},
            "message 1, an ass",
        ),
        ({"prompt": "Hi", "chosen": "Yo", "rejected": "No", "tools": [{"name": "f"}]}, "tools"),
        ({"prompt": [SYSTEM, USER], "system": "B", "chosen": "Yo", "rejected": "No"}, "two system texts"),
    ],
)
def test_says_why_a_row_cannot_be_read(row, reason):
    with pytest.raises(ValueError, match=reason):
        read(row)
