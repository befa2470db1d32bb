"""How far preference pairs can be told apart by length alone, before a model is trained on them.

Where the chosen answer is mostly the longer one, DPO can lower its loss by preferring length as such: the margin is
a sum over the tokens of an answer (Park, Rafailov, Ermon and Finn, "Disentangling Length from Quality in Direct
Preference Optimization", arXiv 2403.19159). What a model made of it shows `posttrain.pair_margins`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from lengthwise.length_bias import score_length_correlation
from lengthwise.statistics import Interval, mean_interval, share_interval
from posttrain.pair_data import TokenPair
from posttrain.pair_margins import NUM_QUANTILES, quantile_groups

HIGHEST_SHARE, LOWEST_SHARE = 0.6, 0.4
"""Outside of these, the share of pairs whose longer answer is chosen is warned about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLengths:
    """The lengths of one pair's answers in tokens, and their scores if they have any."""

    chosen: int
    rejected: int
    cluster: Hashable
    """Pairs of one prompt are one cluster: they are not independent."""
    score_gap: float | None = None
    """Score of the chosen answer less that of the rejected one."""

    @property
    def gap(self) -> int:
        """Tokens by which the chosen answer is longer; below 0 if it is shorter."""
        return self.chosen - self.rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthBias:
    """How the lengths of chosen and rejected answers differ over some pairs; lengths are in tokens."""

    n: int
    num_ties: int
    """Pairs whose answers are equally long."""
    smallest_gap: int
    """The least by which one answer of a pair is longer than the other."""
    largest_gap: int
    chosen_mean: float
    chosen_median: float
    rejected_mean: float
    rejected_median: float
    gap: Interval
    """Mean of chosen less rejected."""
    relative_gap: Interval
    """Mean of (chosen - rejected) / ((chosen + rejected) / 2), which lies in -2..2."""
    longer_is_chosen: Interval | None
    """Share of the pairs without ties whose longer answer is chosen; None if all are ties."""
    longer_wins_accuracy: Interval
    """How often the rule "the longer answer is better" is right; a tie counts half."""
    score_correlation: Interval | None
    """Rank correlation of length gap with score gap; None if fewer than two prompts have scores, or none vary."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: v.to_dict() if isinstance(v, Interval) else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBias:
    """The length bias of a data set, and the same by how far the lengths of a pair differ."""

    overall: LengthBias
    by_gap: tuple[LengthBias, ...]
    """Quantiles of the absolute gap, the smallest first; equal gaps are in one."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        return {"overall": self.overall.to_dict(), "by_gap": [part.to_dict() for part in self.by_gap]}

    def lines(self) -> Iterator[str]:
        """Say in a few lines of a header how long the answers are, and warn of what they may teach."""
        bias = self.overall
        yield (
            f"lengths     chosen {bias.chosen_mean:,.0f} tokens (median {bias.chosen_median:,.0f}), rejected "
            f"{bias.rejected_mean:,.0f} ({bias.rejected_median:,.0f}); chosen longer by {_shown(bias.gap, ',.0f')}, "
            f"relative {_shown(bias.relative_gap, '.1%')}"
        )
        if bias.longer_is_chosen is None:
            yield f"length bias none: the answers of all {bias.n:,} pairs are equally long"
            return
        yield (
            f"length bias the longer answer is chosen in {_shown(bias.longer_is_chosen, '.1%')} of "
            f"{bias.longer_is_chosen.n:,} pairs, {bias.num_ties:,} have equal lengths; 'longer wins' is right in "
            f"{bias.longer_wins_accuracy.estimate:.1%}"
        )
        if bias.score_correlation is not None:
            yield (
                "length bias rank correlation of length gap with score gap "
                f"{_shown(bias.score_correlation, '.2f')}, {bias.score_correlation.n:,} prompts"
            )
        yield from _warning(bias.longer_is_chosen)


