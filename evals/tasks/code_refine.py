"""Does a model mend its programs when it is told how they failed? CYCLE's evaluation (arXiv 2403.18746, sections 3, 4).

The model writes a program (temperature 0.2); where it fails the tests that a solver may see, it is shown the program
with what the tests said, and writes a new one (temperature 0.6), up to `max_rounds` times. A program that passes these
tests stays as it is. All tests of the benchmark, of which no prompt holds more than the visible ones, give the verdict
on the program of each round:

- `one_time`: the share solved by the first program; `refined`: by the last; `regressed`: solved first and not last.
- `passed_round_K`: the share solved after round K; `tokens_round_K`: all tokens written until then. The results have
  the curve, each round's gain, and how many problems a round won and lost.
- `independent` and `independent_round_K`: what as many new tries come to that know nothing of each other, made where
  the first program fails what is visible, and until one passes it: that one is taken, else the last. Refinement is
  worth its cost where it beats this.
- `ended_early`: chains that ended since the context had no room for a program as long as the last.

Where we differ: with the paper the tests of the benchmark decide which programs are refined, and their results are
the feedback, so that a part of the answer is told. `feedback: hidden` does so; by default feedback comes from the
tests that the problem shows. The paper's loop stops for all problems at the first round that solves no more; here
every problem has all its rounds, and the results say where that loop would have stopped. A problem without visible
tests is not refined.

Sources have the fields of HumanEval, MBPP (also sanitized), APPS or CodeContests, or ours (`read_problem`). Programs
are run in `lengthwise.sandbox`, which has to be allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from evals.base import Metric, Score
from evals.programs import CONTEXT_FULL, ProgramTask, hidden_verdict, problem_of
from evals.repair_chain import SANDBOX_FAILED, Chain, RepairOptions, chosen_of
from evals.rounds import curve_metrics, running_sums, share, token_round
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.records import Attempt, Completion, Sample
from lengthwise.refinement.code_repair import program_of
from lengthwise.sandbox.code_tests import Sandbox, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits

METRICS: tuple[Metric, ...] = ()
"""They depend on the number of rounds: see `configured`."""

SAMPLING = Sampling(temperature=0.2, top_p=0.95, max_tokens=512)
"""Of first programs; the paper's, but for its 256 tokens, which many programs with their signature exceed."""


