"""The check that Self-Lengthen puts every text through, its only gate of quality (arXiv 2410.23933, released code).

Added to its three rules: a text that ran into its limit is refused by the engine's own word, and English and Chinese
endings hold for both languages.
"""

from __future__ import annotations

import re

from lengthwise.degeneration import Language, ends_cleanly, has_repeated_ngram

_META = re.compile(r"revised|revision|response|version|paragraph")
"""Words of talk about the text; as in the original they are looked for in lower case."""
_FIRST_LINES, _LAST_LINES = 2, 3


def response_fault(text: str, language: Language, finish_reason: str = "stop") -> str | None:
    """Return what is wrong with a text, in a word; None where nothing is.

    Example:
        >>> [response_fault(text, "en") for text in ("The end.", "The", "A revised text.")]
        [None, 'ending', 'meta']
    """
    if finish_reason != "stop":
        return "cut"
    text = text.rstrip()
    if not text:
        return "empty"
    if not ends_cleanly(text):
        return "ending"
    lines = text.splitlines()
    if language == "en" and any(
        _META.search(line) for line in [*lines[:_FIRST_LINES], *lines[-_LAST_LINES:]]
    ):
        return "meta"
    return "repetition" if has_repeated_ngram(text, language) else None
