"""Does a model mend its programs when it reads back what they do? CyclePrompt's evaluation (see `code_cycle`).

The model writes a program (greedily), describes the program without seeing the task, and compares its description with
the task; each difference is a hint for the next program, up to `max_cycles` times. No test is run on the way. A chain
ends where both say the same, where no new hint comes, or where no comparison can be had. What is returned is the
program whose description is nearest to the task, the first of equals, and not blindly the last. The benchmark's tests,
which no prompt holds, give the verdict on every program afterwards:

- `first`, `chosen`, `last`: the share solved by that program; `regressed`: first right, and the chosen one not.
- `passed_round_K`, `tokens_round_K`: the share solved by the program of cycle K, and all tokens written until the next
  program was asked for, or the chain ended: what was read back of it costs, too.
- `num_calls`: calls of a problem. `ended_early`: chains that ended since the context was full, or since no verdict
  could be had: a description was cut, or the judge gave none. The slice `ended` has how each chain ended.
- `passed_if_equivalent`: of the chains whose chosen program was called equivalent, the share that is right: how far the
  model's own verdict can stand for tests (`data_builders/consistent_code.py` does so).

Sources and sandbox are as for `code_refine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.base import Metric, Score
from evals.programs import CONTEXT_FULL, ProgramTask, hidden_verdict, problem_of, write_program
from evals.rounds import curve_metrics, running_sums, share, token_round
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import ContextOverflow, Sampling
from lengthwise.records import Attempt, Completion, Sample
from lengthwise.refinement.code_cycle import bare_program, compared, described, with_hints
from lengthwise.refinement.code_repair import program_of, request
from lengthwise.sandbox.code_tests import Sandbox, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits

METRICS: tuple[Metric, ...] = ()
"""They depend on the number of cycles: see `configured`."""

EQUIVALENT, NO_NEW_HINT, NO_VERDICT, ALL_CYCLES = "equivalent", "no new hint", "no verdict", "all cycles"
"""How a chain ends, beside `CONTEXT_FULL`."""


@dataclass(kw_only=True)
class CyclePrompt(ProgramTask):
    """The task with its options."""

    max_cycles: int
    max_description_tokens: int
    max_verdict_tokens: int
    sandbox: Sandbox
    METRICS: tuple[Metric, ...]
    LABEL: str = "cycle_prompt"
    VERSION: int = 1
    TEMPERATURE: float = 0.0
    MAX_TOKENS: int | None = 512

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Return the chosen program of each of `sampling.n` chains, with all that led to it.

        Raises:
            EngineError: the engine has no answer.
        """
        found = []
        for number in range(sampling.n):
            cycle = Cycle(task=self, sample=sample, caller=caller, sampling=sampling, number=number)
            found.append(await cycle.completion())
        return found

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return the verdict on one program that nothing led to."""
        alone = Attempt(kind="draft", text=text, finish_reason="stop", num_tokens=0)
        return self.score_attempts(sample, text, finish_reason, (alone,))

    def score_attempts(
        self, sample: Sample, text: str, finish_reason: str | None, attempts: Sequence[Attempt]
    ) -> Score:
        """Return the verdict on the program of each cycle."""
        problem = problem_of(sample)
        drafts = [attempt for attempt in attempts if attempt.kind == "draft"]
        opened = any(draft.note.get("opened") for draft in drafts)
        programs = [program_of(draft.text, opened=opened, names=problem.names) for draft in drafts]
        tested = [hidden_verdict(self.sandbox, problem, program) for program in programs]
        solved = [passed for passed, _ in tested]
        outcomes = [outcome for _, outcome in tested]
        chosen = nearest(drafts)
        notes = {"outcomes": outcomes, "isolation": self.sandbox.isolation}
        slices = {"first_outcome": outcomes[0], "chosen_outcome": outcomes[chosen]}
        ended = drafts[-1].note.get("ended")
        if ended is not None:
            slices["ended"] = ended
        metrics = {
            "num_calls": float(sum(attempt.note.get("calls", 1) for attempt in attempts)),
            "ended_early": float(ended in (CONTEXT_FULL, NO_VERDICT)),
            **curve_metrics("tokens", _costs(attempts), self.max_cycles),
        }
        options = drafts[0].note.get("options", self.options)
        if None in solved or options != self.options:
            fault = "the sandbox failed" if None in solved else f"written under other options: {options}"
            reasons = {m.name: fault for m in self.METRICS if m.counter == "tests"}
            return Score(metrics=metrics, unscored=reasons, notes=notes, slices=slices)
        metrics |= {
            "chosen": float(bool(solved[chosen])),
            "first": float(bool(solved[0])),
            "last": float(bool(solved[-1])),
            "regressed": float(bool(solved[0] and not solved[chosen])),
            **curve_metrics("passed", solved, self.max_cycles),
        }
        if drafts[chosen].note.get("size") == 0:
            metrics["passed_if_equivalent"] = float(bool(solved[chosen]))
        return Score(metrics=metrics, answer=programs[chosen], notes=notes, slices=slices)

    @property
    def options(self) -> dict[str, Any]:
        """What decides how a chain goes; kept with it, so that it is not scored as another."""
        names = ("max_cycles", "max_description_tokens", "max_verdict_tokens")
        return {name: getattr(self, name) for name in names}

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return none."""
        return {}