@dataclass(kw_only=True)
class CodeRefine(ProgramTask):
    """The task with its options."""

    options: RepairOptions
    sandbox: Sandbox
    METRICS: tuple[Metric, ...]
    LABEL: str = "code_refine"
    VERSION: int = 1
    TEMPERATURE: float = 0.2
    MAX_TOKENS: int | None = 512
    SAMPLING: Sampling = SAMPLING

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Return the last program of each of `sampling.n` chains, with what led to it and the independent tries.

        Raises:
            EngineError: the engine has no answer.
        """
        chains = [
            Chain(
                options=self.options,
                sandbox=self.sandbox,
                problem=problem_of(sample),
                caller=caller,
                sampling=replace(sampling, n=1),
                number=i,
            )
            for i in range(sampling.n)
        ]
        return [await chain.completion() for chain in chains]

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return the verdict on one program that nothing led to."""
        return self.score_attempts(sample, text, finish_reason, ())

    def score_attempts(
        self, sample: Sample, text: str, finish_reason: str | None, attempts: Sequence[Attempt]
    ) -> Score:
        """Return the verdict on the program of each round, and on the independent tries."""
        problem = problem_of(sample)
        drafts = [a for a in attempts if a.kind == "draft"]
        alone = [a for a in attempts if a.kind == "independent"]
        end = next((a for a in attempts if a.kind == "final"), None)
        opened = end is not None and bool(end.note.get("opened"))
        programs = [
            program_of(t, opened=opened, names=problem.names) for t in (*(d.text for d in drafts), text)
        ]
        others = [program_of(a.text, opened=opened, names=problem.names) for a in alone]
        tested = [hidden_verdict(self.sandbox, problem, program) for program in programs]
        tries = [hidden_verdict(self.sandbox, problem, program)[0] for program in others]
        solved = [passed for passed, _ in tested]
        outcomes = [outcome for _, outcome in tested]
        spent = [a.num_tokens for a in (*drafts, *([end] if end else []))] or [0]
        metrics = {
            "rounds_used": float(len(drafts)),
            "ended_early": float(end is not None and end.note.get("ended") == CONTEXT_FULL),
            **curve_metrics("tokens", running_sums(spent), self.options.max_rounds),
        }
        notes = {"outcomes": outcomes, "isolation": self.sandbox.isolation}
        slices = {"first_outcome": outcomes[0], "last_outcome": outcomes[-1]}
        fault = self._fault((end, *alone), (*solved, *tries))
        if fault is not None:
            reasons = {m.name: fault for m in self.METRICS if m.counter == "tests"}
            return Score(metrics=metrics, unscored=reasons, notes=notes, slices=slices)
        metrics |= {
            "one_time": float(bool(solved[0])),
            "refined": float(bool(solved[-1])),
            "regressed": float(bool(solved[0] and not solved[-1])),
            **curve_metrics("passed", solved, self.options.max_rounds),
        }
        if self.options.equal_budget:
            chosen = [solved[0], *(chosen_of(alone, tries, k) for k in range(1, len(alone) + 1))]
            costs = running_sums([spent[0], *(a.num_tokens for a in alone)])
            metrics |= curve_metrics("independent", chosen, self.options.max_rounds)
            metrics |= curve_metrics("independent_tokens", costs, self.options.max_rounds)
            metrics["independent"] = float(bool(chosen[-1]))
        return Score(metrics=metrics, answer=programs[-1], notes=notes, slices=slices)

    def _fault(self, ends: Sequence[Attempt | None], verdicts: Sequence[bool | None]) -> str | None:
        """Return why a chain, the first of what ended, has no verdict; None where it has one."""
        if None in verdicts or any(a.note.get("ended") == SANDBOX_FAILED for a in ends if a is not None):
            return SANDBOX_FAILED
        end = ends[0]
        if end is not None and end.note.get("options") != asdict(self.options):
            return f"written under other options: {end.note.get('options')}"
        return None

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return whether there are visible tests."""
        return {"visible_tests": "yes" if problem_of(sample).public else "no"}


def configured(
    *,
    max_rounds: int = 4,
    feedback: Literal["public", "hidden"] = "public",
    refine_temperature: float = 0.6,
    equal_budget: bool = True,
    allow_code_execution: bool = False,
    require_isolation: Isolation | None = None,
    test_seconds: float = 3.0,
) -> CodeRefine:
    """Return the task of an entry of `tasks`.

    Args:
        max_rounds: refinements after the first program; the paper: 4.
        feedback: which tests decide what is refined, and are told: public, those that the problem shows; hidden, as the
            paper does, those that also give the verdict.
        refine_temperature: of refinements and independent tries.
        equal_budget: whether to make as many independent tries beside each chain.
        allow_code_execution: whether programs that the model wrote may be run.
        require_isolation: the weakest isolation that will do; None: the strongest there is.
        test_seconds: time of each test.

    Raises:
        ConfigError: an option means nothing, or no program may be run.
    """
    if max_rounds < 0:
        raise ConfigError(f"tasks: code_refine.max_rounds is {max_rounds}: it must be at least 0")
    if refine_temperature < 0:
        raise ConfigError(
            f"tasks: code_refine.refine_temperature is {refine_temperature}: it must be at least 0"
        )
    if equal_budget and refine_temperature == 0:
        raise ConfigError(
            f"tasks: code_refine.refine_temperature is {refine_temperature}: at 0 all independent tries are one; "
            "give more, or equal_budget: false"
        )
    limits = Limits(seconds=test_seconds)
    return CodeRefine(
        options=RepairOptions(
            max_rounds=max_rounds,
            feedback=feedback,
            refine_temperature=refine_temperature,
            equal_budget=equal_budget,
        ),
        sandbox=shared_sandbox(allow_code_execution, require_isolation, limits),
        METRICS=_metrics(max_rounds, equal_budget),
    )


def _metrics(max_rounds: int, equal_budget: bool) -> tuple[Metric, ...]:
    found = [share("refined"), share("one_time"), *([share("independent")] if equal_budget else [])]
    found += [
        share("regressed", higher_is_better=False),
        Metric(name="rounds_used", counter="-", higher_is_better=None, detail=True),
        Metric(name="ended_early", counter="-", higher_is_better=None, summary="proportion", detail=True),
    ]
    for name, cost in (("passed", "tokens"), ("independent", "independent_tokens"))[: 1 + equal_budget]:
        found += [share(f"{name}_round_{k}", detail=True, round_of=(name, k)) for k in range(max_rounds + 1)]
        found += [token_round(cost, k) for k in range(max_rounds + 1)]
    return tuple(found)
