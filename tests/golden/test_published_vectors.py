"""Numbers that other people's papers and released code fix; each table names where it comes from."""

from __future__ import annotations

import math

import pytest

from lengthwise.degeneration import has_repeated_ngram
from lengthwise.lengths import (
    TLG_WINDOWS,
    count_all,
    count_cjk_alpha,
    count_cjk_ws,
    lifebench_length_score,
    longbench_length_score,
    longen_score,
    tlg_match,
)
from lengthwise.records import LengthTarget

# Computed with the released scorers of LongBench-Write (THUDM/LongWriter 3fcfdff, evaluation/) and LonGen
# (QwenLM/Self-Lengthen 004e880, eval/): the same text under both rules.
BOTH_RULES = [
    ("Hello world 2024! 你好，世界。", 6, 9),
    ("don't well-known", 4, 2),
    ("café naïve", 0, 2),
    ("GPT4 and 3rd", 1, 3),
    ("AI技术 uses AI 技术", 6, 7),
    ("### Title\n\n- item one", 3, 5),
]


@pytest.mark.parametrize(("text", "longbench", "longen"), BOTH_RULES)
def test_longbench_and_longen_count_differently(text: str, longbench: int, longen: int) -> None:
    assert count_cjk_alpha(text) == longbench
    assert count_cjk_ws(text) == longen


# One column per published rule: TLG (Ruler d29358a, NLTK's \w+), LongGenBench (62c0e86), LongBench-Write
# (3fcfdff), LIFEBench (e38620e), LonGen (004e880). The last two rows are the missing boundary between Latin
# letters and hanzi, which both cjk rules inherit from the \b of Python's re.
COUNTS = [
    ("don't stop", {"regex_w": 3, "whitespace": 2, "cjk_alpha": 3, "cjk_alnum": 2, "cjk_ws": 2}),
    ("3.5 kg", {"regex_w": 3, "whitespace": 2, "cjk_alpha": 1, "cjk_alnum": 3, "cjk_ws": 2}),
    ("well-known", {"regex_w": 2, "whitespace": 1, "cjk_alpha": 2, "cjk_alnum": 1, "cjk_ws": 1}),
    ("你好世界", {"regex_w": 1, "whitespace": 1, "cjk_alpha": 4, "cjk_alnum": 4, "cjk_ws": 4}),
    ("使用GPT模型", {"cjk_alpha": 4, "cjk_alnum": 4}),
    ("GPT 模型", {"cjk_alpha": 3, "cjk_alnum": 3}),
]


@pytest.mark.parametrize(("text", "expected"), COUNTS)
def test_counter_table(text: str, expected: dict[str, int]) -> None:
    counts = count_all(text)
    assert {name: counts[name] for name in expected} == expected


# S_l of LongBench-Write (2408.07055), from the formula in the paper and evaluation/eval_length.py (3fcfdff);
# y = 0, where the released code divides by zero, is defined as 0.
@pytest.mark.parametrize(
    ("required", "produced", "score"),
    [
        (1000, 1000, 100),
        (1000, 900, 94.444),
        (1000, 1200, 93.333),
        (1000, 800, 87.5),
        (1000, 1500, 83.333),
        (1000, 2000, 66.667),
        (1000, 500, 50),
        (1000, 400, 25),
        (1000, 334, 0.299),
        (1000, 333, 0),
        (1000, 4000, 0),
        (1000, 1100, 96.667),
        (1000, 3000, 33.333),
        (3000, 1000, 0),
        (1000, 0, 0),
        (20_000, 7739, 20.784),
    ],
)
def test_longbench_length_score(required: int, produced: int, score: float) -> None:
    assert longbench_length_score(required, produced) == pytest.approx(score, abs=5e-4)


# The clean-up of LongWriter-6k (2410.10210) keeps S_l >= 80, that is an output in [0.714, 1.6] x requested.
def test_the_threshold_of_80_in_lengths() -> None:
    assert longbench_length_score(1000, 1600) == pytest.approx(80)
    assert longbench_length_score(1400, 1000) == pytest.approx(80)


