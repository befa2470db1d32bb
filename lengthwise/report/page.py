"""Assembles the report: one HTML file that needs no network."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.report import charts, samples, wording
from lengthwise.report.builds import MAX_LISTED
from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output
from lengthwise.report.findings import compare, headline, setting_differences
from lengthwise.report.lineage import NODE_WIDTH, draw
from lengthwise.report.tables import change_of, package_table, score_tables, settings_rows

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_BYTES = 10_000_000
"""Largest page. plotly.js takes about half; sample texts are cut to what is left."""
_FOLDER = Path(__file__).parent
_RESERVE = 120_000
"""Bytes kept free for the notes that cutting adds."""


def render(runs: Sequence[Run], *, max_bytes: int = MAX_BYTES, now: datetime.datetime | None = None) -> str:
    """Return the whole page.

    plotly.js is embedded once: it gives hover and zoom offline, from a package whose licence (MIT) allows it.
    Texts of models are untrusted: the template escapes them, and the page's policy lets only its own scripts
    run.

    Args:
        runs: from `collect`.
        max_bytes: sample texts are cut (and the page says so) to keep below this.
        now: the time the page states.
    """
    from plotly.offline import get_plotlyjs

    plotly = get_plotlyjs().replace("</script", "<\\/script")
    view = _view(runs, now or datetime.datetime.now(datetime.UTC))
    browser: samples.Browser = view["browser"]
    for text in browser.texts:
        text.shown = ""
    used = len(_fill(view, plotly).encode("utf-8", "replace"))
    samples.fit(browser, max(max_bytes - used - _RESERVE, 0))
    return _fill(view, plotly)


def _view(runs: Sequence[Run], now: datetime.datetime) -> dict[str, Any]:
    evaluations = [(run, i) for i, run in enumerate(r for r in runs if r.evaluation is not None)]
    compared = [run for run, _ in evaluations]
    comparisons = [c for other in compared[1:] for c in compare(compared[0], other)]
    browser = samples.browse(evaluations)
    lead = headline(runs, comparisons)
    first = lead.comparison
    figures = _figures(runs, evaluations, browser)
    return {
        "runs": runs,
        "evaluations": evaluations,
        "builds": [run for run in runs if run.build is not None],
        "trainings": [run for run in runs if run.training is not None],
        "headline": lead,
        "headline_change": change_of(first) if first is not None else None,
        "headline_task": first.task if first is not None else None,
        "headline_ends": {True: ("worse", "better"), False: ("better", "worse"), None: ("lower", "higher")}[
            first.higher_is_better if first is not None else None
        ],
        "differences": [(o, d) for o in compared[1:] if (d := setting_differences(compared[0], o))],
        "diagram": draw(runs),
        "node_width": NODE_WIDTH,
        "tables": score_tables(evaluations, comparisons),
        "browser": browser,
        "marks": {mark for mark, _ in browser.filters},
        "figures": figures,
        "unrequested": _without_length(evaluations),
        "empty_outputs": sum(o.empty for run, _ in evaluations for o in _outputs(run)),
        "max_points": charts.MAX_POINTS,
        "packages": package_table(runs),
        "configs": [(run, settings_rows(run.config)) for run in runs],
        "palette": charts.PALETTE,
        "now": f"{now:%Y-%m-%d %H:%M} UTC",
        "max_listed": MAX_LISTED,
    }


def _outputs(run: Run) -> list[Output]:
    return [o for task in run.evaluation.tasks.values() for o in task.outputs] if run.evaluation else []


def _without_length(evaluations: Sequence[tuple[Run, int]]) -> list[tuple[Run, int, int]]:
    """Return (run, outputs without a requested length, outputs)."""
    return [
        (run, sum(o.requested is None for o in _outputs(run)), len(_outputs(run))) for run, _ in evaluations
    ]


def _figures(
    runs: Sequence[Run], evaluations: Sequence[tuple[Run, int]], browser: samples.Browser
) -> dict[str, charts.Figure]:
    """Return the page's charts by the id of their place; charts without any data are left out."""
    tasks = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    found: dict[str, charts.Figure | None] = {
        f"chart-intervals-{i}": charts.intervals(evaluations, task) for i, task in enumerate(tasks)
    }
    for unit in ("words", "tokens", "characters"):
        groups = [
            (run, c, [o for o in _outputs(run) if o.requested and o.requested.unit == unit])
            for run, c in evaluations
        ]
        found[f"chart-scatter-{unit}"] = charts.target_against_actual(groups, browser.anchors, unit)
    built = [run for run in runs if run.build is not None and run.build.rows]
    series = [
        (run.label, charts.series_colour(c), [o.words for o in _outputs(run) if o.words is not None], False)
        for run, c in evaluations
    ]
    series += [(f"{run.label}, training data", "@ink", _kept_words(run), True) for run in built]
    found["chart-lengths"] = charts.length_histogram(series, "words", height=470)
    for run in built:
        asked = [round(r.requested.nominal) for r in (run.build.rows if run.build else []) if r.requested]
        found[f"chart-build-{run.anchor}"] = charts.length_histogram(
            [
                ("requested", "@series-0", asked, True),
                ("written, kept rows", "@series-2", _kept_words(run), False),
            ],
            "words",
        )
    for run in runs:
        if run.training is not None:
            found[f"chart-loss-{run.anchor}"] = charts.training_curve(run.training.curve)
    return {key: figure for key, figure in found.items() if figure is not None}


def _kept_words(run: Run) -> list[int]:
    return [r.words for r in (run.build.rows if run.build else []) if r.words is not None]


def _fill(view: dict[str, Any], plotly: str) -> str:
    from markupsafe import Markup

    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            **view,
            style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            plotly=Markup(plotly),
            policy=_policy([plotly, script]),
            data=Markup(embed_json({"figures": view["figures"], "palette": view["palette"]})),
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
        plural=wording.plural,
    )
    return environment


def embed_json(value: Any) -> str:
    r"""Return JSON that cannot end the script element it stands in.

    Example:
        >>> embed_json({"a": "</script>"})
        '{"a":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: the page's own scripts by digest, inline style, and no network."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{d}'" for d in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
