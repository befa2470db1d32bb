"""The sample browser: what each run wrote for the same prompt, side by side, within the page's size."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output, Task
from lengthwise.report.wording import decimal, digits_for, metric_name, ratio, target, whole

MAX_CARDS = 1000
"""Prompts shown; of more, those whose lengths are farthest from what was asked."""
GAUGE_SPAN = 3.0
"""The gauge reaches from 1/8 to 8 times the requested length (powers of two)."""


@dataclass(kw_only=True)
class Text:
    """A text of a prompt or a model; `shown` is shorter only where the page would be too large."""

    full: str
    shown: str

    @property
    def cut(self) -> bool:
        """Whether the page holds only the beginning."""
        return len(self.shown) < len(self.full)

    @property
    def cost(self) -> int:
        """Bytes of the whole text in the page."""
        return len(html.escape(self.full).encode("utf-8", "replace"))


@dataclass(kw_only=True)
class Cell:
    """One run's answer."""

    run: Run
    colour: int
    length: str
    ratio: str
    tokens: str
    finish_reason: str
    scores: list[tuple[str, str]]
    chips: list[str]
    measures: list[tuple[str, str]]
    """Flags that are numbers or names, such as the share of repeated n-grams."""
    texts: list[Text]
    where: str
    """File and row of the full record."""
    gauge: float | None
    """Position of actual/requested on the gauge, in percent."""
    lead: str
    """The task's leading metric, for the closed card."""


@dataclass(kw_only=True)
class Card:
    """One prompt."""

    anchor: str
    task: str
    id: str
    requested: str
    prompt: Text
    cells: list[Cell | None]
    """In the order of the runs; None where a run has no such item."""
    distance: float
    """Largest |ln(actual / requested)| of its cells; -1 where no length was asked."""
    change: float | None
    """Leading metric, last run minus first."""
    marks: list[str] = field(default_factory=list)
    """"run-1:truncated" and the like, for the filter."""


@dataclass(kw_only=True)
class Browser:
    """Everything the section shows."""

    cards: list[Card]
    num_items: int
    filters: list[tuple[str, str]]
    """(mark, words) for the filter menu."""
    anchors: dict[tuple[str, int], str]
    """(run anchor, id of an output object) -> the card's anchor."""
    num_texts: int = 0
    num_cut: int = 0
    cap: int = 0
    """Bytes that a text may take in the page, where some are cut."""

    @property
    def texts(self) -> list[Text]:
        """All texts."""
        return [
            t for c in self.cards for t in [c.prompt, *(t for cell in c.cells if cell for t in cell.texts)]
        ]


def browse(evaluations: Sequence[tuple[Run, int]]) -> Browser:
    """Return the browser for (run, colour) pairs."""
    cards: list[Card] = []
    anchors: dict[tuple[str, int], str] = {}
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    groups = [(name, key, found) for name in names for key, found in _by_item(evaluations, name).items()]
    num_items = len(groups)
    if num_items > MAX_CARDS:
        groups = sorted(groups, key=lambda g: -_distance(g[2]))[:MAX_CARDS]
    for index, (name, key, found) in enumerate(groups, start=1):
        item = key[0] if key[1] == 0 else f"{key[0]}, reply {key[1] + 1}"
        card = _card(f"sample-{index}", name, item, evaluations, found)
        cards.append(card)
        anchors.update({(anchor, id(output)): card.anchor for anchor, output in found.items()})
    labels = {run.anchor: run.label for run, _ in evaluations}
    marks: dict[str, int] = {}
    for card in cards:
        for mark in card.marks:
            marks[mark] = marks.get(mark, 0) + 1
    filters = [
        (mark, f"{labels[mark.partition(':')[0]]}: {mark.partition(':')[2]} ({n})")
        for mark, n in sorted(marks.items())
    ]
    browser = Browser(cards=cards, num_items=num_items, filters=filters, anchors=anchors)
    browser.num_texts = len(browser.texts)
    return browser