def length_bias(pairs: Sequence[TokenPair]) -> PairBias:
    """Return the length bias of pairs as they are trained on: end-of-turn tokens count, cut tokens do not.

    Raises:
        ValueError: there are none.
    """
    return bias_of_lengths(
        [
            PairLengths(
                chosen=len(p.chosen_ids),
                rejected=len(p.rejected_ids),
                cluster=p.prompt_ids.tobytes(),
                score_gap=_score_gap(p.pair.chosen_score, p.pair.rejected_score),
            )
            for p in pairs
        ]
    )


def bias_of_lengths(pairs: Sequence[PairLengths], *, num_quantiles: int = NUM_QUANTILES) -> PairBias:
    """Return the length bias of pairs of known lengths.

    Intervals are at 95 %: t for means, Wilson's for shares, both clustered by prompt where prompts repeat.

    Raises:
        ValueError: there are no pairs.

    Example:
        >>> pairs = [PairLengths(chosen=9, rejected=5, cluster=i) for i in range(3)]
        >>> bias = bias_of_lengths([*pairs, PairLengths(chosen=4, rejected=6, cluster=3)]).overall
        >>> bias.gap.estimate, bias.longer_is_chosen.estimate
        (2.5, 0.75)
    """
    if not pairs:
        raise ValueError("there are no pairs, so they have no lengths to compare")
    groups = quantile_groups([abs(p.gap) for p in pairs], num_quantiles)
    return PairBias(overall=_bias(pairs), by_gap=tuple(_bias([pairs[i] for i in group]) for group in groups))


def _bias(pairs: Sequence[PairLengths]) -> LengthBias:
    chosen, rejected, gaps = ([getattr(p, name) for p in pairs] for name in ("chosen", "rejected", "gap"))
    untied = [p for p in pairs if p.gap]
    clusters = [p.cluster for p in pairs]
    longer = None
    if untied:
        longer = share_interval([float(p.gap > 0) for p in untied], clusters=[p.cluster for p in untied])
    return LengthBias(
        n=len(pairs),
        num_ties=len(pairs) - len(untied),
        smallest_gap=min(map(abs, gaps)),
        largest_gap=max(map(abs, gaps)),
        chosen_mean=fmean(chosen),
        chosen_median=median(chosen),
        rejected_mean=fmean(rejected),
        rejected_median=median(rejected),
        gap=mean_interval(gaps, clusters=clusters),
        relative_gap=mean_interval([2 * p.gap / (p.chosen + p.rejected) for p in pairs], clusters=clusters),
        longer_is_chosen=longer,
        longer_wins_accuracy=share_interval(
            [0.5 + 0.5 * ((g > 0) - (g < 0)) for g in gaps], clusters=clusters
        ),
        score_correlation=_score_correlation(pairs),
    )


def _score_correlation(pairs: Sequence[PairLengths]) -> Interval | None:
    """Return the rank correlation of length gap and score gap; pairs of one prompt count once, as their mean."""
    scored: dict[Hashable, list[tuple[float, int]]] = {}
    for pair in pairs:
        if pair.score_gap is not None:
            scored.setdefault(pair.cluster, []).append((pair.score_gap, pair.gap))
    scores = [fmean(score for score, _ in found) for found in scored.values()]
    gaps = [fmean(gap for _, gap in found) for found in scored.values()]
    if len(set(scores)) < 2 or len(set(gaps)) < 2:
        return None
    return score_length_correlation(scores, gaps)


def _score_gap(chosen: float | None, rejected: float | None) -> float | None:
    return None if chosen is None or rejected is None else chosen - rejected


def _warning(share: Interval) -> Iterator[str]:
    if share.low is None or share.high is None or (share.high >= LOWEST_SHARE and share.low <= HIGHEST_SHARE):
        return
    is_long = share.estimate > 0.5
    yield (
        f"WARNING     the {'longer' if is_long else 'shorter'} answer is mostly the chosen one: training may teach to "
        f"write {'at length' if is_long else 'briefly'} instead of well. What helps: loss_type: sigmoid_norm (LN-DPO, "
        "log-probabilities by token), ld_alpha below 1 (LD-DPO, less weight behind the shorter answer's length), "
        "or pairs of like length"
    )


def _shown(interval: Interval, style: str) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:{style}}"
    return f"{interval.estimate:{style}} ({interval.low:{style}} to {interval.high:{style}})"
