"""What the page says first: which runs are better than the base, and what a reader must know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, Verdict
from lengthwise.report.wording import decimal, digits_for, listed, metric_name, plural, quoted_interval, whole

CUT_WARNING_FRAC = 0.01
"""Above this share of replies cut at the cap, a length score says more about the cap than about the model."""


@dataclass(kw_only=True)
class Headline:
    """The page's first sentence and what a reader must know beside it."""

    opening: str
    figures: str
    asides: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    """What may make the verdict mean less than it says."""
    leads: list[Comparison] = field(default_factory=list)
    """The leading comparison of each later run."""

    @property
    def sentence(self) -> str:
        """The whole verdict."""
        return f"{self.opening}: {self.figures}" if self.figures else self.opening


def headline(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Headline:
    """Return the sentence that the data supports: better, worse, or no clear difference."""
    evaluations = [run for run in runs if run.evaluation and run.evaluation.tasks]
    if not comparisons:
        return _without_comparison(evaluations)
    leads = [leading(comparisons, other) for other in dict.fromkeys(c.other for c in comparisons)]
    figures = leads[0].figures + "." if len(leads) == 1 else ""
    asides = list(dict.fromkeys(note for lead in leads for note in lead.notes))
    rest = [c for c in comparisons if c not in leads]
    if rest:
        asides.append(_others(rest))
    return Headline(
        opening=_opening(leads),
        figures=figures,
        asides=asides,
        cautions=[
            *_cautions(leads[0].base, leads[0].task),
            *(c for lead in leads for c in [*_cautions(lead.other, lead.task, lead.base), *_doubts(lead)]),
        ],
        leads=leads,
    )


def leading(comparisons: Sequence[Comparison], other: Run) -> Comparison:
    """Return a run's comparison to lead with: its S_l, else its first task's leading metric."""
    candidates = [c for c in comparisons if c.other is other]
    for candidate in candidates:
        if candidate.metric == "s_l":
            return candidate
    evaluation = candidates[0].base.evaluation
    assert evaluation is not None
    primary = evaluation.tasks[candidates[0].task].primary
    directed = [c for c in candidates if c.higher_is_better is not None] or candidates
    return next((c for c in directed if c.metric == primary), directed[0])


def _opening(leads: Sequence[Comparison]) -> str:
    """Say it of all runs at once, those with the same verdict together.

    Example:
        "b and c are better than a on t; no clear difference between a and d on t"
    """
    groups: dict[tuple[Verdict, str], list[Comparison]] = {}
    for lead in leads:
        groups.setdefault((lead.verdict, lead.task), []).append(lead)
    clauses = []
    for (verdict, task), members in groups.items():
        base, others = members[0].base.label, listed([m.other.label for m in members])
        be, differ = ("is", "differs") if len(members) == 1 else ("are", "differ")
        clauses.append(
            {
                "better": f"{others} {be} better than {base} on {task}",
                "worse": f"{others} {be} worse than {base} on {task}",
                "changed": f"{others} {differ} from {base} on {task}",
                "unclear": f"no clear difference between {base} and {others} on {task}",
                "too few": f"too few shared items to tell {base} and {others} apart on {task}",
            }[verdict]
        )
    sentence = "; ".join(clauses)
    # A run's name keeps its case.
    fixed = leads[0].verdict in ("unclear", "too few")
    return sentence[0].upper() + sentence[1:] if fixed else sentence


def _cautions(run: Run, name: str, base: Run | None = None) -> list[str]:
    """Return what a score alone can hide: cut replies, and empty and repetitive ones where they are more.

    Args:
        run: the evaluation.
        name: of its task.
        base: what it is compared with; None: it is the base itself, of which only cut replies are told.
    """
    assert run.evaluation is not None
    task = run.evaluation.tasks[name]
    before = base.evaluation.tasks[name].accounts if base and base.evaluation else {}
    total, parts = len(task.outputs), []
    for key, words in (
        ("truncated", "cut at the token cap, so that their lengths are the cap's"),
        ("empty", "empty"),
        ("repetitive", "repetitive"),
    ):
        now, then = task.accounts.get(key) or 0, before.get(key)
        is_many = now > CUT_WARNING_FRAC * total if key == "truncated" else base and now > (then or 0)
        if is_many:
            parts.append(f"{now} {words}" + (f" ({base.label}: {whole(then)})" if base else ""))
    return [f"{run.label}, of {plural(total, 'reply', 'replies')}: {', '.join(parts)}."] if parts else []


def _doubts(lead: Comparison) -> list[str]:
    if lead.survives or lead.verdict in ("unclear", "too few"):
        return []
    return [
        f"{lead.other.label}: the difference does not survive Holm's correction for all comparisons on this "
        f"page (p = {lead.p_holm:.2g})."
    ]


def _others(others: Sequence[Comparison]) -> str:
    words = {
        "better": "better",
        "worse": "worse",
        "changed": "different, with no better direction",
        "unclear": "without a clear difference",
        "too few": "with too few items",
    }
    counted = {kind: sum(c.verdict == kind for c in others) for kind in words}
    parts = [f"{counted[kind]} {words[kind]}" for kind in words if counted[kind]]
    return f"{plural(len(others), 'further comparison')} below: {', '.join(parts)}."


def _without_comparison(evaluations: Sequence[Run]) -> Headline:
    if not evaluations:
        return Headline(
            opening="No evaluation yet",
            figures="there are no scores to show for these runs.",
            asides=["Evaluate the model, then name its run folder too: lengthwise report BASE TUNED"],
        )
    run = evaluations[0]
    assert run.evaluation is not None
    task = next((t for t in run.evaluation.tasks.values() if "s_l" in t.scores), None)
    task = task or next(iter(run.evaluation.tasks.values()))
    score = task.scores.get(task.primary or "")
    if score is None or score.estimate is None:
        figures = "no score is known."
    else:
        d = digits_for([score.estimate, score.high])
        figures = (
            f"{metric_name(score.metric)} {decimal(score.estimate, d)} "
            f"({quoted_interval(score.low, score.high, d)}, n = {whole(score.n)})."
        )
    aside = (
        "Nothing to compare with: name a second evaluation of the same task after this one."
        if len(evaluations) == 1
        else "These evaluations share no scored items, so no difference can be stated."
    )
    return Headline(
        opening=f"{run.label} on {task.name}",
        figures=figures,
        asides=[aside],
        cautions=_cautions(run, task.name),
    )
