"""The sample browser: what each run wrote for the same prompt, side by side, within the page's size."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.lengths import slice_order
from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, flips
from lengthwise.report.evaluations import Task
from lengthwise.report.outputs import TOKENS, Output
from lengthwise.report.wording import decimal, digits_for, metric_name, ratio, target, whole

MAX_CARDS = 2000
"""Prompts shown; of more, those whose lengths are farthest from what was asked."""
MAX_BESIDE = 600
"""Characters shown of a reference answer, of an answer that was read, and of a note."""
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
    target: str
    """The reference answer, if the task has one."""
    answer: str | None
    """What was read from the reply, where that is not the reply itself."""
    notes: list[tuple[str, str]]


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
    facts: dict[str, Any]
    """What the page's script filters and sorts by: task, slices, distance, and per run its score (higher is
    better), its change against the base, its length and its flags."""

    @property
    def data(self) -> str:
        """The facts as JSON."""
        return json.dumps(self.facts, ensure_ascii=False, separators=(",", ":"))


@dataclass(kw_only=True)
class Browser:
    """Everything the section shows."""

    cards: list[Card]
    num_items: int
    flags: list[tuple[str, int]]
    """(flag, replies that have it) for the filter menu."""
    slices: list[tuple[str, list[tuple[str, int]]]]
    """(property, [(value, prompts)]) for the filter menus."""
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


def browse(evaluations: Sequence[tuple[Run, int]], comparisons: Sequence[Comparison] = ()) -> Browser:
    """Return the browser for (run, colour) pairs and what they were compared for."""
    cards: list[Card] = []
    anchors: dict[tuple[str, int], str] = {}
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    groups = [(name, key, found) for name in names for key, found in _by_item(evaluations, name).items()]
    num_items = len(groups)
    if num_items > MAX_CARDS:
        groups = sorted(groups, key=lambda g: -_distance(g[2]))[:MAX_CARDS]
    changes = _changes(comparisons)
    for index, (name, key, found) in enumerate(groups, start=1):
        item = key[0] if key[1] == 0 else f"{key[0]}, reply {key[1] + 1}"
        card = _card(f"sample-{index}", name, item, evaluations, found)
        for anchor, facts in card.facts["runs"].items():
            change, flip = changes.get((anchor, name, key[0]), (None, ""))
            facts["change"] = change
            facts["flags"] += [flip] if flip else []
        cards.append(card)
        anchors.update({(anchor, id(output)): card.anchor for anchor, output in found.items()})
    browser = Browser(
        cards=cards, num_items=num_items, flags=_flags(cards), slices=_slices(cards), anchors=anchors
    )
    browser.num_texts = len(browser.texts)
    return browser


def _changes(comparisons: Sequence[Comparison]) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Return (run, task, item) -> its change for the better, and whether it was won or lost."""
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    for c in comparisons:
        evaluation = c.base.evaluation
        if evaluation is None or evaluation.tasks[c.task].primary != c.metric:
            continue
        flipped = flips(c)
        groups = {} if flipped is None else {
            "won": flipped.won, "lost": flipped.lost, "both wrong": flipped.both_wrong
        }  # fmt: skip
        named = {p.id: name for name, pairs in groups.items() for p in pairs}
        sign = -1 if c.higher_is_better is False else 1
        for p in c.pairs:
            change = round(sign * (p.after - p.before), 4)
            found[c.other.anchor, c.task, p.id] = (change, named.get(p.id, ""))
    return found


def _flags(cards: Sequence[Card]) -> list[tuple[str, int]]:
    counted = Counter(flag for card in cards for run in card.facts["runs"].values() for flag in run["flags"])
    return sorted(counted.items())


def _slices(cards: Sequence[Card]) -> list[tuple[str, list[tuple[str, int]]]]:
    counted: dict[str, Counter[str]] = {}
    for card in cards:
        for kind, value in card.facts["slices"].items():
            counted.setdefault(kind, Counter())[value] += 1
    return [
        (kind, sorted(values.items(), key=lambda entry: slice_order(entry[0])))
        for kind, values in counted.items()
        if len(values) > 1
    ]


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


def _distance(found: Mapping[str, Output]) -> float:
    return max((abs(r) for o in found.values() if (r := o.log_ratio) is not None), default=-1.0)


def _card(
    anchor: str, task: str, item: str, evaluations: Sequence[tuple[Run, int]], found: Mapping[str, Output]
) -> Card:
    cells: list[Cell | None] = []
    runs: dict[str, dict[str, Any]] = {}
    for run, colour in evaluations:
        output = found.get(run.anchor)
        if output is None or run.evaluation is None:
            cells.append(None)
            continue
        owner = run.evaluation.tasks[task]
        cell = _cell(run, colour, owner, output)
        cells.append(cell)
        score, lead = output.metrics.get(owner.primary or ""), owner.scores.get(owner.primary or "")
        sign = -1 if lead is not None and lead.higher_is_better is False else 1
        runs[run.anchor] = {
            "score": None if score is None else round(sign * score, 4),
            "length": output.length,
            "flags": list(cell.chips),
        }
    first = next(iter(found.values()))
    distance = round(_distance(found), 4)
    return Card(
        anchor=anchor,
        task=task,
        id=item,
        requested=target(first.requested),
        prompt=Text(full=first.prompt, shown=first.prompt),
        cells=cells,
        facts={"task": task, "slices": first.slices, "distance": distance, "runs": runs},
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
        if m != TOKENS  # stated beside the length
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
        target=_short(output.target),
        answer=None if output.answer is None else _short(output.answer),
        notes=[(name.replace("_", " "), _short(value)) for name, value in output.notes.items() if value],
    )


def _short(text: str) -> str:
    """Return the beginning of what stands beside a reply; the samples file has it in full."""
    return text if len(text) <= MAX_BESIDE else f"{text[:MAX_BESIDE]} … ({len(text):,} characters)"
