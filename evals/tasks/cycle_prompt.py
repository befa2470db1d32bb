"""Does a model mend its programs when it reads back what they do? CyclePrompt's evaluation (see `code_cycle`).

The model writes a program (greedily), describes the program without seeing the task, and compares its description with
the task; each difference is a hint for the next program, up to `max_cycles` times. No test is run on the way. A chain
ends where both say the same, where no new hint comes, or where no comparison can be read. What is returned is the
program whose description is nearest to the task, the first of equals, and not blindly the last. Hidden tests give the
verdict on every program afterwards:

- `first`, `chosen`, `last`: the share solved by that program; `regressed`: first right, and the chosen one not.
- `passed_round_K`, `tokens_round_K`: the share solved by the program of cycle K, and all tokens written until then.
- `num_calls`: calls of a problem.
- `passed_if_equivalent`: of the chains whose chosen program was called equivalent, the share that is right: how far the
  model's own verdict can stand for tests (`data_builders/consistent_code.py` does so).

Sources and sandbox are as for `code_refine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.base import Metric, Score
from evals.programs import LEAST_ROOM, code_sample, hidden_verdict, problem_of, room_for, write_program
from evals.rounds import curve_metrics, running_sums, share, token_round
from evals.sources import Entry, read_samples
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.records import Attempt, Completion, Prompt, Sample
from lengthwise.refinement.code_cycle import compared, described, with_hints
from lengthwise.refinement.code_repair import program_of, request
from lengthwise.sandbox.code_tests import Sandbox, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits

METRICS: tuple[Metric, ...] = ()
"""They depend on the number of cycles: see `configured`."""


@dataclass(kw_only=True)
class CyclePrompt:
    """The task with its options."""

    max_cycles: int
    sandbox: Sandbox
    METRICS: tuple[Metric, ...]
    LABEL: str = "cycle_prompt"
    VERSION: int = 1
    TEMPERATURE: float = 0.0
    MAX_TOKENS: int | None = 512
    DATA_FILE: str = "humaneval.jsonl"
    HUB: str = "openai/openai_humaneval:test"

    def load(self, source: str | None, *, draw_seed: int = 0) -> list[Entry]:
        """Return the problem of each row; `draw_seed` is not used.

        Raises:
            ConfigError: the data is not there, or the whole of it is unreadable.
        """
        return read_samples(source, code_sample)

    def prompt(self, sample: Sample) -> Prompt:
        """Return the request for the first program."""
        return request(problem_of(sample)).prompt

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Return the chosen program of each of `sampling.n` chains, with all that led to it.

        Raises:
            EngineError: the engine has no answer.
        """
        found = []
        for number in range(sampling.n):
            cycle = Cycle(sample=sample, caller=caller, sampling=replace(sampling, n=1), number=number)
            found.append(await cycle.completion(self.max_cycles))
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
        tested = [hidden_verdict(self.sandbox, problem, program_of(d.text, opened=opened)) for d in drafts]
        solved = [passed for passed, _ in tested]
        outcomes = [outcome for _, outcome in tested]
        notes = {"outcomes": outcomes, "isolation": self.sandbox.isolation}
        chosen = nearest(drafts)
        slices = {"first_outcome": outcomes[0], "chosen_outcome": outcomes[chosen]}
        if None in solved:
            reasons = {m.name: "the sandbox failed" for m in self.METRICS if "tokens" not in m.name}
            return Score(metrics={}, unscored=reasons, notes=notes, slices=slices)
        metrics = {
            "first": float(bool(solved[0])),
            "chosen": float(bool(solved[chosen])),
            "last": float(bool(solved[-1])),
            "regressed": float(bool(solved[0] and not solved[chosen])),
            "num_calls": float(sum(attempt.note.get("calls", 1) for attempt in attempts)),
            **curve_metrics("passed", solved, self.max_cycles),
            **curve_metrics("tokens", _costs(attempts), self.max_cycles),
        }
        if drafts[chosen].note.get("size") == 0:
            metrics["passed_if_equivalent"] = float(bool(solved[chosen]))
        return Score(metrics=metrics, answer=program_of(text, opened=opened), notes=notes, slices=slices)

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return none."""
        return {}


@dataclass(kw_only=True)
class Cycle:
    """One chain: a program, its description, what differs, and again."""

    sample: Sample
    caller: Caller
    sampling: Sampling
    number: int
    attempts: list[Attempt] = field(default_factory=list)

    async def completion(self, max_cycles: int) -> Completion:
        """Return the reply whose program is nearest to the task."""
        asked = request(problem_of(self.sample)).prompt
        hints: list[str] = []
        replies: list[Completion] = []
        for number in range(max_cycles + 1):
            prompt = with_hints(asked, hints)
            if replies and room_for(self.caller, prompt) < LEAST_ROOM:
                break
            reply = await write_program(
                self.caller, prompt, self.sampling, step=f"program_{number}", attempt=self.number
            )
            replies.append(reply)
            new = [hint for hint in await self._hints(reply, number) if hint not in hints]
            if not new:
                break
            hints += new
        drafts = [attempt for attempt in self.attempts if attempt.kind == "draft"]
        tokens = sum(attempt.num_tokens for attempt in self.attempts)
        return replace(replies[nearest(drafts)], num_tokens=tokens, attempts=tuple(self.attempts))

    async def _hints(self, reply: Completion, number: int) -> Sequence[str]:
        """Note a program with its description and what differs, and return the hints; none ends the chain."""
        opened = self.caller.capabilities.prefill
        program = program_of(reply.text, opened=opened)
        if program is None:
            self._note(reply, {"opened": opened, "size": None})
            return ["It lacks what was asked: the reply holds no program"]
        description = await described(program, self.caller, number=number, attempt=self.number)
        before = len(self.caller.calls)
        task = problem_of(self.sample).text
        difference, note = await compared(
            task, description.text, self.caller, number=number, chain=self.number
        )
        spent = sum(_tokens_of(call) for call in self.caller.calls[before:])
        size = None if difference is None else difference.size
        self._note(reply, {"opened": opened, "size": size})
        self.attempts.append(Attempt.of("description", description))
        calls = len(self.caller.calls) - before
        self.attempts.append(
            Attempt(
                kind="comparison",
                text="",
                finish_reason="stop",
                num_tokens=spent,
                note={**note, "calls": calls},
            )
        )
        return () if difference is None else difference.hints

    def _note(self, reply: Completion, note: dict[str, Any]) -> None:
        self.attempts.append(Attempt.of("draft", reply, note))


def nearest(drafts: Sequence[Attempt]) -> int:
    """Return the place of the program whose description differs least from the task, the first of equals.

    One that nobody could compare is further away than any other.
    """
    sizes = [draft.note.get("size") for draft in drafts]
    return min(range(len(drafts)), key=lambda i: (sizes[i] is None, sizes[i] or 0, i))


def _costs(attempts: Sequence[Attempt]) -> list[int]:
    """Return all tokens written until each program stood, what was read back of the ones before included."""
    costs = running_sums([attempt.num_tokens for attempt in attempts])
    return [cost for cost, attempt in zip(costs, attempts, strict=True) if attempt.kind == "draft"]


def _tokens_of(call: Any) -> int:
    return int(call.get("completion_tokens") or 0)


def configured(
    *,
    max_cycles: int = 3,
    allow_code_execution: bool = False,
    require_isolation: Isolation | None = None,
    test_seconds: float = 3.0,
) -> CyclePrompt:
    """Return the task of an entry of `tasks`.

    Args:
        max_cycles: programs after the first.
        allow_code_execution: whether programs that the model wrote may be run, for the verdict.
        require_isolation: the weakest isolation that will do; None: the strongest there is.
        test_seconds: time of each test.

    Raises:
        ConfigError: an option means nothing, or no program may be run.
    """
    if max_cycles < 0:
        raise ConfigError(f"tasks: cycle_prompt.max_cycles is {max_cycles}: it must be at least 0")
    return CyclePrompt(
        max_cycles=max_cycles,
        sandbox=shared_sandbox(allow_code_execution, require_isolation, Limits(seconds=test_seconds)),
        METRICS=(
            share("chosen"),
            share("first"),
            share("last"),
            share("regressed", higher_is_better=False),
            share("passed_if_equivalent"),
            Metric(name="num_calls", counter="-", higher_is_better=None),
            *(share(f"passed_round_{k}", detail=True, round_of=("passed", k)) for k in range(max_cycles + 1)),
            *(token_round("tokens", k) for k in range(max_cycles + 1)),
        ),
    )
