"""How many sentences a text has, by a rule of our own that needs no model of a language."""

from __future__ import annotations

import re

# Possessive, and only from the start of a run: a reply of nothing but stops must not take minutes.
_ENDING = re.compile(r"""(?<![.!?…])[.!?…]++[")'\]\u2019\u201d*_]*+(?=\s|$)|[。！？]++[」』\u201d）]*+""")
_ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|st|rev|gen|sen|rep|gov|capt|lt|sgt|vs|e\.g|i\.e|cf|fig|vol|pp|ca|approx|dept"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec",
    re.IGNORECASE,
)
"""What a full stop follows within a sentence."""
_CLOSING_ABBREVIATION = re.compile(r"etc|al|sr|jr|inc|ltd|co|corp|[ap]\.m|u\.[sk]", re.IGNORECASE)
"""What it follows within a sentence and at its end; before a capital letter it is the end."""
_WORD_BEFORE = re.compile(r"([^\W_](?:[\w.]*[^\W_])?)$")
_NEXT = re.compile(r"\S")
_LIST_NUMBER = re.compile(r"\n\s*\d{1,3}$")


def count_sentences(text: str) -> int:
    """Return the number of sentences.

    A sentence ends at . ! ? … before white space or the end (quotes, brackets and Markdown marks may close it), or at
    。！？ anywhere. A single full stop ends none after a common abbreviation, after the initial of a name
    ("J. Bach"), after the number of a list item at a line's start, or before a small letter. What follows the last
    end counts, if it has a letter or digit; a line break alone ends nothing.

    Example:
        >>> count_sentences('Dr. J. Bach wrote it. "Really?" he asked. 真的！好。')
        5
    """
    number, start = 0, 0
    for found in _ENDING.finditer(text):
        if found[0].startswith(".") and not _is_end(text, found.start(), found.end()):
            continue
        number += any(c.isalnum() for c in text[start : found.end()])
        start = found.end()
    return number + any(c.isalnum() for c in text[start:])


def _is_end(text: str, stop: int, after: int) -> bool:
    """Tell whether the full stop at `stop` ends a sentence; the text goes on at `after`."""
    found = _NEXT.search(text, after)
    following = found[0] if found else ""
    if not following:
        return True
    if following.islower():
        return False
    if text[stop : stop + 2] == "..":
        return True
    head = text[stop - 20 : stop] if stop > 20 else f"\n{text[:stop]}"
    if _LIST_NUMBER.search(head):
        return False
    before = _WORD_BEFORE.search(head)
    word = before[1] if before else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return False
    if _CLOSING_ABBREVIATION.fullmatch(word):
        return following.isupper()
    return not _ABBREVIATION.fullmatch(word)
