"""How a long text goes on: repetition, variety and cohesion of its parts, from the first to the last.

Pure functions of the text; no model is asked. A text is cut into parts of equally many units, which are whitespace
words, in Chinese characters, so that a part of one text compares with the next. The curves say where a text starts to
loop or to drift, which one number over the whole hides (LongGenBench, arXiv 2410.04199, gives accuracy by position
for the same reason).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

from lengthwise.degeneration import CHINESE_UNIT, NGRAM_CHINESE, NGRAM_WORDS, language, text_units

NUM_PARTS = 5
LEAST_PART_WORDS = 100
"""Fewer words in a part say nothing of it; it is also the window of `distinct_frac`."""

_WORD = re.compile(r"\S+")
_ENDS = re.compile(r"^\W+|\W+$")


def text_parts(text: str, num_parts: int = NUM_PARTS) -> list[str]:
    """Return the text in parts of equally many units, up to one; joined they are the text.

    Raises:
        ValueError: `num_parts` is below 1.

    Example:
        >>> text_parts("one two three four", 2)
        ['one two ', 'three four']
    """
    if num_parts < 1:
        raise ValueError(f"num_parts must be at least 1, not {num_parts}")
    unit = CHINESE_UNIT if language(text) == "zh" else _WORD
    starts = [match.start() for match in unit.finditer(text)]
    cuts = [index * len(starts) // num_parts for index in range(1, num_parts)]
    places = [0, *(starts[cut] if 0 < cut < len(starts) else 0 for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


def position_metrics(text: str, num_parts: int = NUM_PARTS) -> dict[str, float]:
    """Return `repetition_p` and `distinct_p` of each part p from 1, `cohesion_p` from 2; nothing of a short text.

    Short is a text of which a part has fewer than `LEAST_PART_WORDS` words. n-grams are those of
    `repeated_ngram_frac`, 10 words or 13 Chinese characters.

    Example:
        A text that says the same 100 words five times repeats itself from the second part on:

        >>> found = position_metrics(" ".join(f"w{i % 100}" for i in range(500)))
        >>> found["repetition_1"], found["repetition_3"], found["distinct_5"], round(found["cohesion_2"], 3)
        (0.0, 1.0, 1.0, 1.0)
        >>> position_metrics("A short text.")
        {}
    """
    chinese = language(text) == "zh"
    units = [text_units(part, chinese) for part in text_parts(text, num_parts)]
    words = [words_of(part) for part in units]
    if min(map(len, words)) < LEAST_PART_WORDS:
        return {}
    repetition = repetition_by_part(units, NGRAM_CHINESE if chinese else NGRAM_WORDS)
    found = {f"repetition_{part}": value for part, value in enumerate(repetition, start=1)}
    found |= {f"distinct_{part}": distinct_frac(own) for part, own in enumerate(words, start=1)}
    pairs = itertools.pairwise(words)
    return found | {f"cohesion_{part}": cohesion(*pair) for part, pair in enumerate(pairs, start=2)}


def repetition_by_part(parts: Sequence[Sequence[Hashable]], n: int) -> list[float]:
    """Return of each part the share of its n-grams that occurred earlier in the whole text, 0..1.

    An n-gram belongs to the part in which it ends; a part in which none ends has 0. Weighted with the numbers of
    n-grams, the shares add up to `repeated_ngram_frac` of the text.

    Raises:
        ValueError: n is below 1.

    Example:
        >>> repetition_by_part([["a", "b"], ["a", "b"], ["a", "b"]], 2)
        [0.0, 0.5, 1.0]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}: it is the number of units in an n-gram")
    seen: set[tuple[Hashable, ...]] = set()
    last: list[Hashable] = []
    shares = []
    for part in parts:
        num_grams = num_repeated = 0
        for unit in part:
            last = [*last[-(n - 1) :], unit] if n > 1 else [unit]
            if len(last) == n:
                gram = tuple(last)
                num_grams += 1
                num_repeated += gram in seen
                seen.add(gram)
        shares.append(num_repeated / num_grams if num_grams else 0.0)
    return shares


def distinct_frac(words: Sequence[str], window: int = LEAST_PART_WORDS) -> float:
    """Return the share of distinct words, averaged over all windows of so many words: it does not hang on length.

    It is the moving-average type-token ratio of Covington and McFall (J. Quant. Linguist. 17 (2010), 94-100). The
    plain share falls with every text that goes on. A text of fewer words is one window.

    Raises:
        ValueError: there is no word, or the window is below 1.

    Example:
        >>> distinct_frac(["a", "b", "b", "b"], window=2)
        0.6666666666666666
    """
    if not words or window < 1:
        raise ValueError(f"{len(words)} words in windows of {window}: give at least one of each")
    size = min(window, len(words))
    inside = Counter(words[:size])
    total = num_windows = 0
    for end in range(size, len(words) + 1):
        total, num_windows = total + len(inside), num_windows + 1
        if end < len(words):
            inside[words[end]] += 1
            inside[words[end - size]] -= 1
            if not inside[words[end - size]]:
                del inside[words[end - size]]
    return total / (num_windows * size)


def cohesion(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the cosine of the word counts of two neighbouring parts, 0..1: lexical cohesion, no more.

    It is the block comparison of TextTiling (Hearst, Comput. Linguist. 23 (1997), 33-64, section 4.1) without its
    list of function words, which would need one for each language: they keep sound prose high. A fall is a break of
    topic or of language, 1 a loop; neither is good by itself, and no text is coherent for its words alone.

    Example:
        >>> cohesion(["a", "b"], ["a", "c"])
        0.5
    """
    ours, theirs = Counter(first), Counter(second)
    shared = sum(num * theirs[word] for word, num in ours.items())
    if not shared:
        return 0.0
    squares = [sum(num * num for num in counts.values()) for counts in (ours, theirs)]
    return min(1.0, shared / math.sqrt(squares[0] * squares[1]))


def words_of(units: Sequence[str]) -> list[str]:
    """Return units as words to compare: in small letters, without the marks around them; marks alone are none.

    Example:
        >>> words_of(["“Rain,”", "said", "-", "O'Neil."])
        ['rain', 'said', "o'neil"]
    """
    return [word for unit in units if (word := _ENDS.sub("", unit).casefold())]
