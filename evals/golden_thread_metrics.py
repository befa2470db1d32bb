"""What is measured of a reply's checks, by whoever says which are met: the rule of words, or a judge.

STIC-1, STIC-2 and wAvg are the paper's pooled ones (arXiv 2409.02076, section 3): sums over the checks of all
documents, with intervals from whole documents. A row holds its own document's values to read, and the counts summed.
The task counts the checks and the found ones, which no judge has a part in; a name's ending says whose verdict it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.base import Metric
from lengthwise.golden_thread import KINDS, Check, count_checks, position_fifth

GROUPS = ("", *(f"_{kind}" for kind in KINDS), *(f"_fifth_{number}" for number in range(1, 6)))
"""All checks; those of one kind of instruction; those of one fifth of the text."""


def check_metrics(ending: str) -> tuple[Metric, ...]:
    """Return the metrics of somebody's verdicts, `ending` behind each name ("_bound", "@judge").

    The fifths are a curve to read: without a direction they take no part in a comparison's correction for many tests.

    Example:
        >>> [metric.name for metric in check_metrics("@j")][:4]
        ['wavg@j', 'stic_1@j', 'stic_2@j', 'stic_1_once@j']
    """
    wavg = Metric(
        name=f"wavg{ending}",
        counter="-",
        summary="ratio",
        columns=("cr", None, f"num_met{ending}", "num_checks"),
    )
    return (
        wavg,
        *(
            Metric(
                name=f"{name}{group}{ending}",
                counter="-",
                summary="ratio",
                columns=(f"num_met{group}{ending}", f"{whole}{group}"),
                detail=bool(group),
                higher_is_better=None if "fifth" in group else True,
                part_of=(f"{name}{ending}", int(group[-1])) if "fifth" in group else None,
            )
            for group in GROUPS
            for name, whole in (("stic_1", "num_found"), ("stic_2", "num_checks"))
        ),
    )


def check_values(
    checks: Sequence[Check],
    entries: Mapping[int, str],
    met: Sequence[bool],
    *,
    num_entries: int,
    rate: float,
    ending: str,
) -> dict[str, float]:
    """Return one document's values of `check_metrics` and the counts behind them.

    A STIC-1 without a found check, and any STIC of a group without a check, is left out.

    Args:
        checks: all of the document, shape [n].
        entries: what was written, by number.
        met: the verdict on each check, shape [n]; that on a check without its entry does not count.
        num_entries: how many were asked.
        rate: the document's completion rate, 0..1.
        ending: whose verdicts they are.

    Example:
        >>> check = Check(entry=2, event="rain", kind="once")
        >>> values = check_values([check], {2: "Rain."}, [True], num_entries=4, rate=0.25, ending="@j")
        >>> values["stic_1@j"], values["wavg@j"], values["num_met_fifth_2@j"]
        (1.0, 0.25, 1.0)
    """
    values: dict[str, float] = {}
    for group in GROUPS:
        places = [i for i, check in enumerate(checks) if group in _groups_of(check, num_entries)]
        counts = count_checks([checks[i] for i in places], entries, [met[i] for i in places])
        values[f"num_checks{group}"] = float(counts.num_all)
        values[f"num_found{group}"] = float(counts.num_found)
        values[f"num_met{group}{ending}"] = float(counts.num_met)
        if counts.stic_1 is not None:
            values[f"stic_1{group}{ending}"] = counts.stic_1
        if counts.stic_2 is not None:
            values[f"stic_2{group}{ending}"] = counts.stic_2
    values[f"wavg{ending}"] = rate * values[f"stic_2{ending}"]
    return values


def _groups_of(check: Check, num_entries: int) -> tuple[str, ...]:
    return "", f"_{check.kind}", f"_fifth_{position_fifth(check.entry, num_entries)}"
