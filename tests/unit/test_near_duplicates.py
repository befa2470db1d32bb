"""Near duplicates: found from their likeness on, never below it, whatever the size of the index."""

from __future__ import annotations

import random

import pytest

from lengthwise.near_duplicates import NearDuplicates, jaccard, shingles


def text(stream: random.Random, number: int = 200) -> list[str]:
    return [f"w{stream.randrange(20_000)}" for _ in range(number)]


def changed(stream: random.Random, words: list[str], number: int) -> list[str]:
    found = list(words)
    for place in stream.sample(range(len(words)), number):
        found[place] = f"new{stream.randrange(20_000)}"
    return found


def test_likeness_is_jaccards_of_runs_of_words():
    a, b = shingles("a b c d", 2), shingles("a b c x", 2)
    assert (a.size, b.size) == (3, 3) and jaccard(a, b) == 2 / 4
    assert jaccard(shingles("", 2), shingles("!", 2)) == 1 and jaccard(shingles("", 2), a) == 0
    assert shingles("a b", 5).size == 1 and jaccard(shingles("a b", 5), shingles("b a", 5)) == 0
    assert jaccard(shingles("我喜欢写作", 2), shingles("我喜欢画画", 2)) == pytest.approx(2 / 6)


def test_what_is_alike_is_found_and_what_is_less_alike_is_not():
    stream = random.Random(0)
    index = NearDuplicates(threshold=0.8)
    texts = [text(stream) for _ in range(300)]
    assert all(index.find_or_add(i, " ".join(words)) is None for i, words in enumerate(texts))
    found = missed = 0
    for i, words in enumerate(texts):
        near = " ".join(changed(stream, words, stream.randint(1, 8)))
        likeness = jaccard(shingles(" ".join(words), 5), shingles(near, 5))
        match = index.find_or_add(("near", i), near)
        if likeness >= 0.8:
            found += match is not None
            missed += match is None
        else:
            assert match is None or match[1] >= 0.8
        assert match is None or match == (i, pytest.approx(likeness)) or match[0] != i
    assert found > 100 and missed <= 0.02 * found


def test_texts_of_different_kinds_are_never_alike():
    index = NearDuplicates()
    assert index.find_or_add("a", "the same words", kind="1") is None
    assert index.find_or_add("b", "the same words", kind="2") is None
    assert index.find_or_add("c", "The same words!", kind="1") == ("a", 1.0)


def test_empty_texts_are_alike():
    index = NearDuplicates()
    assert index.find_or_add("a", "") is None and index.find_or_add("b", "?!") == ("a", 1.0)


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"n": 0}])
def test_what_is_no_likeness_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NearDuplicates(**options)
