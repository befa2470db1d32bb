"""The charts: well-formed SVG whose marks lie where the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_scores

from lengthwise.lengths import longbench_length_score
from lengthwise.records import LengthTarget
from lengthwise.report import charts, drawing, scatter
from lengthwise.report.builds import SectionLengths
from lengthwise.report.collect import collect
from lengthwise.report.drawing import MUTED, run_colour


def parsed(svg: str | None) -> ET.Element:
    assert svg is not None
    return ET.fromstring(svg)


def groups(svg: str | None, kind: str) -> list[ET.Element]:
    return [e for e in parsed(svg).iter("g") if e.get("class") == kind]


def points(svg: str | None, kind: str) -> list[tuple[float, float]]:
    uses = [use for group in groups(svg, kind) for use in group.iter("use")]
    return [(float(use.get("x") or 0), float(use.get("y") or 0)) for use in uses]


def corners(group: ET.Element) -> list[tuple[float, float]]:
    """Return the places that the group's path goes through."""
    (path,) = group.iter("path")
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d") or "")]


def hints(svg: str | None) -> list[str]:
    return [title.text or "" for title in parsed(svg).iter("title")]


def texts(svg: str | None) -> list[str]:
    return [text.text or "" for text in parsed(svg).iter("text")]


def test_the_band_is_where_s_l_is_at_least_80() -> None:
    below, above = scatter.RIGHT_LENGTH
    for factor in (below, above):
        assert longbench_length_score(1_000_000, round(1_000_000 * factor)) == pytest.approx(80, abs=0.01)


def panels(tmp_path: Path, item: str = "a", *, name: str = "base", **row: Any) -> list[scatter.Panel]:
    base = write_scores(tmp_path / name, {item: 1.0}, requested=LengthTarget.about(9).to_dict(), **row)
    (run,) = collect([base])
    assert run.evaluation is not None
    outputs = run.evaluation.tasks["t"].outputs
    places = {(run.anchor, id(outputs[0])): "sample-1"}
    return scatter.target_against_actual([(run, 0, outputs)], places, "words", band=True)


def test_a_reply_of_the_asked_length_lies_on_the_line_and_leads_to_its_text(tmp_path: Path) -> None:
    (panel,) = panels(tmp_path)
    ((x, y),) = points(panel.svg, "written")
    (identity,) = groups(panel.svg, "identity")
    (x0, y0), (x1, y1) = corners(identity)
    assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.001)
    (link,) = parsed(panel.svg).iter("a")
    # Without a target: the link stays on the page.
    assert link.attrib == {"href": "#sample-1", "tabindex": "-1"}
    assert "asked 9 words" in hints(panel.svg)[0]
    assert panel.note == "1 reply, median 1.00× the request"
    assert "Requested against written words of base" in (parsed(panel.svg).get("aria-label") or "")


def test_replies_to_one_length_step_aside_evenly_and_lone_ones_stand_still() -> None:
    steps = scatter._asides([100.0, 100.0, 100.0, 700.0])
    assert steps[3] == 0
    assert len({round(step, 5) for step in steps[:3]}) == 3
    assert max(abs(step) for step in scatter._asides([5.0] * 500)) <= 0.02


def test_a_cut_reply_and_an_empty_one_have_shapes_of_their_own(tmp_path: Path) -> None:
    (cut,) = panels(tmp_path / "cut", finish_reason="length")
    assert (len(points(cut.svg, "cut-off")), len(points(cut.svg, "written"))) == (1, 0)
    assert cut.note.endswith("1 cut")
    (empty,) = panels(tmp_path / "empty", resps=[""])
    (ring,) = groups(empty.svg, "no-text")
    assert "fill: none" in (next(ring.iter("path")).get("style") or "")
    assert points(empty.svg, "written") == points(empty.svg, "cut-off") == []


def test_names_are_escaped(tmp_path: Path) -> None:
    (panel,) = panels(tmp_path, item="<a href='x'>")
    assert "&lt;a href=" in panel.svg
    assert "<a href='x'>" not in panel.svg


