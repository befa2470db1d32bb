"""What rounds of refinement gained: a curve with intervals, what got better and worse, and where a loop would stop."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lengthwise.statistics import mean_interval
from lengthwise.summaries import Summary, summary_interval


def round_gains(
    rounds: Sequence[Mapping[str, float]],
    clusters: Mapping[str, Hashable],
    summary: Summary = "mean",
    *,
    higher_is_better: bool = True,
) -> list[dict[str, Any]]:
    """Return what each round came to, and what it gained over the first.

    Args:
        rounds: of each round, the score of each item; round 0 is the first answer. Only items that every round has
            count, so that each number is over the same ones.
        clusters: of each item, what it shares with others.
        summary: how scores become one number; gains are means of the items' differences in any case.
        higher_is_better: tells what is improved.

    Returns:
        For each round `value` and `ci` (95 %), `n`, `gain` and `gain_ci` over round 0 (paired), and how many items it
        improved and worsened.

    Example:
        >>> first, second = {"a": 0.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "b": 0.0, "c": 1.0}
        >>> found = round_gains([first, second], {"a": "a", "b": "b", "c": "c"})[1]
        >>> round(found["gain"], 3), found["improved"], found["worsened"]
        (0.333, 2, 1)
    """
    items = [item for item in rounds[0] if all(item in scores for scores in rounds)] if rounds else []
    if not items:
        return []
    names = [clusters[item] for item in items]
    found = []
    for number, scores in enumerate(rounds):
        value = summary_interval(((i, clusters[i], scores[i]) for i in items), summary)
        assert value is not None
        differences = [scores[item] - rounds[0][item] for item in items]
        gain = mean_interval(differences, clusters=names)
        better = 1 if higher_is_better else -1
        found.append(
            {
                "round": number,
                "value": value.estimate,
                "ci": [value.low, value.high],
                "n": len(items),
                "gain": gain.estimate,
                "gain_ci": [gain.low, gain.high],
                "improved": sum(better * d > 0 for d in differences),
                "worsened": sum(better * d < 0 for d in differences),
            }
        )
    return found


def plateau(values: Sequence[float], *, higher_is_better: bool = True) -> int:
    """Return the round after which a loop ends that stops at the first round without a gain (CYCLE's rule).

    Example:
        >>> plateau([0.2, 0.3, 0.3, 0.4]), plateau([0.2, 0.1]), plateau([0.1, 0.2, 0.3])
        (1, 0, 2)
        >>> plateau([0.2, 0.1], higher_is_better=False)
        1
    """
    better = 1 if higher_is_better else -1
    for number in range(1, len(values)):
        if better * (values[number] - values[number - 1]) <= 0:
            return number - 1
    return max(0, len(values) - 1)
