"""Assembles the report: one HTML file that needs no network."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.report import charts, samples, scatter, wording
from lengthwise.report.along import part_curves, round_curves
from lengthwise.report.builds import MAX_LISTED, sections_by_index
from lengthwise.report.by_step import courses, logged_charts
from lengthwise.report.collect import Run
from lengthwise.report.comparison import compare_all
from lengthwise.report.drawing import MUTED, PALETTE, run_colour
from lengthwise.report.findings import Headline, headline
from lengthwise.report.lineage import NODE_WIDTH, draw
from lengthwise.report.outputs import Output
from lengthwise.report.rl_curves import alarm_steps, rl_panels
from lengthwise.report.settings import package_table, setting_differences, settings_rows
from lengthwise.report.tables import TaskTable, score_tables
from lengthwise.report.tradeoff import trade_offs

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_BYTES = 9_500_000
"""Largest page; sample texts are cut to what the rest leaves of it."""
_FOLDER = Path(__file__).parent
_RESERVE = 120_000
"""Bytes kept free for the notes that cutting adds."""


def render(runs: Sequence[Run], *, max_bytes: int = MAX_BYTES, now: datetime.datetime | None = None) -> str:
    """Return the whole page.

    Texts of models are untrusted: the template escapes them, and the page's policy lets only its own script
    run.

    Args:
        runs: from `collect`.
        max_bytes: sample texts are cut (and the page says so) to keep below this.
        now: the time the page states.
    """
    view = _view(runs, now or datetime.datetime.now(datetime.UTC))
    browser: samples.Browser = view["browser"]
    for text in browser.texts:
        text.shown = ""
    used = len(_fill(view).encode("utf-8", "replace"))
    samples.fit(browser, max(max_bytes - used - _RESERVE, 0))
    return _fill(view)


def _view(runs: Sequence[Run], now: datetime.datetime) -> dict[str, Any]:
    evaluations = [(run, colour) for colour, run in enumerate(r for r in runs if r.evaluation is not None)]
    compared = [run for run, _ in evaluations]  # the first is the base
    comparisons = compare_all(compared[0], compared[1:]) if compared else []
    browser = samples.browse(evaluations, comparisons)
    lead = headline(runs, comparisons)
    tables = score_tables(evaluations, comparisons, browser.anchors)
    return {
        "runs": runs,
        "evaluations": evaluations,
        "builds": [run for run in runs if run.build is not None],
        "trainings": [run for run in runs if run.training is not None],
        "headline": lead,
        "scoreboard": _scoreboard(lead, tables),
        "num_comparisons": sum(c.higher_is_better is not None for c in comparisons),
        "differences": [(o, d) for o in compared[1:] if (d := setting_differences(compared[0], o))],
        "diagram": draw(runs),
        "node_width": NODE_WIDTH,
        "tables": tables,
        "browser": browser,
        "trade_offs": trade_offs(evaluations),
        "courses": courses(runs),
        "round_curves": round_curves(evaluations),
        "part_curves": part_curves(evaluations),
        "unrequested": _without_length(evaluations),
        "max_points": scatter.MAX_POINTS,
        "packages": package_table(runs),
        "configs": [(run, settings_rows(run.config)) for run in runs],
        "palette": PALETTE,
        "now": f"{now:%Y-%m-%d %H:%M} UTC",
        "max_listed": MAX_LISTED,
        **_charts(runs, evaluations, browser),
    }


def _scoreboard(lead: Headline, tables: Sequence[TaskTable]) -> tuple[TaskTable, Any] | None:
    """Return the table of the leading task and its leading metric, where there is something to compare."""
    if not lead.leads:
        return None
    table = next(t for t in tables if t.task == lead.leads[0].task)
    name = wording.metric_name(lead.leads[0].metric)
    return table, next(block for block in table.blocks if block.full_name == name)


def _outputs(run: Run) -> list[Output]:
    return [o for task in run.evaluation.tasks.values() for o in task.outputs] if run.evaluation else []


def _without_length(evaluations: Sequence[tuple[Run, int]]) -> list[tuple[Run, int, int]]:
    """Return (run, outputs without a requested length, outputs)."""
    return [
        (run, sum(o.requested is None for o in _outputs(run)), len(_outputs(run))) for run, _ in evaluations
    ]


def _charts(
    runs: Sequence[Run], evaluations: Sequence[tuple[Run, int]], browser: samples.Browser
) -> dict[str, Any]:
    """Return the page's charts; those without any data are None or empty."""
    scatters = []
    for unit in ("words", "tokens", "characters"):
        groups = [
            (run, c, [o for o in _outputs(run) if o.requested and o.requested.unit == unit])
            for run, c in evaluations
        ]
        is_scored = all("s_l" in o.metrics for _, _, outputs in groups for o in outputs)
        panels = scatter.target_against_actual(groups, browser.anchors, unit, band=is_scored)
        if panels:
            scatters.append((unit, is_scored, panels))
    built = [run for run in runs if run.build is not None]
    strips = [
        (run.label, run_colour(c), [o.words for o in _outputs(run) if o.words is not None])
        for run, c in evaluations
    ]
    strips += [(f"{run.label}, training data", MUTED, kept) for run in built if (kept := _kept_words(run))]
    return {
        "scatters": scatters,
        "lengths": charts.length_strips(strips, "words", "lengths"),
        "build_charts": {run.anchor: _build_charts(run) for run in built},
        "losses": {
            run.anchor: charts.training_curve(run.training.curve, f"{run.anchor}-loss")
            for run in runs
            if run.training is not None
        },
        "rl_panels": {
            run.anchor: rl_panels(
                run.training.curve, str(run.config.get("correctness") or "answer_correct"), f"{run.anchor}-rl"
            )
            for run in runs
            if run.training is not None
        },
        "alarms": {run.anchor: alarm_steps(run.training.curve) for run in runs if run.training is not None},
        "logged": {
            run.anchor: logged_charts(run.training.curve, f"{run.anchor}-logged")
            for run in runs
            if run.training is not None
        },
    }


def _build_charts(run: Run) -> dict[str, Any]:
    rows = run.build.rows if run.build else []
    asked = [round(r.requested.nominal) for r in rows if r.requested]
    sections = sections_by_index(rows)
    return {
        "lengths": charts.length_strips(
            [("requested", MUTED, asked), ("written, kept rows", charts.WRITTEN, _kept_words(run))],
            "words",
            f"{run.anchor}-lengths",
        ),
        "sections": sections,
        "section_chart": charts.section_lengths(sections, f"{run.anchor}-sections"),
    }


def _kept_words(run: Run) -> list[int]:
    return [r.words for r in (run.build.rows if run.build else []) if r.words is not None]


def _fill(view: dict[str, Any]) -> str:
    from markupsafe import Markup

    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            **view,
            style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            policy=_policy(script),
        )
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        whole=wording.whole,
        decimal=wording.decimal,
        target=wording.target,
        when=wording.when,
        duration=wording.duration,
        dollars=wording.dollars,
        plural=wording.plural,
        p_value=wording.p_value,
    )
    return environment


def _policy(script: str) -> str:
    """Return a content security policy: the page's own script by digest, inline style, and no network."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
