"""Thought and solution in a teacher's answer: told apart where they are marked, refused where they are not."""

from __future__ import annotations

import pytest

from data_builders.thoughts import NoThought, Thought, read_thought, steps

SKY = "<|begin_of_thought|>\n\n{}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>"


@pytest.mark.parametrize("marks", ["think", "sky_t1"])
def test_what_is_marked_is_read_again(marks):
    thought = Thought("One.\n\nWait, two.", "Two.")
    assert read_thought(thought.marked(marks)) == thought


@pytest.mark.parametrize(
    ("text", "reasoning", "thinking"),
    [
        ("<think>a</think>b", None, "a"),
        ("a</think>b", None, "a"),
        ("b", "a", "a"),
        (SKY.format("a", "b"), None, "a"),
        (SKY.format("a", "b") + "\nbye", None, "a"),
    ],
)
def test_the_forms_of_marks(text, reasoning, thinking):
    assert read_thought(text, reasoning) == Thought(thinking, "b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("four", "not marked"),
        ("", "not marked"),
        ("<think>four", "never ends"),
        ("<think></think>four", "an empty part"),
        ("<think>a</think>", "an empty part"),
        ("<think>a</think>b</think>c", "marks missing or repeated"),
        (SKY.format("a <think>", "b"), "marks missing or repeated"),
        ("Sure! <think>a</think>b", "marks out of order"),
        (SKY.format("a", "b").replace("<|end_of_solution|>", ""), "marks missing or repeated"),
        ("Hello " + SKY.format("a", "b"), "marks out of order"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(text, reason):
    with pytest.raises(NoThought, match=reason):
        read_thought(text)


def test_a_mark_in_a_part_that_the_engine_parted_is_refused():
    with pytest.raises(NoThought, match="repeated"):
        read_thought("so </think> it is 4", "I think")


def test_steps_begin_where_a_mind_changes():
    text = "2 + 2 = 5\n\nso 5\n\nWait, that is 4.\n \n**Alternatively**, count.\n\nButter is no keyword."
    assert steps(text) == [
        "2 + 2 = 5\n\nso 5", "Wait, that is 4.", "**Alternatively**, count.\n\nButter is no keyword.",
    ]  # fmt: skip
    assert steps("") == []