@dataclass(kw_only=True)
class Cycle:
    """One chain: a program, its description, what differs, and again."""

    task: CyclePrompt
    sample: Sample
    caller: Caller
    sampling: Sampling
    number: int
    attempts: list[Attempt] = field(default_factory=list)

    async def completion(self) -> Completion:
        """Return the reply whose program is nearest to the task."""
        asked = request(problem_of(self.sample))
        hints: list[str] = []
        replies: list[Completion] = []
        ended = ALL_CYCLES
        for number in range(self.task.max_cycles + 1):
            try:
                reply = await write_program(
                    self.caller,
                    with_hints(asked, hints),
                    self.sampling,
                    step=f"program_{number}",
                    attempt=self.number,
                    before=replies[-1] if replies else None,
                )
                replies.append(reply)
                found, end = await self._hints(reply, number)
            except ContextOverflow:
                if not replies:
                    raise
                ended = CONTEXT_FULL
                break
            new = [hint for hint in found if hint not in hints]
            if end is not None or not new:
                ended = end or NO_NEW_HINT
                break
            hints += new
        drafts = [attempt for attempt in self.attempts if attempt.kind == "draft"]
        last = max(place for place, attempt in enumerate(self.attempts) if attempt.kind == "draft")
        self.attempts[last] = replace(drafts[-1], note={**drafts[-1].note, "ended": ended})
        tokens = sum(attempt.num_tokens for attempt in self.attempts)
        return replace(replies[nearest(drafts)], attempts=tuple(self.attempts), total_tokens=tokens)

    async def _hints(self, reply: Completion, number: int) -> tuple[Sequence[str], str | None]:
        """Note a program with its description and what differs; return the hints, and why the chain ends with it."""
        problem = problem_of(self.sample)
        opened = self.caller.capabilities.prefill
        program = program_of(reply.text, opened=opened, names=problem.names)
        readable = program is not None and bare_program(program) is not None
        note = {"opened": opened, "readable": readable, "size": None, "options": self.task.options}
        place = len(self.attempts)
        self.attempts.append(Attempt.of("draft", reply, note))
        if program is None or not readable:
            return [
                "The reply holds no program" if program is None else "The program is no valid Python"
            ], None
        description = await described(
            program,
            self.caller,
            number=number,
            attempt=self.number,
            max_tokens=self.task.max_description_tokens,
        )
        self.attempts.append(Attempt.of("description", description))
        before = len(self.caller.calls)
        difference, said = await compared(
            problem.text,
            description,
            self.caller,
            number=number,
            chain=self.number,
            max_tokens=self.task.max_verdict_tokens,
        )
        calls = self.caller.calls[before:]
        self.attempts.append(
            Attempt(
                kind="comparison",
                text="",
                finish_reason="stop",
                num_tokens=sum(call["num_tokens"] for call in calls),
                note={**said, "calls": len(calls)},
            )
        )
        if difference is None:
            return (), NO_VERDICT
        self.attempts[place] = replace(self.attempts[place], note={**note, "size": difference.size})
        return difference.hints, EQUIVALENT if difference.equivalent else None


def nearest(drafts: Sequence[Attempt]) -> int:
    """Return the place of the program whose description differs least from the task, the first of equals.

    One that nobody could compare is further away than any other, and what is no program further still.
    """
    notes = [draft.note for draft in drafts]
    return min(
        range(len(drafts)),
        key=lambda i: (
            not notes[i].get("readable"),
            notes[i].get("size") is None,
            notes[i].get("size") or 0,
            i,
        ),
    )


def _costs(attempts: Sequence[Attempt]) -> list[int]:
    """Return all tokens written until the next program was asked for, or the chain ended, for each program."""
    totals = running_sums([attempt.num_tokens for attempt in attempts])
    starts = [place for place, attempt in enumerate(attempts) if attempt.kind == "draft"]
    return [*(totals[place - 1] for place in starts[1:]), totals[-1]]


def configured(
    *,
    max_cycles: int = 3,
    max_description_tokens: int = 512,
    max_verdict_tokens: int = 512,
    allow_code_execution: bool = False,
    require_isolation: Isolation | None = None,
    test_seconds: float = 3.0,
) -> CyclePrompt:
    """Return the task of an entry of `tasks`.

    Args:
        max_cycles: programs after the first.
        max_description_tokens: of what is said of a program, a thinking part included; what is cut is not compared.
        max_verdict_tokens: of the comparison of a description with the task, a thinking part included.
        allow_code_execution: whether programs that the model wrote may be run, for the verdict.
        require_isolation: the weakest isolation that will do; None: the strongest there is.
        test_seconds: time of each test.

    Raises:
        ConfigError: an option means nothing, or no program may be run.
    """
    for name, value, least in (
        ("max_cycles", max_cycles, 0),
        ("max_description_tokens", max_description_tokens, 1),
        ("max_verdict_tokens", max_verdict_tokens, 1),
    ):
        if value < least:
            raise ConfigError(f"tasks: cycle_prompt.{name} is {value}: it must be at least {least}")
    return CyclePrompt(
        max_cycles=max_cycles,
        max_description_tokens=max_description_tokens,
        max_verdict_tokens=max_verdict_tokens,
        sandbox=shared_sandbox(allow_code_execution, require_isolation, Limits(seconds=test_seconds)),
        METRICS=(
            share("chosen"),
            share("first"),
            share("last"),
            share("regressed", higher_is_better=False),
            share("passed_if_equivalent"),
            Metric(name="num_calls", counter="-", higher_is_better=None, detail=True),
            Metric(name="ended_early", counter="-", higher_is_better=None, summary="proportion", detail=True),
            *(share(f"passed_round_{k}", detail=True, round_of=("passed", k)) for k in range(max_cycles + 1)),
            *(token_round("tokens", k) for k in range(max_cycles + 1)),
        ),
    )