# LonGen's length score: eval/length_following_eval.py (QwenLM/Self-Lengthen 004e880).
@pytest.mark.parametrize(
    ("target", "words", "score"),
    [
        (LengthTarget.about(2000), 2000, 1),
        (LengthTarget.about(2000), 1200, 0.5),
        (LengthTarget.about(2000), 800, 0),
        (LengthTarget.about(2000), 3000, 0.5),
        (LengthTarget.about(2000), 3600, 0),
        (LengthTarget.about(2000), 0, 0),
        (LengthTarget(min=4000, relation="at_least"), 5000, 1),
        (LengthTarget(min=4000, relation="at_least"), 3000, 0.5),
        (LengthTarget(max=6000, relation="at_most"), 3000, 1),
        (LengthTarget(max=6000, relation="at_most"), 2000, 0.333),
        (LengthTarget(max=6000, relation="at_most"), 7500, 0.5),
    ],
)
def test_longen_score(target: LengthTarget, words: int, score: float) -> None:
    assert longen_score(target, words) == pytest.approx(score, abs=5e-4)


# The windows of TLG (2409.18943, Algorithm 1 and Ruler d29358a): lower bound excluded, upper included.
def test_tlg_windows() -> None:
    inf = math.inf
    assert {
        "10": ((0, 20), (0, 20)),
        "30": ((20, 40), (20, 40)),
        "50": ((40, 60), (40, 60)),
        "80": ((70, 90), (60, 100)),
        "150": ((130, 170), (100, 200)),
        "300": ((280, 320), (200, 400)),
        "500": ((450, 550), (400, 600)),
        "700": ((630, 770), (600, 800)),
        ">800": ((800, inf), (800, inf)),
    } == TLG_WINDOWS


@pytest.mark.parametrize(
    ("target", "words", "matches"),
    [
        ("10", 20, (True, True)),
        ("30", 20, (False, False)),
        ("30", 40, (True, True)),
        ("50", 40, (False, False)),
        (">800", 800, (False, False)),
        (">800", 801, (True, True)),
        ("700", 800, (False, True)),
        ("150", 130, (False, True)),
        ("150", 170, (True, True)),
        *((target, 0, (False, False)) for target in TLG_WINDOWS),
    ],
)
def test_tlg_boundaries(target: str, words: int, matches: tuple[bool, bool]) -> None:
    assert tlg_match(target, words) == matches


# LIFEBench's LS (2505.16234): the paper's values, which need the deviation as a fraction (its code, e38620e,
# puts percent into the exponent).
@pytest.mark.parametrize(
    ("deviation", "score"),
    [
        (-0.5, 8.2),
        (-0.2, 36.8),
        (-0.1, 60.7),
        (-0.05, 77.9),
        (0, 100),
        (0.05, 90.5),
        (0.1, 81.9),
        (0.2, 67.0),
        (0.5, 36.8),
        (1, 13.5),
    ],
)
def test_lifebench_length_score(deviation: float, score: float) -> None:
    words = round(1000 * (1 + deviation))
    assert lifebench_length_score(LengthTarget.about(1000), words) == pytest.approx(score, abs=0.05)


# Self-Lengthen's repetition gate (QwenLM/Self-Lengthen 004e880, check_response): any n-gram twice, n = 10
# whitespace words or 13 Chinese units, where a whole run of ASCII is one unit.
def test_repetition_gate_of_self_lengthen() -> None:
    ten = "one two three four five six seven eight nine ten"
    assert has_repeated_ngram(f"{ten} and {ten}", "en")
    assert not has_repeated_ngram(f"{ten} and {ten.removesuffix(' ten')}", "en")
    thirteen = "春江潮水连海平海上明月共潮"
    assert has_repeated_ngram(f"{thirteen}。{thirteen}", "zh")
    assert not has_repeated_ngram(f"{thirteen}。{thirteen[:12]}", "zh")
    assert not has_repeated_ngram(f"{ten} and {ten}", "zh")
