from __future__ import annotations

import pytest

from data_builders.plan_parsing import given_plan, ordinal, parse_plan
from data_builders.plans import (
    Plan,
    PlanBounds,
    PlannedSection,
    aim,
    duplicate_points,
    fit_plan,
    plan_bounds,
    plan_lines,
    plan_schema,
    validate_plan,
)
from lengthwise.records import LengthTarget


def bounds(total: int | None = None, **changes: int) -> PlanBounds:
    general = {"min_sections": 2, "max_sections": 50, "min_words": 200, "max_words": 1000}
    return plan_bounds(total, **{**general, **changes})


def plan(*words: int | None, points: list[str] | None = None) -> Plan:
    names = points or [
        "storm over sea",
        "harbour at dawn",
        "letter from home",
        "winter market",
        "broken clock",
    ]
    return tuple(
        PlannedSection(index=i, main_point=names[i - 1], num_words=w) for i, w in enumerate(words, start=1)
    )


def fault_names(found: Plan, limits: PlanBounds) -> list[str]:
    return [fault.name for fault in validate_plan(found, limits)]


PARSED = [
    ('[{"main_point": "x", "num_words": Infinity}]', [(1, "x", None)]),
    ('[{"main_point": "x", "num_words": NaN}]', [(1, "x", None)]),
    ('[{"main_point": "x", "num_words": 1e999}]', [(1, "x", None)]),
    (f"1. x ({'9' * 6000} words)", [(1, "x", None)]),
    ("[" * 5000, []),
    ("1. Intro" + " " * 5000 + "x", [(1, "Intro x", None)]),
    ('[{"main_point": "the storm", "num_words": 400}]', [(1, "the storm", 400)]),
    ('Sure!\n```json\n[{"main_point": "a  b", "num_words": 400}]\n```\nDone.', [(1, "a b", 400)]),
    ('{"sections": [{"Main Point": "x", "Word Count": "1,200 words"}]}', [(1, "x", 1200)]),
    ('{"main_point": "only one", "num_words": 300}', [(1, "only one", 300)]),
    ('[{"要点": "风暴", "字数": 300}]', [(1, "风暴", 300)]),
    ('<think>[{"main_point": "no", "num_words": 1}]</think>1. Yes (300 words)', [(1, "Yes", 300)]),
    (
        "Here is a plan for 2000 words:\n\nParagraph 1 - Main Point: The sea - Word Count: 400 words\n"
        "Paragraph 2 - Main Point: The 1900 storm, and its 3 victims - Word Count: 1,000 words\n"
        "Total: 1400 words",
        [(1, "The sea", 400), (2, "The 1900 storm, and its 3 victims", 1000)],
    ),
    (
        "**Section 1: Intro** (300-400 words)\n- a detail\n**Section 2: Storm**\n500 words",
        [(1, "Intro", 350), (2, "Storm", 500)],
    ),
    (
        "1. **Intro** (300 words): Set the scene.\n2) The end, 500 words",
        [(1, "Intro: Set the scene.", 300), (2, "The end", 500)],
    ),
    ("Section 1 of 2: Intro (300 words)", [(1, "Intro", 300)]),
    (
        "Section 1\nMain Point: x y\nWord Count: 300\n\nSection 2\nMain Point: z\nWord Count: 400 words",
        [(1, "x y", 300), (2, "z", 400)],
    ),
    (
        "- Intro (300 words)\n- Middle (400 words)\n- a detail without a length",
        [(1, "Intro", 300), (2, "Middle", 400)],
    ),
    (
        "段落1 - 要点：介绍大海 - 字数：400字\n第二段：风暴来临（约500字）\n三、结局（300个字左右）",
        [(1, "介绍大海", 400), (2, "风暴来临", 500), (3, "结局", 300)],
    ),
    ("1. A section without a length", [(1, "A section without a length", None)]),
    ("2. Second (300 words)\n4. Fourth (300 words)", [(2, "Second", 300), (4, "Fourth", 300)]),
    ("I'm sorry, I cannot plan this.", []),
    ('[{"main_point": "cut', []),
    ("[1, 2, 3]", []),
    ("", []),
]


@pytest.mark.parametrize(("reply", "expected"), PARSED)
def test_parse_plan(reply, expected):
    assert [(s.index, s.main_point, s.num_words) for s in parse_plan(reply)] == expected


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("十", 10), ("十二", 12), ("三十", 30), ("四十五", 45)]
)
def test_ordinal(text, number):
    assert ordinal(text) == number


def test_valid_plan_has_no_fault():
    assert fault_names(plan(400, 600), bounds(1000)) == []
    assert fault_names(plan(400, 600), bounds()) == []


