"""Texts that are nearly the same: MinHash to find them, the words themselves to be sure.

Two texts are compared as sets of shingles, n words in a row; their likeness is Jaccard's, the share of all shingles
that both have. Words are compared as in `contamination`: without case, punctuation and white space, a Chinese
character being one. MinHash (datasketch) names candidates; each is then compared exactly, so that no two texts that are
less alike than asked are taken for the same, and few that are more alike are missed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

from lengthwise.contamination import words_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Shingles = NDArray[numpy.uint32]

BANDS, ROWS = 16, 4
"""Texts of likeness s become candidates with probability 1 - (1 - s^4)^16: 0.9998 at 0.8, 0.987 at 0.7, 0.64 at 0.5."""


def shingles(text: str, n: int, kind: str = "") -> Shingles:
    """Return the digests of all runs of n words of a text, sorted, shape [m]; a shorter text is one run.

    Texts of different kinds share none.

    Example:
        >>> len(shingles("To be, or not to be", 2)), bool(all(shingles("Yes!", 2) == shingles("yes", 2)))
        (4, True)
    """
    import numpy

    words = words_of(text)
    runs = zip(*(islice(words, i, None) for i in range(min(n, len(words)) or 1)), strict=False)
    digests = [crc32("\x1f".join((kind, *run)).encode()) for run in runs]
    return numpy.unique(numpy.array(digests, dtype=numpy.uint32))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Return the likeness of two sets, from 0 to 1; of two empty ones 1.

    Example:
        >>> jaccard(shingles("a b c", 1), shingles("b c d", 1))
        0.5
    """
    import numpy

    shared = numpy.intersect1d(a, b, assume_unique=True).size
    return shared / (a.size + b.size - shared) if shared else float(a.size == b.size == 0)


@dataclass(kw_only=True)
class NearDuplicates:
    """An index of texts to which a new one may be nearly the same.

    Memory: 4 bytes for each word of the texts in it, and about 6 KB for each text.

    Example:
        >>> index = NearDuplicates(threshold=0.6, n=1)
        >>> index.find_or_add("a", "the cat sat on a mat")
        >>> index.find_or_add("b", "The cat sat on the mat.")
        ('a', 0.8333333333333334)
    """

    threshold: float = 0.8
    """Likeness from which two texts are the same."""
    n: int = 5
    """Words of a shingle."""
    _sets: dict[Hashable, Shingles] = field(default_factory=dict)
    _index: Any = field(init=False)
    _empty: Any = field(init=False)

    def __post_init__(self) -> None:
        """Refuse a likeness, or a number of words, that is none.

        Raises:
            ValueError: naming the field.
        """
        from datasketch import MinHash, MinHashLSH

        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: it must be above 0 and at most 1")
        if self.n < 1:
            raise ValueError(f"n is {self.n}: a shingle has at least one word")
        self._index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._empty = MinHash(num_perm=BANDS * ROWS, hashfunc=int)

    def find_or_add(self, key: Hashable, text: str, kind: str = "") -> tuple[Hashable, float] | None:
        """Return the key of the text in the index that is most alike, and how alike.

        Where none is alike enough, return None and take the text in, by a key of its own. Texts of different kinds are
        never alike.
        """
        own = shingles(text, self.n, kind)
        min_hash = self._empty.copy()
        min_hash.update_batch(own.tolist())
        alike = [(jaccard(own, self._sets[other]), other) for other in self._index.query(min_hash)]
        likeness, found = max(alike, key=lambda pair: pair[0], default=(0.0, None))
        if likeness >= self.threshold:
            return found, likeness
        self._sets[key] = own
        self._index.insert(key, min_hash)
        return None
