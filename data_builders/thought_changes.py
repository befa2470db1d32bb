"""What can be done to a chain of thought to see what a model learns from it (arXiv 2502.07374, sections 4 and 5).

Pure functions of steps, or of a text, with a random stream of their own: the same stream gives the same change. The
structural ones (delete, insert, shuffle) leave the solution alone; of n steps they change round(share * n).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal

from data_builders.thoughts import opens_with_keyword

DigitUnit = Literal["digit", "number"]

_DIGIT = re.compile(r"[0-9]")
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?]+(?=\s|$)|[。！？]+|\n|$)\s*")


def delete_steps(steps: Sequence[str], share: float, stream: random.Random) -> list[str]:
    """Remove a share of the steps.

    Example:
        >>> delete_steps(["a", "b", "c"], 1, random.Random(0))
        []
    """
    gone = _chosen(len(steps), share, stream)
    return [step for i, step in enumerate(steps) if i not in gone]


def insert_steps(
    steps: Sequence[str], share: float, others: Sequence[str], stream: random.Random
) -> list[str]:
    """Put steps of other problems in the place of a share of the steps.

    Args:
        steps: of one problem.
        share: of them.
        others: steps of other problems only.
        stream: what is drawn from.

    Raises:
        ValueError: there are no others to take from.

    Example:
        >>> insert_steps(["a", "b"], 1, ["x"], random.Random(0))
        ['x', 'x']
    """
    places = _chosen(len(steps), share, stream)
    if places and not others:
        raise ValueError("there is no step of another problem to insert")
    return [stream.choice(others) if i in places else step for i, step in enumerate(steps)]


def shuffle_steps(steps: Sequence[str], share: float, stream: random.Random) -> list[str]:
    """Let a share of the steps change places with each other, so that where two or more are chosen some do move.

    Example:
        >>> shuffle_steps(["a", "b"], 1, random.Random(0))
        ['b', 'a']
    """
    places = sorted(_chosen(len(steps), share, stream))
    order = list(places)
    while len(places) > 1 and order == places:
        stream.shuffle(order)
    found = list(steps)
    for place, source in zip(places, order, strict=True):
        found[place] = steps[source]
    return found


def change_digits(
    text: str, share: float, stream: random.Random, unit: DigitUnit = "digit"
) -> tuple[str, int]:
    """Put random digits in the place of a share of the digits, or of the numbers, of a text.

    The paper changes each digit for one of 0 to 9; its released code each number for one of 0 to 10, drawn with that
    share as the probability. Here both draw with a probability, and a new one may equal the old.

    Returns:
        The text, and how many of its digits, or numbers, are others now.

    Example:
        >>> change_digits("12 and 3.5", 0, random.Random(0))
        ('12 and 3.5', 0)
    """
    pattern, most = (_DIGIT, 9) if unit == "digit" else (_NUMBER, 10)
    changed = 0

    def drawn(match: re.Match[str]) -> str:
        nonlocal changed
        new = str(stream.randint(0, most)) if stream.random() < share else match[0]
        changed += new != match[0]
        return new

    return pattern.sub(drawn, text), changed


def drop_reflections(text: str, share: float, stream: random.Random) -> tuple[str, int]:
    """Remove a share of the sentences that open with a keyword of reflection.

    Returns:
        The text, and how many sentences are gone.

    Example:
        >>> drop_reflections("It is 5. Wait, 3.5 is wrong. It is 4.", 1, random.Random(0))
        ('It is 5. It is 4.', 1)
    """
    sentences = _SENTENCE.findall(text)
    at = [i for i, sentence in enumerate(sentences) if opens_with_keyword(sentence)]
    gone = {at[i] for i in _chosen(len(at), share, stream)}
    return "".join(sentence for i, sentence in enumerate(sentences) if i not in gone), len(gone)


def _chosen(number: int, share: float, stream: random.Random) -> set[int]:
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: it must lie between 0 and 1")
    return set(stream.sample(range(number), round(share * number)))
