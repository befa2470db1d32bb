"""In which order of lengths a run trains: the config's field `curriculum`, a map of a name and its options.

A curriculum is an order of the batches of a token budget, so it goes with `batching: {name: token_budget}`. There is
no published evidence that one makes fine-tuning on conversations better; compare it with the same tokens in random
order over several seeds before believing in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lengthwise.config import build_choice, option
from posttrain.batching import Batching
from posttrain.curricula.choices import Odds, OverLong, Preference, Shape, Weighting

FEWEST_CYCLES = 4
"""Cycles of an epoch that an order by length of conversations needs."""
_UNORDERED = ("natural", "uniform")


@dataclass(kw_only=True)
class LengthBucketsOptions:
    """Batches of conversations by length, in cycles of an equal mix (see `curricula.length_buckets`)."""

    odds: Odds = option(
        "natural",
        help="which lengths come first within a cycle; natural: batches shuffled; uniform, grow_linear, grow_p2, "
        "grow_p100 and shrink_linear, shrink_p2, shrink_p100: drawn by odds",
    )
    cycles: int | None = option(
        None, help="cycles of an epoch; default: 8 where it has 400 steps, 4 where it has 100, else natural"
    )
    num_buckets: int = option(6, help="classes of length, equal in batches; at least 2")

    def __post_init__(self) -> None:
        """Refuse cycles too few to keep a curriculum from drifting between sources."""
        _check_cycles(self.odds, self.cycles, FEWEST_CYCLES)
        if self.num_buckets < 2:
            raise ValueError(f"num_buckets is {self.num_buckets}: there is no order among fewer than 2")


@dataclass(kw_only=True)
class DecompositionOptions:
    """Plain texts cut into sequences of 2^i tokens (arXiv 2405.13226; see `curricula.dataset_decomposition`)."""

    odds: Odds = option("grow_p2", help="as for length_buckets; grow_p2 is the paper's default")
    cycles: int | None = option(
        None, help="cycles of an epoch; default: 8 where it has 400 steps, 4 where it has 100, else natural"
    )
    weighting: Weighting = option(
        "released", help="released: odds times a bucket's steps, as the paper's code; paper: odds alone"
    )
    min_log2: int = option(
        8,
        help="the shortest sequences have 2^min_log2 tokens; what is left of a text below is counted and left out",
    )
    max_log2: int | None = option(
        None, help="the longest have 2^max_log2; default: 13, or what max_length and the batch allow"
    )
    over_long: OverLong = option(
        "randomized", help="how texts of twice the longest and more are cut: randomized, or longest first"
    )
    end_of_text: str | None = option(
        None, help="the token that ends each text; default: the tokenizer's end of sequence"
    )

    def __post_init__(self) -> None:
        """Refuse sequences that cannot be trained on, and a single cycle."""
        _check_cycles(self.odds, self.cycles, 2)
        if self.min_log2 < 1:
            raise ValueError(
                f"min_log2 is {self.min_log2}: a sequence needs a second token to predict: at least 1"
            )
        if self.max_log2 is not None and self.max_log2 < self.min_log2:
            raise ValueError(f"max_log2 is {self.max_log2}: it must be at least min_log2, {self.min_log2}")


@dataclass(kw_only=True)
class WindowOptions:
    """Longer conversations are deferred until a growing window admits them (see `curricula.competence_window`)."""

    start: str | int = option(
        "p10", help="longest row at first: p0 to p100 (a percentile of the rows' lengths), max, or tokens"
    )
    end: str | int = option("max", help="longest row once the window is open, likewise")
    until: float = option(0.5, help="the share of the run after which the window is open; above 0, at most 1")
    shape: Shape = option("log", help="how it grows: linear, log or sqrt")

    def __post_init__(self) -> None:
        """Refuse a window that is none."""
        if not 0 < self.until <= 1:
            raise ValueError(
                f"until is {self.until}: it must be above 0 and at most 1, a share of the run, as 0.5 is"
            )
        for name in ("start", "end"):
            value = getattr(self, name)
            is_right = value >= 1 if isinstance(value, int) else percentile(value) is not None
            if not is_right:
                raise ValueError(
                    f"{name} is {value!r}: give p0 to p100 (a percentile of the rows' lengths), max, or tokens"
                )


@dataclass(kw_only=True)
class CyclicalOptions:
    """A part of the rows that swells and shrinks, drawn by a score (arXiv 2202.05531; `curricula.cyclical_order`)."""

    score: Literal["length", "loss", "column"] = option(
        "length",
        help="what makes a row hard: its tokens, the base model's loss on its supervised tokens, or a column",
    )
    column: str | None = option(None, help="score column: the rows' column, numbers of at least 0")
    preference: Preference = option("easy", help="rows that the small parts are likelier to have")
    start: float = option(0.25, help="smallest part of the rows, above 0 and below 1")
    alpha: float = option(0.5, help="factor from one part to the next, between 0 and 1")

    def __post_init__(self) -> None:
        """Refuse what would fail later, or do nothing."""
        if (self.score == "column") != (self.column is not None):
            raise ValueError(
                f"score is {self.score} and column is {self.column!r}: give a column with score: column, and only then"
            )
        for name in ("start", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")


Curriculum = LengthBucketsOptions | DecompositionOptions | WindowOptions | CyclicalOptions

CURRICULA: dict[str, type[Any]] = {
    "length_buckets": LengthBucketsOptions,
    "dataset_decomposition": DecompositionOptions,
    "competence_window": WindowOptions,
    "cyclical": CyclicalOptions,
}


def curriculum_name(curriculum: Curriculum) -> str:
    """Return the name by which a config chooses a curriculum."""
    return next(name for name, kind in CURRICULA.items() if isinstance(curriculum, kind))


def read_curriculum(given: Mapping[str, Any] | None) -> Curriculum | None:
    """Return the curriculum that a config's field describes; None where there is none.

    Raises:
        ConfigError: an unknown name, or an option that is wrong or another curriculum's.

    Example:
        >>> read_curriculum({"name": "competence_window", "until": 0.4}).until
        0.4
    """
    return None if given is None else build_choice(CURRICULA, given, where="curriculum")


def check_curriculum(curriculum: Curriculum | None, batching: Batching, trainer: Mapping[str, Any]) -> None:
    """Refuse settings beside which a curriculum could not be kept to.

    Args:
        curriculum: the config's field, read.
        batching: the config's field of that name.
        trainer: the keys passed through to TRL.

    Raises:
        ValueError: naming both settings and the remedy.
    """
    if curriculum is None:
        return
    name = curriculum_name(curriculum)
    if batching.name == "packed" or trainer.get("packing"):
        raise ValueError(
            f"curriculum.name is {name}, but rows are packed: a pack has rows of all lengths and no order by "
            "length; set batching: {name: token_budget}"
        )
    if batching.name != "token_budget":
        raise ValueError(
            f"curriculum.name is {name} and batching.name is {batching.name}, but a curriculum orders the batches of "
            "a token budget: set batching: {name: token_budget}"
        )


def check_of_conversations(curriculum: Curriculum | None, train_on: str) -> None:
    """Refuse a choice of turns for plain texts, which have none.

    Raises:
        ValueError: naming both settings and the remedy.
    """
    if isinstance(curriculum, DecompositionOptions) and train_on != "all":
        raise ValueError(
            f"curriculum.name is dataset_decomposition, which trains on every token of plain texts, and train_on is "
            f"{train_on!r}: leave train_on out"
        )


def check_of_pairs(curriculum: Curriculum | None) -> None:
    """Refuse what a curriculum of preference pairs cannot have.

    Raises:
        ValueError: naming the setting and the remedy.
    """
    if isinstance(curriculum, DecompositionOptions):
        raise ValueError(
            "curriculum.name is dataset_decomposition, which cuts plain texts, and preference pairs must not be cut: "
            "choose length_buckets"
        )
    if isinstance(curriculum, CyclicalOptions) and curriculum.score != "length":
        raise ValueError(
            f"curriculum.score is {curriculum.score}, but pairs can be drawn by length only: leave score out"
        )


def percentile(name: str) -> float | None:
    """Return the percentile that a word names, None if it names none.

    Example:
        >>> percentile("p10"), percentile("max"), percentile("10%")
        (10.0, 100.0, None)
    """
    if name == "max":
        return 100.0
    found = re.fullmatch(r"p(\d+(?:\.\d+)?)", name)
    return float(found[1]) if found and float(found[1]) <= 100 else None


def default_cycles(steps_per_epoch: int) -> int | None:
    """Return the cycles of an epoch for a curriculum that grows or shrinks; None where there are too few steps.

    Example:
        >>> [default_cycles(steps) for steps in (400, 399, 100, 99)]
        [8, 4, 4, None]
    """
    return 8 if steps_per_epoch >= 400 else FEWEST_CYCLES if steps_per_epoch >= 100 else None


def is_ordered(odds: Odds) -> bool:
    """Return whether odds prefer short or long batches, so that one cycle would be a drift."""
    return odds not in _UNORDERED


def _check_cycles(odds: Odds, cycles: int | None, fewest: int) -> None:
    """Refuse fewer cycles than an order by length needs, as long as there is one."""
    least = fewest if is_ordered(odds) else 1
    if cycles is None or cycles >= least:
        return
    reason = ""
    if is_ordered(odds):
        reason = (
            f" with odds: {odds}, since lengths go with sources and few long cycles are a drift from the ones to the "
            "others (one cycle did worse than none in arXiv 2503.15450)"
        )
    raise ValueError(f"cycles is {cycles}: it must be at least {least}{reason}; leave it out for the default")
