from __future__ import annotations

import pytest

from data_builders.sections import SectionLimits, section_faults, strip_labels
from lengthwise.engines.scripted import prose

ZH = "".join("海上的风暴在夜里到来渔村的人们点起了灯火"[i % 20] for i in range(100)) + "。"


def names(text: str, **changes) -> list[str]:
    arguments = {
        "finish_reason": "stop",
        "planned": 100,
        "is_last": False,
        "earlier": "",
        "wanted_language": "en",
        "limits": SectionLimits(),
    }
    return [fault.check for fault in section_faults(text, **{**arguments, **changes})]


def test_a_good_section_passes():
    assert names(prose(1, 100)) == []


@pytest.mark.parametrize(
    ("words", "expected"), [(49, ["too_short"]), (50, []), (160, []), (161, ["too_long"])]
)
def test_length_window_is_half_to_one_point_six(words, expected):
    assert names(prose(3, words)) == expected


def test_chinese_section_counts_hanzi():
    assert names(ZH, wanted_language="zh") == []
    assert names(ZH, wanted_language="zh", planned=300) == ["too_short"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("length", ["truncated"]), ("abort", ["truncated"]), ("content_filter", ["refusal"]), ("stop", [])],
)
def test_only_a_section_that_ended_by_itself_passes(reason, expected):
    assert names(prose(1, 100), finish_reason=reason) == expected


@pytest.mark.parametrize("text", ["", "  \n ", "***"])
def test_empty(text):
    assert names(text) == ["empty"]


def test_refusal_comes_first():
    assert names("I'm sorry, but I cannot help with that request.")[0] == "refusal"


def test_language():
    assert names(ZH, wanted_language="en") == ["language"]


def test_overlap_is_the_share_of_ten_grams_seen_before():
    old, new = prose(1, 50), prose(9, 80)
    assert names(f"{old} {new}", earlier=f"{prose(5, 60)} {old}") == ["overlap"]
    assert names(f"{old} {new}", earlier=prose(5, 60)) == []
    assert names(f"{old} {new}", earlier=old, limits=SectionLimits(max_overlap=0.5)) == []


def test_conclusion_is_for_the_last_section_only():
    text = f"{prose(1, 80)}\n\nIn conclusion, {prose(2, 20)}"
    assert names(text) == ["early_conclusion"]
    assert names(text, is_last=True) == []


STRIPPED = [
    ("Section 2: The storm came.", "The storm came."),
    ("**Section 2: Storm**\n\nIt came.", "**Storm**\n\nIt came."),
    ("## Section 2: Storm\n\nIt came.", "## Storm\n\nIt came."),
    ("Paragraph 2 - Main Point: A storm - Word Count: 100 words\n\nIt came.", "It came."),
    ("A storm comes.\n\nIt came.", "It came."),
    ("Main point: A storm comes\nIt came.", "It came."),
    ("It came.\n\n(Word count: 102)", "It came."),
    ("It came.\n(102 words)\n", "It came."),
    ("It came.\n[End of section 2]", "It came."),
    ("第二段：风暴来了。\n（102字）", "风暴来了。"),
    ("## The storm\n\nIt came.", "## The storm\n\nIt came."),
    ("It came. (It had 300 words for rain.)", "It came. (It had 300 words for rain.)"),
]


@pytest.mark.parametrize(("text", "expected"), STRIPPED)
def test_strip_labels(text, expected):
    assert strip_labels(text, "A storm comes") == expected


def test_a_fault_names_its_values():
    (fault,) = section_faults(
        prose(1, 30),
        finish_reason="stop",
        planned=100,
        is_last=True,
        earlier="",
        wanted_language="en",
        limits=SectionLimits(),
    )
    assert str(fault) == "too_short words=30 planned=100"