def fit(browser: Browser, budget: int) -> None:
    """Cut the longest texts to one common length, so that all of them take at most `budget` bytes."""
    costs = sorted(t.cost for t in browser.texts)
    spent, cap = 0, None
    for index, cost in enumerate(costs):
        # From here on every text is at least this long: would a common cap at this length fit?
        if spent + cost * (len(costs) - index) > budget:
            cap = max((budget - spent) // (len(costs) - index), 0)
            break
        spent += cost
    for text in browser.texts:
        keep = len(text.full) if cap is None or text.cost <= cap else int(len(text.full) * cap / text.cost)
        text.shown = text.full[:keep]
    browser.num_cut = sum(t.cut for t in browser.texts)
    browser.cap = cap or 0


def _by_item(evaluations: Sequence[tuple[Run, int]], task: str) -> dict[tuple[str, int], dict[str, Output]]:
    """Group outputs by id; the k-th output of an id in one run stands beside the k-th in another."""
    groups: dict[tuple[str, int], dict[str, Output]] = {}
    for run, _ in evaluations:
        found = run.evaluation.tasks.get(task) if run.evaluation else None
        seen: dict[str, int] = {}
        for output in found.outputs if found else []:
            k = seen.get(output.id, 0)
            seen[output.id] = k + 1
            groups.setdefault((output.id, k), {})[run.anchor] = output
    return groups


def _distance(found: dict[str, Output]) -> float:
    return max((abs(r) for o in found.values() if (r := o.log_ratio) is not None), default=-1.0)


def _card(
    anchor: str, task: str, item: str, evaluations: Sequence[tuple[Run, int]], found: dict[str, Output]
) -> Card:
    cells: list[Cell | None] = []
    values: list[float | None] = []
    marks: list[str] = []
    for run, colour in evaluations:
        output = found.get(run.anchor)
        if output is None or run.evaluation is None:
            cells.append(None)
            values.append(None)
            continue
        owner = run.evaluation.tasks[task]
        cell = _cell(run, colour, owner, output)
        cells.append(cell)
        values.append(output.metrics.get(owner.primary or ""))
        marks += [f"{run.anchor}:{chip}" for chip in cell.chips]
    first = next(iter(found.values()))
    change = values[-1] - values[0] if values[0] is not None and values[-1] is not None else None
    return Card(
        anchor=anchor,
        task=task,
        id=item,
        requested=target(first.requested),
        prompt=Text(full=first.prompt, shown=first.prompt),
        cells=cells,
        distance=_distance(found),
        change=change if len(cells) > 1 else None,
        marks=marks,
    )


def _cell(run: Run, colour: int, task: Task, output: Output) -> Cell:
    chips = [name for name, value in output.flags.items() if value is True]
    for name, is_so in (
        ("truncated", output.truncated),
        ("empty", output.empty),
        ("repetitive", output.repetitive),
    ):
        if is_so and name not in chips:
            chips.append(name)
    gauge = None
    if output.log_ratio is not None:
        powers = output.log_ratio / 0.6931471805599453
        gauge = 50 + 50 * max(-1.0, min(1.0, powers / GAUGE_SPAN))
    digits = {m: digits_for([found.estimate]) for m, found in task.scores.items()}
    scores = [
        (metric_name(m), "unscored" if value is None else decimal(value, digits.get(m, digits_for([value]))))
        for m, value in output.metrics.items()
    ]
    lead = next((f"{m} {value}" for m, value in scores if m == metric_name(task.primary or "")), "")
    unit = output.requested.unit if output.requested else "words"
    return Cell(
        run=run,
        colour=colour,
        length=f"{whole(output.length)} {unit}",
        ratio=ratio(output.length, output.requested),
        tokens=whole(output.num_tokens),
        finish_reason=output.finish_reason,
        scores=scores,
        chips=chips,
        measures=[
            (name, decimal(value, 3) if isinstance(value, float) else str(value))
            for name, value in output.flags.items()
            if not isinstance(value, bool) and value is not None
        ],
        texts=[Text(full=t, shown=t) for t in output.texts],
        where=f"{task.samples_file}, row {output.row}" if task.samples_file else "",
        gauge=gauge,
        lead=lead,
    )
