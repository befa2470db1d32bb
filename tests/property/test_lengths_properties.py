from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.degeneration import flags, overlap_frac, repeated_ngram_frac, strip_section_label
from lengthwise.length_wishes import find_length_wishes, parse_length_wish
from lengthwise.lengths import (
    COUNTERS,
    TLG_TARGETS,
    length_bin,
    log_length_ratio,
    longbench_length_score,
    longen_interval,
    longen_score,
    tlg_match,
)
from lengthwise.numerals import hanzi_numeral, read_number
from lengthwise.records import LengthTarget

# A busy machine is no failure: the examples are small, and pytest's own timeout ends a hang.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

lengths = st.integers(min_value=1, max_value=100_000)
mixed_text = st.text(alphabet=st.sampled_from("ab Z9'-.,，。中文字\n"), max_size=200)


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_blank_line_between_two_texts_adds_their_lengths(a: str, b: str) -> None:
    for counter in COUNTERS.values():
        assert counter(f"{a}\n\n{b}") == counter(a) + counter(b)


@given(mixed_text)
def test_counts_are_bounded_by_characters(text: str) -> None:
    assert all(0 <= counter(text) <= len(text) for counter in COUNTERS.values())


@given(lengths, lengths)
def test_longbench_score_is_full_only_at_the_target(required: int, produced: int) -> None:
    score = longbench_length_score(required, produced)
    assert 0 <= score <= 100
    assert (score == 100) == (required == produced)


@given(lengths, lengths, st.integers(1, 1000))
def test_longbench_score_falls_away_from_the_target(required: int, produced: int, step: int) -> None:
    farther = produced + step if produced >= required else max(0, produced - step)
    assert longbench_length_score(required, farther) <= longbench_length_score(required, produced)


@given(lengths, lengths)
def test_log_length_ratio_is_antisymmetric(a: int, b: int) -> None:
    forward, backward = log_length_ratio(a, b), log_length_ratio(b, a)
    assert forward is not None and backward is not None
    assert forward == pytest.approx(-backward)


@given(st.sampled_from(TLG_TARGETS), st.integers(0, 5000))
def test_a_precise_match_is_a_flexible_match(target: str, words: int) -> None:
    precise, flexible = tlg_match(target, words)
    assert flexible or not precise
    if target in ("10", "30", "50", ">800"):
        assert precise == flexible


@st.composite
def targets(draw: st.DrawFn) -> LengthTarget:
    relation = draw(st.sampled_from(["about", "at_least", "at_most", "range"]))
    low = draw(st.integers(5, 50_000))
    if relation == "about":
        return LengthTarget.about(low)
    if relation == "at_least":
        return LengthTarget(min=low, relation="at_least")
    if relation == "at_most":
        return LengthTarget(max=low, relation="at_most")
    return LengthTarget(min=low, max=draw(st.integers(low + 1, low * 20)), relation="range")


@given(targets(), st.integers(0, 200_000))
def test_longen_score_is_full_exactly_inside_its_interval(target: LengthTarget, words: int) -> None:
    low, high = longen_interval(target)
    score = longen_score(target, words)
    assert 0 <= score <= 1
    assert (score == 1) == (low <= words <= high)


@given(st.integers(0, 10**9))
def test_every_length_has_a_bin(length: int) -> None:
    assert length_bin(length)


@given(st.integers(1, 99_999_999))
def test_hanzi_numerals_read_back(number: int) -> None:
    assert read_number(hanzi_numeral(number)).value == number


ENGLISH = {
    "about": "around {low} words",
    "at_least": "at least {low} words",
    "at_most": "no more than {high} words",
}
CHINESE = {"about": "{low}字左右", "at_least": "不少于{low}字", "at_most": "{high}字以内"}


@given(targets(), st.booleans())
def test_a_stated_target_is_parsed_back(target: LengthTarget, comma: bool) -> None:
    style = "{:,}" if comma else "{}"
    low, high = (
        (style.format(bound) for bound in (target.min, target.max) if bound is not None)
        if (target.relation in ("about", "range"))
        else (style.format(int(target.nominal)),) * 2
    )
    english = ENGLISH.get(target.relation, "between {low} and {high} words").format(low=low, high=high)
    chinese = CHINESE.get(target.relation, "{low}到{high}字").format(low=low, high=high)
    assert parse_length_wish(f"Write a story about rain, {english}, for children.") == target
    assert parse_length_wish(f"写一个关于雨的故事，{chinese}。") == target


@given(st.integers(30, 999_999))
def test_a_target_in_hanzi_is_parsed_back(number: int) -> None:
    assert parse_length_wish(f"写一篇{hanzi_numeral(number)}字的文章") == LengthTarget.about(number)


@given(st.text(alphabet=st.sampled_from("0159k一二千万百字词 words-to,.~至少每个and"), max_size=60))
def test_the_parser_takes_any_text(text: str) -> None:
    assert isinstance(find_length_wishes(text), list)


@given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 5))
def test_shares_lie_between_0_and_1(a: str, b: str, n: int) -> None:
    assert 0 <= repeated_ngram_frac(a, n) <= 1
    assert 0 <= overlap_frac(a, b, n) <= 1
    assert overlap_frac(a, a, n) in (0, 1)


@given(st.text(max_size=200))
def test_flags_and_labels_take_any_text(text: str) -> None:
    assert set(flags(text, "stop")) == {"empty", "truncated", "repetition", "zlib_ratio", "refusal"}
    assert len(strip_section_label(text)) <= len(text)