def test_a_name_may_have_any_letters(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    svg = charts.length_strips([("$a_1$ <b> 中文", MUTED, [1, 2, 3])], "words", "lengths")
    assert "$a_1$ <b> 中文" in texts(svg)
    assert [str(w.message) for w in recwarn] == []


def test_every_text_is_in_one_bar() -> None:
    svg = charts.length_strips([("a", run_colour(0), [1, 2, 3, 500, 4096, 0])], "words", "lengths")
    counts = [int(hint.split(": ")[1].split(" of")[0]) for hint in hints(svg)]
    assert sum(counts) == 5
    assert "median 3, n = 5" in texts(svg)


def test_a_long_name_is_folded_not_cut() -> None:
    name = "a-model-with-a-name-" * 4
    shown = texts(charts.length_strips([(name, MUTED, [5])], "words", "lengths"))
    assert name in "".join(shown) and name not in shown


def test_a_series_of_empty_texts_keeps_its_name() -> None:
    svg = charts.length_strips([("a", MUTED, [5]), ("b", MUTED, [0])], "words", "lengths")
    assert {"b", "no text, n = 0"} <= set(texts(svg))


def test_the_written_bar_ends_where_the_plan_is_if_both_agree() -> None:
    section = SectionLengths(
        index=1, num_texts=3, planned=200, written=200, lower=150, upper=250, num_rewritten=0
    )
    svg = charts.section_lengths([section], "sections")
    (bar,), (plan,) = groups(svg, "bar"), groups(svg, "plan")
    assert min(y for _, y in corners(bar)) == pytest.approx(corners(plan)[0][1])
    assert "planned 200, written 200 (median of 3 texts, half of them 150 to 250)" in hints(svg)[0]


def test_the_loss_falls_from_left_to_right() -> None:
    svg = charts.training_curve([{"step": s, "loss": 3.0 - s / 10} for s in range(1, 11)], "loss")
    spots = points(svg, "steps")
    # The y of SVG points down.
    assert len(spots) == 10 and spots == sorted(spots) and spots[0][1] < spots[-1][1]
    assert hints(svg)[0] == "step 1: 2.9000"
    assert "training 2.000" in texts(svg)
    assert "training loss from 2.900 to 2.000, over 10 steps" in (parsed(svg).get("aria-label") or "")


def test_a_chart_is_the_same_each_time_and_shares_no_id_with_another() -> None:
    curve = [{"step": s, "loss": 3.0 - s / 10} for s in range(1, 11)]
    one, again, other = (charts.training_curve(curve, name) for name in ("one", "one", "other"))
    assert one == again
    ids = [{e.get("id") for e in parsed(svg).iter() if e.get("id")} for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert all(f"#{name}" in (one or "") for name in ids[0])


def test_a_chart_takes_size_colours_and_style_from_the_page(tmp_path: Path) -> None:
    (panel,) = panels(tmp_path)
    root = parsed(panel.svg)
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == (None, None, "0 0 360 330")
    assert root.get("role") == "img"
    assert not list(root.iter("style"))
    # Every colour is a variable of the page, so that the dark scheme has its own.
    assert not [e for e in root.iter() if re.search("#[0-9a-f]{6}", e.get("style") or "")]
    assert "fill: var(--series-0)" in panel.svg


def test_the_style_does_not_depend_on_the_users() -> None:
    import matplotlib

    curve = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    with matplotlib.rc_context({"lines.linestyle": ":", "axes.spines.top": True, "font.size": 30}):
        changed = charts.training_curve(curve, "loss")
    assert changed == charts.training_curve(curve, "loss")


def test_the_colours_of_the_charts_are_those_of_the_style_sheet() -> None:
    light = (Path(drawing.__file__).parent / "page.css").read_text(encoding="utf-8").split("@media")[0]
    for name in ("ink", "muted", "rule", "line"):
        assert f"--{name}: {getattr(drawing, name.upper())};" in light


def test_charts_without_data_are_left_out() -> None:
    assert charts.length_strips([("a", MUTED, [])], "words", "lengths") is None
    assert charts.length_strips([("a", MUTED, [0])], "words", "lengths") is None
    assert charts.training_curve([{"step": 1, "lr": 0.1}], "loss") is None
    assert scatter.target_against_actual([], {}, "words", band=False) == []
    assert charts.section_lengths([], "sections") is None
