"""How many tokens a model may think: a budget that shrinks while it trains, as a pure function of the step.

"Train Long, Think Short" (arXiv 2508.08940) starts with a generous budget and lowers it; L1 (2503.04697) draws one for
each prompt. The same function gives the
budget that the prompt states and the one that the reward measures by, so these cannot differ; and a resumed run needs
no state.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["constant", "exponential", "linear", "piecewise", "uniform"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetSchedule:
    """Tokens by step; write `interval` and `gamma` (the paper's form), or `final` with `num_decays` and `num_steps`."""

    kind: Kind = "exponential"
    initial: int = 256
    """Tokens at the start (the paper: 256)."""
    gamma: float | None = None
    """Factor of one decay (the paper: 0.7)."""
    interval: int | None = None
    """Optimizer steps between decays (the paper: 150 of 600)."""
    final: int | None = None
    """Tokens after the last decay (the paper: 87)."""
    num_decays: int | None = None
    """Decays from initial to final (the paper: 3)."""
    num_steps: int | None = None
    """Optimizer steps of the whole schedule, of which each budget gets an equal share."""
    steps: tuple[tuple[int, int], ...] = ()
    """Of `piecewise`: pairs of a step and the budget from there on."""
    multiple_of: int | None = None
    """Of `uniform`: only multiples of it are drawn, between final and initial; default 1."""

    def __post_init__(self) -> None:
        """Refuse what is no schedule.

        Raises:
            ValueError: naming the field, its value and the remedy.
        """
        if self.initial < 1:
            raise ValueError(f"budget.initial is {self.initial}: it must be at least 1 token")
        needed: dict[str, tuple[str, ...]] = {
            "constant": (),
            "linear": ("final", "num_decays", "num_steps"),
            "piecewise": ("steps",),
            "uniform": ("final",),
            "exponential": ("gamma", "interval")
            if self.gamma is not None
            else ("final", "num_decays", "num_steps"),
        }
        if self.multiple_of is not None and self.kind != "uniform":
            raise ValueError(
                f"budget.multiple_of is {self.multiple_of}, which budget.kind {self.kind} does not use: remove it"
            )
        for name in ("gamma", "interval", "final", "num_decays", "num_steps", "steps"):
            value: Any = getattr(self, name)
            is_set = value is not None and value != ()
            if name in needed[self.kind] and not is_set:
                raise ValueError(
                    f"budget.{name} is not set, and budget.kind is {self.kind}, which needs "
                    f"{' and '.join(needed[self.kind])}"
                    + ("; or gamma and interval" if self.kind == "exponential" and self.gamma is None else "")
                )
            if name not in needed[self.kind] and is_set:
                raise ValueError(
                    f"budget.{name} is {value}, which budget.kind {self.kind} does not use: remove it"
                )
        self._check_values()

    def _check_values(self) -> None:
        if self.gamma is not None and not 0 < self.gamma <= 1:
            raise ValueError(f"budget.gamma is {self.gamma}: it must be above 0 and at most 1")
        for name in ("interval", "num_decays", "num_steps", "final", "multiple_of"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"budget.{name} is {value}: it must be at least 1")
        if self.final is not None and self.final > self.initial:
            raise ValueError(
                f"budget.final is {self.final}, above budget.initial, {self.initial}: a budget shrinks; write a "
                "growing one as piecewise"
            )
        if self.num_decays is not None and self.num_steps is not None and self.num_steps <= self.num_decays:
            raise ValueError(
                f"budget.num_steps is {self.num_steps}: {self.num_decays} decays need more steps than that"
            )
        if self.kind == "uniform" and not self.choices:
            raise ValueError(
                f"budget.multiple_of is {self.multiple_of}: no multiple of it lies between budget.final, {self.final}, "
                f"and budget.initial, {self.initial}"
            )
        starts = [start for start, _ in self.steps]
        if starts != sorted(set(starts)) or any(start < 1 for start in starts):
            raise ValueError(f"budget.steps begin at {starts}: the steps must rise from 1 on")
        if any(budget < 1 for _, budget in self.steps):
            raise ValueError("budget.steps has a budget below 1 token")

    @property
    def choices(self) -> range:
        """The budgets among which `uniform` draws."""
        assert self.final is not None
        factor = self.multiple_of or 1
        return range(-(-self.final // factor) * factor, self.initial + 1, factor)

    def for_prompt(self, step: int, prompt: str, *, seed: int) -> int:
        """Return the budget of a prompt at an optimizer step, in tokens.

        That of `uniform` is drawn for each prompt and step (as for L1, arXiv 2503.04697, section 3), so that a model
        learns to heed the number; the others have one for all prompts.

        Args:
            step: finished optimizer steps.
            prompt: a name or text of it; equal ones get equal budgets within a step.
            seed: of the drawing.

        Example:
            >>> drawn = BudgetSchedule(kind="uniform", initial=64, final=16, multiple_of=16)
            >>> sorted({drawn.for_prompt(0, str(i), seed=1) for i in range(99)})
            [16, 32, 48, 64]
        """
        if self.kind != "uniform":
            return self.at(step)
        return random.Random(f"{seed}/{step}/{prompt}").choice(self.choices)

    def at(self, step: int) -> int:
        """Return the budget at an optimizer step, in tokens, at least 1; fractions are cut off; the largest of uniform.

        Args:
            step: finished optimizer steps.

        Example:
            >>> paper = BudgetSchedule(initial=256, gamma=0.7, interval=150)
            >>> [paper.at(step) for step in (0, 149, 150, 300, 450)]
            [256, 256, 179, 125, 87]
            >>> BudgetSchedule(kind="linear", initial=256, final=87, num_decays=3, num_steps=600).at(599)
            87
        """
        if self.kind in ("constant", "uniform"):
            return self.initial
        if self.kind == "piecewise":
            return ([self.initial] + [budget for start, budget in self.steps if start <= step])[-1]
        if self.gamma is not None:
            assert self.interval is not None
            return max(1, int(self.initial * self.gamma ** (step // self.interval) + 1e-9))
        return self._between(step)

    def _between(self, step: int) -> int:
        """Return the budget of the form that names its end: n + 1 budgets for equally many steps each."""
        assert self.final is not None and self.num_decays is not None and self.num_steps is not None
        decay = min(self.num_decays, step * (self.num_decays + 1) // self.num_steps)
        if decay == self.num_decays:
            return self.final
        if self.kind == "linear":
            return int(self.initial - (self.initial - self.final) * decay / self.num_decays + 1e-9)
        return int(self.initial * (self.final / self.initial) ** (decay / self.num_decays) + 1e-9)

    @property
    def largest(self) -> int:
        """The largest budget that occurs, in tokens."""
        return max([self.initial, *(budget for _, budget in self.steps)])
