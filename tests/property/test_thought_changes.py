"""Perturbations of thoughts: the properties that make a variant comparable to its original."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from data_builders.perturb import Config, perturbed
from data_builders.thought_changes import (
    change_digits,
    delete_steps,
    drop_reflections,
    insert_steps,
    shuffle_steps,
)
from data_builders.thoughts import Thought, steps

STEPS = st.lists(st.integers(0, 999).map(lambda n: f"step {n}"), max_size=12, unique=True)
SHARE = st.sampled_from([0.0, 0.2, 0.33, 0.5, 0.67, 1.0])
SEED = st.integers(0, 99)
TEXT = st.text(alphabet="ab 12.,\n!?", max_size=80)
WORDS = st.lists(st.sampled_from(["It is 5.", "Wait, no.", "But 4?", "So be it.", "Hmm."]), max_size=9)


def changed(before: list[str], after: list[str]) -> int:
    return sum(a != b for a, b in zip(before, after, strict=True))


@given(STEPS, SHARE, SEED)
def test_delete_leaves_the_rest_in_order(given_steps, share, seed):
    left = delete_steps(given_steps, share, random.Random(seed))
    assert len(left) == len(given_steps) - round(share * len(given_steps))
    assert left == [step for step in given_steps if step in left]


@given(STEPS, SHARE, SEED)
def test_insert_puts_steps_of_others_in_as_many_places(given_steps, share, seed):
    found = insert_steps(given_steps, share, ["other a", "other b"], random.Random(seed))
    assert len(found) == len(given_steps)
    assert changed(given_steps, found) == round(share * len(given_steps))
    assert {b for a, b in zip(given_steps, found, strict=True) if a != b} <= {"other a", "other b"}


@given(STEPS, SHARE, SEED)
def test_shuffle_moves_at_most_its_share_and_never_nothing(given_steps, share, seed):
    found = shuffle_steps(given_steps, share, random.Random(seed))
    number = round(share * len(given_steps))
    assert sorted(found) == sorted(given_steps) and changed(given_steps, found) <= number
    assert (changed(given_steps, found) > 0) == (number > 1)


@given(TEXT, SHARE, SEED, st.sampled_from(["digit", "number"]))
def test_digits_leave_everything_else(text, share, seed, unit):
    found, number = change_digits(text, share, random.Random(seed), unit)
    assert (number > 0) == (found != text)
    if unit == "digit":
        assert re.sub(r"\d", "#", found) == re.sub(r"\d", "#", text)
    else:
        pattern = r"\b\d+(?:\.\d+)?\b"
        assert re.sub(pattern, "#", found) == re.sub(pattern, "#", text)
    assert share > 0 or found == text


@given(WORDS, SHARE, SEED)
def test_reflections_go_and_nothing_else_does(sentences, share, seed):
    text = " ".join(sentences)
    found, gone = drop_reflections(text, share, random.Random(seed))
    plain = [s for s in sentences if s in ("It is 5.", "So be it.")]
    assert re.findall(r"It is 5\.|So be it\.", found) == plain
    left = len(re.findall(r"Wait, no\.|But 4\?|Hmm\.", found))
    reflections = len(sentences) - len(plain)
    assert left == reflections - gone == reflections - round(share * reflections)


@given(
    st.lists(st.sampled_from(["2 + 2 is 4.", "Wait, 5?", "Hmm, 12.", "So 3."]), min_size=1, max_size=8),
    st.sampled_from(["delete", "insert", "shuffle", "digits", "reflections"]),
    SHARE,
    SEED,
)
def test_the_solution_stays_and_nothing_happens_at_share_0(paragraphs, operation, share, seed):
    thought = Thought("\n\n".join(paragraphs), "The answer is 42.")
    config = Config(operation=operation, share=share)
    found, changed = perturbed(thought, config, ["other"], random.Random(seed))
    assert found.solution == thought.solution and (changed > 0) == (found != thought)
    assert (found, changed) == perturbed(thought, config, ["other"], random.Random(seed))
    if share == 0:
        assert found == thought


@given(st.lists(st.sampled_from(["a", "Wait, b", "but c", "d"]), min_size=1, max_size=9))
def test_steps_hold_every_paragraph_in_order(paragraphs):
    text = "\n\n".join(paragraphs)
    assert "\n\n".join(steps(text)) == text
    assert len(steps(text)) == 1 + sum(p.startswith(("Wait", "but")) for p in paragraphs[1:])
