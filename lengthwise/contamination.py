"""How much of a benchmark was trained on: prompts that stand in training rows, whole or in long runs of words.

The prompts are the index and the training text streams past it, so the memory grows with the benchmark, not
with the training data. Words are compared without case, punctuation and white space; a Chinese character is a
word. Nothing here reads files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

NGRAM_WORDS = 13
"""Words in a row that count as copied, as in GPT-3's and later analyses (2005.14165, appendix C, at most 13)."""
OVERLAP_FRAC = 0.5
"""Share of a prompt's n-grams from which it counts as seen: a sentence that many tasks use to say how to answer
is less than half of a prompt, and no single collision condemns one."""

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\W_\u3400-\u9fff\u3040-\u30ff]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are compared.

    Example:
        >>> words_of("Don't SHOUT! 写 一首诗")
        ['don', 't', 'shout', '写', '一', '首', '诗']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text of a row, whatever its shape; an Alpaca row's instruction also with its input behind it.

    Example:
        >>> list(texts_of({"messages": [{"role": "user", "content": "Hi"}], "n": 3}))
        ['user', 'Hi']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if isinstance(value.get("instruction"), str) and isinstance(value.get("input"), str):
            yield f"{value['instruction']}\n\n{value['input']}"
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


def _ngrams(words: list[str], n: int) -> set[int]:
    """Return the hash of each n-gram: 64 bits, so that two different ones are practically never equal."""
    return set(map(hash, zip(*(islice(words, i, None) for i in range(n)), strict=False)))


@dataclass(kw_only=True)
class OverlapIndex:
    """Prompts to look for in training text.

    Example:
        >>> index = OverlapIndex()
        >>> index.add_prompt("p1", ["Name the tallest mountain."])
        >>> index.see_row({"messages": [{"role": "user", "content": "name the TALLEST mountain"}]})
        >>> index.verbatim
        {'p1'}
    """

    n: int = NGRAM_WORDS
    min_frac: float = OVERLAP_FRAC
    verbatim: set[Any] = field(default_factory=set)
    """Prompts that are the whole of some text of a row."""
    _whole: dict[int, list[Hashable]] = field(default_factory=dict)
    _prompts: dict[Hashable, list[int]] = field(default_factory=dict)
    _wanted: dict[int, list[Hashable]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def add_prompt(self, key: Hashable, variants: Iterable[str]) -> None:
        """Take in a prompt before any row is seen.

        Args:
            key: what it is called in the sets of results.
            variants: its texts, such as the source's own and the one that is asked. Any of them is found
                verbatim; n-grams are those of the first, which has no wording of the task's around it.
        """
        for number, text in enumerate(variants):
            words = words_of(text)
            if not words:
                continue
            self._whole.setdefault(hash(tuple(words)), []).append(key)
            if number == 0:
                self._prompts[key] = list(_ngrams(words, self.n))
                for gram in self._prompts[key]:
                    self._wanted.setdefault(gram, []).append(key)

    def see_row(self, row: Any) -> None:
        """Look for the prompts in all texts of one training row."""
        for text in texts_of(row):
            words = words_of(text)
            self.verbatim.update(self._whole.get(hash(tuple(words)), ()))
            self._seen.update(self._wanted.keys() & _ngrams(words, self.n))

    def prompts_in(self, row: Any) -> set[Hashable]:
        """Return the prompts that stand in one row: verbatim as a text of it, or with `min_frac` of their n-grams.

        What `see_row` noted does not matter, and nothing is noted.

        Example:
            >>> index = OverlapIndex(n=3)
            >>> index.add_prompt("p1", ["Name the tallest mountain."])
            >>> index.prompts_in({"prompt": "Please name the tallest mountain of Wales"})
            {'p1'}
        """
        found: set[Hashable] = set()
        seen: set[int] = set()
        for text in texts_of(row):
            words = words_of(text)
            found.update(self._whole.get(hash(tuple(words)), ()))
            seen |= self._wanted.keys() & _ngrams(words, self.n)
        near = {key for gram in seen for key in self._wanted[gram]} - found
        return found | {key for key in near if self._is_copied(key, seen)}

    @property
    def copied(self) -> set[Any]:
        """Prompts of which at least `min_frac` of the n-grams were seen; one of under n words has none."""
        return {key for key in self._prompts if self._is_copied(key, self._seen)}

    def _is_copied(self, key: Hashable, seen: set[int]) -> bool:
        grams = self._prompts[key]
        return bool(grams) and sum(gram in seen for gram in grams) >= self.min_frac * len(grams)
