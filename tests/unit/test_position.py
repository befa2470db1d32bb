"""Repetition, variety and cohesion by position in a text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.degeneration import repeated_ngram_frac
from lengthwise.position import (
    cohesion,
    distinct_frac,
    position_metrics,
    repetition_by_part,
    text_parts,
    words_of,
)

WORDS = st.lists(st.sampled_from("abcd"), max_size=60)


class TestParts:
    @given(st.text(alphabet="ab \n你好。", max_size=80), st.integers(1, 7))
    def test_joined_they_are_the_text(self, text, num_parts):
        parts = text_parts(text, num_parts)
        assert len(parts) == num_parts and "".join(parts) == text

    @given(st.lists(st.sampled_from(["to", "be,", "or"]), min_size=5, max_size=40), st.integers(1, 5))
    def test_they_have_equally_many_words(self, words, num_parts):
        sizes = [len(part.split()) for part in text_parts("  " + " ".join(words), num_parts)]
        assert sum(sizes) == len(words) and max(sizes) - min(sizes) <= 1

    def test_chinese_is_cut_between_characters(self):
        assert text_parts("春夏秋冬雨雪", 3) == ["春夏", "秋冬", "雨雪"]

    def test_no_part_is_refused(self):
        with pytest.raises(ValueError, match="num_parts must be at least 1, not 0"):
            text_parts("a b", 0)


class TestRepetition:
    def test_by_hand(self):
        # Bigrams by the part they end in: ab | ba ab | ba ab; the first ba is new.
        assert repetition_by_part(["ab", "ab", "ab"], 2) == [0.0, 0.5, 1.0]
        assert repetition_by_part(["abc", "xabc"], 3) == [0.0, 0.25]
        assert repetition_by_part(["a", "a", ""], 1) == [0.0, 1.0, 0.0]

    @given(WORDS, st.integers(1, 4), st.integers(1, 4))
    def test_the_parts_add_up_to_the_whole(self, words, num_parts, n):
        cuts = [i * len(words) // num_parts for i in range(num_parts + 1)]
        parts = [words[a:b] for a, b in itertools.pairwise(cuts)]
        # An n-gram ends in a part from its n-th unit of the text on.
        ends = [sum(place >= n - 1 for place in range(a, b)) for a, b in itertools.pairwise(cuts)]
        whole = sum(s * e for s, e in zip(repetition_by_part(parts, n), ends, strict=True))
        assert whole / max(1, sum(ends)) == pytest.approx(repeated_ngram_frac(" ".join(words), n))

    def test_n_below_one_is_refused(self):
        with pytest.raises(ValueError, match="n must be at least 1, not 0"):
            repetition_by_part(["ab"], 0)


class TestDistinct:
    def test_by_hand(self):
        # Windows of three: abb, bbc, bca.
        assert distinct_frac(list("abbca"), 3) == pytest.approx((2 + 2 + 3) / 9)
        assert distinct_frac(list("abb"), 100) == pytest.approx(2 / 3)

    @given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 50))
    def test_as_counted_window_by_window(self, words, window):
        size = min(window, len(words))
        shares = [len({*words[i : i + size]}) / size for i in range(len(words) - size + 1)]
        assert distinct_frac(words, window) == pytest.approx(sum(shares) / len(shares))

    @pytest.mark.parametrize(("words", "window"), [([], 3), (["a"], 0)])
    def test_nothing_to_count(self, words, window):
        with pytest.raises(ValueError, match="at least one of each"):
            distinct_frac(words, window)


class TestCohesion:
    def test_by_hand(self):
        # (2, 1, 0) and (1, 0, 2): 2 / (sqrt 5 sqrt 5).
        assert cohesion(["a", "a", "b"], ["a", "c", "c"]) == pytest.approx(0.4)
        assert cohesion(["a"], ["b"]) == 0.0 and cohesion([], ["b"]) == 0.0

    @given(WORDS, WORDS)
    def test_it_is_a_share_and_has_no_order(self, first, second):
        assert 0 <= cohesion(first, second) <= 1
        assert cohesion(first, second) == pytest.approx(cohesion(second, first))
        assert not first or cohesion(first, first) == pytest.approx(1)


class TestPositionMetrics:
    def test_a_text_that_starts_to_loop(self):
        sound = " ".join(f"w{i}" for i in range(300))
        loop = " ".join(f"w{i}" for i in range(200, 300))
        found = position_metrics(f"{sound} {loop} {loop}", 5)
        assert [found[f"repetition_{part}"] for part in (1, 2, 3)] == [0.0, 0.0, 0.0]
        assert found["repetition_4"] == pytest.approx(
            91 / 100
        )  # nine n-grams join the loop to what was before
        assert found["repetition_5"] == 1.0
        assert found["distinct_3"] == 1.0 and found["cohesion_2"] == 0.0
        assert found["cohesion_4"] == pytest.approx(1.0)

    def test_names(self):
        found = position_metrics(" ".join(f"w{i}" for i in range(300)), 3)
        assert list(found) == [
            *("repetition_1", "repetition_2", "repetition_3"),
            *("distinct_1", "distinct_2", "distinct_3"),
            *("cohesion_2", "cohesion_3"),
        ]

    @pytest.mark.parametrize("text", ["", "A few words.", "w " * 499, "- " * 900, "春" * 499])
    def test_a_short_text_has_none(self, text):
        assert position_metrics(text) == {}

    def test_chinese(self):
        found = position_metrics("春夏秋冬" * 125)
        assert found["repetition_1"] > 0.9 and found["distinct_1"] == pytest.approx(0.04)


def test_words_are_compared_without_their_marks():
    assert words_of(["“Rain,”", "RAIN", "—", "3.5", "。", "雨"]) == ["rain", "rain", "3.5", "雨"]
