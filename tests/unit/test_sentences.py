"""The rule for sentences."""

from __future__ import annotations

import pytest

from lengthwise.sentences import count_sentences


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("  \n", 0),
        ("...", 0),
        ("No end", 1),
        ("One. Two.", 2),
        ("One. And a rest", 2),
        ("One!? Two!!! Three…", 3),
        ('"Stop." She did. (He did not.) End.', 4),
        ("**Bold.** Plain.", 2),
        ("Dr. Smith met J. S. Bach, e.g. Once.", 1),
        ("Tea, milk etc. He drank it.", 2),
        ("Tea, milk etc. were there.", 1),
        ("Pi is 3.14. See v1.2.", 2),
        ("Wait... what? Well... Yes.", 3),
        ("1. Boil water.\n2. Add tea.", 2),
        ("So am I. You too.", 2),
        ("A heading\nand a line without a stop", 1),
        ("你好。真的吗？好！", 3),
        ("他说：“好。”她走了。", 2),
    ],
)
def test_count(text: str, number: int) -> None:
    assert count_sentences(text) == number