@pytest.mark.parametrize(
    ("found", "limits", "expected"),
    [
        ((), bounds(), ["unreadable"]),
        (plan(400), bounds(), ["section_count"]),
        (plan(400, 400, 400), bounds(max_sections=2), ["section_count"]),
        (plan(100, 600), bounds(), ["section_words"]),
        (plan(400, 1001), bounds(), ["section_words"]),
        (plan(400, None), bounds(), ["no_word_count"]),
        (plan(400, 400, points=["storm", " - "]), bounds(), ["no_main_point"]),
        (plan(400, 400, points=["The storm at sea", "the storm, at sea!"]), bounds(), ["same_point"]),
        (plan(600, 600), bounds(1000), ["sum"]),
        (plan(575, 575), bounds(1000), []),
    ],
)
def test_faults(found, limits, expected):
    assert fault_names(found, limits) == expected


def test_numbering_must_be_contiguous():
    found = (
        PlannedSection(index=1, main_point="storm", num_words=400),
        PlannedSection(index=3, main_point="harbour", num_words=400),
    )
    assert fault_names(found, bounds()) == ["numbering"]


def test_duplicate_points_in_chinese():
    found = plan(400, 400, 400, points=["介绍风暴的起因和经过", "港口的清晨", "介绍风暴的起因和经过。"])
    assert duplicate_points(found) == [(1, 3)]


def test_numbered_titles_are_no_duplicates():
    found = plan(400, 400, points=["The journey, part 1: leaving", "The journey, part 2: returning"])
    assert duplicate_points(found) == []


def test_a_sum_that_is_off_is_rescaled():
    fitted, factor, faults = fit_plan(plan(300, 300, 400), bounds(2000))
    assert [s.num_words for s in fitted] == [600, 600, 800]
    assert factor == 2.0
    assert faults == []


def test_a_sum_within_the_tolerance_is_left_alone():
    fitted, factor, faults = fit_plan(plan(500, 600), bounds(1000))
    assert [s.num_words for s in fitted] == [500, 600]
    assert (factor, faults) == (None, [])


def test_rescaling_cannot_leave_the_bounds_of_a_section():
    # Two sections of 1,000 words at most cannot make 5,000 words.
    fitted, factor, faults = fit_plan(plan(400, 600), bounds(5000))
    assert [s.num_words for s in fitted] == [1000, 1000]
    assert factor == 5.0
    assert [fault.name for fault in faults] == ["section_count", "sum"]


def test_missing_counts_share_what_is_left():
    fitted, factor, faults = fit_plan(plan(400, None, None), bounds(1000))
    assert [s.num_words for s in fitted] == [400, 300, 300]
    assert (factor, faults) == (None, [])


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (None, (2, 50, 200)),
        (300, (2, 2, 150)),
        (1000, (2, 5, 200)),
        (2000, (2, 10, 200)),
        (8000, (7, 40, 200)),
        (20000, (17, 50, 200)),
    ],
)
def test_bounds_follow_the_total(total, expected):
    found = bounds(total)
    assert (found.min_sections, found.max_sections, found.min_words) == expected
    assert found.feasible


def test_no_plan_reaches_the_moon():
    assert not bounds(100_000).feasible


def test_aim_stays_inside_open_wishes():
    assert aim(LengthTarget.about(1000)) == 1000
    assert aim(LengthTarget(min=1000, relation="at_least")) == pytest.approx(1100)
    assert aim(LengthTarget(max=1000, relation="at_most")) == 900
    assert aim(LengthTarget(min=400, max=600, relation="range")) == 500


def test_schema_bounds_items_and_words_but_not_text():
    schema = plan_schema(bounds(2000))
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 2, 10)
    assert schema["items"]["properties"]["num_words"] == {"type": "integer", "minimum": 200, "maximum": 1000}
    assert "maxLength" not in str(schema)


def test_plan_lines_in_both_languages():
    assert plan_lines(plan(300), "words") == "1. storm over sea (300 words)"
    assert plan_lines(plan(300, points=["风暴"]), "字") == "1. 风暴 (300字)"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            [{"main_point": "a", "num_words": 300}, {"main_point": "b", "num_words": 400}],
            [("a", 300), ("b", 400)],
        ),
        (["The storm", "The harbour (400 words)"], [("The storm", None), ("The harbour (400 words)", None)]),
        (["1. The storm (300 words)", "2. Rescue (400 words)"], [("The storm", 300), ("Rescue", 400)]),
        ("1. The storm (300 words)\n2. Rescue (400 words)", [("The storm", 300), ("Rescue", 400)]),
        ("The storm\nThe rescue", [("The storm", None), ("The rescue", None)]),
    ],
)
def test_given_plan(value, expected):
    found = given_plan(value)
    assert [(s.main_point, s.num_words) for s in found] == expected
    assert [s.index for s in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("value", [[], 7, [{"words": 3}], [""], {"a": 1}])
def test_given_plan_refuses_other_things(value):
    with pytest.raises(ValueError, match="should"):
        given_plan(value)
