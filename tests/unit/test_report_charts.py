"""The charts: well-formed SVG whose marks lie where the numbers say."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_scores

from lengthwise.lengths import longbench_length_score
from lengthwise.records import LengthTarget
from lengthwise.report import charts
from lengthwise.report.builds import SectionLengths
from lengthwise.report.collect import collect
from lengthwise.report.svg import Axis, tick


def parsed(svg: str | None) -> ET.Element:
    assert svg is not None
    return ET.fromstring(svg)


def shapes(svg: str | None, kind: str) -> list[ET.Element]:
    return [e for e in parsed(svg).iter() if e.get("class") == kind]


def test_places_on_a_log_axis_go_by_factors() -> None:
    axis = Axis(low=10, high=1000, length=100, log=True)
    assert [round(axis.at(v), 6) for v in (10, 100, 1000, 0, 5000)] == [0, 50, 100, 0, 100]


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (80, 6000, True, [100, 300, 1000, 3000]),
        (100, 900, True, [100, 200, 500]),
        (0, 640, False, [0, 200, 400, 600]),
        (1.2, 2.1, False, [1.2, 1.4, 1.6, 1.8, 2.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, expected: list[float]) -> None:
    assert Axis(low=low, high=high, length=1, log=log).ticks() == pytest.approx(expected)


def test_ticks_are_written_in_full() -> None:
    assert [tick(v) for v in (0, 0.25, 1.5, 3000)] == ["0", "0.25", "1.5", "3,000"]


def test_the_band_is_where_s_l_is_at_least_80() -> None:
    below, above = charts.RIGHT_LENGTH
    for factor in (below, above):
        assert longbench_length_score(1_000_000, round(1_000_000 * factor)) == pytest.approx(80, abs=0.01)


def scatter(tmp_path: Path, item: str = "a", **row: Any) -> list[charts.Panel]:
    base = write_scores(tmp_path / "base", {item: 1.0}, requested=LengthTarget.about(9).to_dict(), **row)
    (run,) = collect([base])
    assert run.evaluation is not None
    outputs = run.evaluation.tasks["t"].outputs
    places = {(run.anchor, id(outputs[0])): "sample-1"}
    return charts.target_against_actual([(run, 0, outputs)], places, "words", band=True)


def test_a_reply_of_the_asked_length_lies_on_the_line_and_leads_to_its_text(tmp_path: Path) -> None:
    (panel,) = scatter(tmp_path)
    (dot,) = shapes(panel.svg, "dot")
    (identity,) = shapes(panel.svg, "identity")
    x, y = float(dot.get("cx") or 0), float(dot.get("cy") or 0)
    (x0, y0), (x1, y1) = (
        (float(v) for v in end.split(",")) for end in (identity.get("d") or "")[1:].split("L")
    )
    assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.01)
    assert 'href="#sample-1"' in panel.svg
    assert panel.note == "1 reply, median 1.00× the request"
    assert "Requested against written words of base" in (parsed(panel.svg).get("aria-label") or "")


def test_replies_to_one_length_step_aside_evenly_and_lone_ones_stand_still() -> None:
    steps = charts._asides([100.0, 100.0, 100.0, 700.0])
    assert steps[3] == 0
    assert len({round(step, 3) for step in steps[:3]}) == 3
    assert max(abs(step) for step in charts._asides([5.0] * 500)) <= 6


def test_a_cut_reply_is_a_cross_and_an_empty_one_a_ring(tmp_path: Path) -> None:
    (cut,) = scatter(tmp_path / "cut", finish_reason="length")
    assert (len(shapes(cut.svg, "cross")), len(shapes(cut.svg, "dot"))) == (1, 0)
    assert cut.note.endswith("1 cut")
    (empty,) = scatter(tmp_path / "empty", resps=[""])
    assert len(shapes(empty.svg, "ring")) == 1


def test_names_are_escaped(tmp_path: Path) -> None:
    (panel,) = scatter(tmp_path, item="<a href='x'>")
    assert "&lt;a href=" in panel.svg
    assert "<a href='x'>" not in panel.svg


def test_every_text_is_in_one_bar() -> None:
    svg = charts.length_strips([("a <b>", "c0", [1, 2, 3, 500, 4096, 0])], "words")
    counts = [int(((bar[0].text or "").split(": ")[1]).split(" of")[0]) for bar in shapes(svg, "fill")]
    assert sum(counts) == 5
    assert "median 3, n = 5" in " ".join(parsed(svg).itertext())


def test_the_written_bar_ends_where_the_plan_is_if_both_agree() -> None:
    section = SectionLengths(
        index=1, num_texts=3, planned=200, written=200, lower=150, upper=250, num_rewritten=0
    )
    svg = charts.section_lengths([section])
    (bar,), (plan,) = shapes(svg, "fill soft"), shapes(svg, "plan")
    assert float(bar.get("y") or 0) == float((plan.get("d") or "").split(",")[1].split("L")[0])
    assert "planned 200, written 200 (median of 3 texts, half of them 150 to 250)" in (bar[0].text or "")


def test_the_loss_falls_from_left_to_right() -> None:
    svg = charts.training_curve([{"step": s, "loss": 3.0 - s / 10} for s in range(1, 11)])
    spots = [(float(c.get("cx") or 0), float(c.get("cy") or 0)) for c in shapes(svg, "dot")]
    assert spots == sorted(spots)
    assert "training loss from 2.900 to 2.000, over 10 steps" in (parsed(svg).get("aria-label") or "")


def test_charts_without_data_are_left_out() -> None:
    assert charts.length_strips([("a", "c0", [])], "words") is None
    assert charts.length_strips([("a", "c0", [0])], "words") is None
    assert charts.training_curve([{"step": 1, "lr": 0.1}]) is None
    assert charts.target_against_actual([], {}, "words", band=False) == []
    assert charts.section_lengths([]) is None
