"""Do texts get better when a model revises its own? Draft, critique, revision, on any writing task (`writing_loop`).

`{name: writing_refine, task: longbench_write, rounds: 2}` asks the prompts of that task, lets the model revise each
text `rounds` times, and scores every draft as that task would:

- each metric of the task is that of the last text; `<metric>_round_K` that of the text after K revisions. The results
  have the curve, each round's paired gain over the first draft, and how many texts got better and worse.
- `tokens_round_K`: all tokens written until then, critiques included.
- `independent_round_K`: the best, by the task's first metric, of as many independent drafts as `tokens_round_K` pays
  for, the first draft among them. It is chosen by that metric, which for a length anybody can: what revising gains
  beyond that is more than luck.

A text is taken as the model wrote it; a chain whose context is full keeps its last text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from evals.base import Metric, Score, Task
from evals.plan import task_options
from evals.rounds import curve_metrics, running_sums, token_round
from evals.sources import Entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import Attempt, Completion, Prompt, Sample
from lengthwise.refinement.writing_loop import revisions

METRICS: tuple[Metric, ...] = ()
"""Those of the task that is named: see `configured`."""


@dataclass(kw_only=True)
class WritingRefine:
    """A writing task whose texts are revised."""

    task: Task
    rounds: int
    counted: bool
    equal_budget: bool
    options: Mapping[str, Any]
    LABEL: str
    METRICS: tuple[Metric, ...]
    VERSION: int = field(init=False)
    TEMPERATURE: float = field(init=False)
    MAX_TOKENS: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Take over what the run asks a task for."""
        self.VERSION, self.TEMPERATURE, self.MAX_TOKENS = (
            self.task.VERSION,
            self.task.TEMPERATURE,
            self.task.MAX_TOKENS,
        )

    def __getattr__(self, name: str) -> Any:
        """Return what else the task has: where its data are, its clusters."""
        if name in ("DATA_FILE", "HUB", "PROMPTS", "cluster", "read_target"):
            return getattr(self.__dict__["task"], name)
        raise AttributeError(name)

    def load(self, source: str | None, *, draw_seed: int = 0) -> list[Entry]:
        """Return the task's samples."""
        return self.task.load(source, draw_seed=draw_seed, **self.options)

    def prompt(self, sample: Sample) -> Prompt:
        """Return what the task asks."""
        return self.task.prompt(sample)

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Return the last text of each of `sampling.n` chains, with what led to it.

        Raises:
            EngineError: the engine has no answer.
        """
        return [await self._chain(sample, caller, sampling, number) for number in range(sampling.n)]

    async def _chain(self, sample: Sample, caller: Caller, sampling: Sampling, number: int) -> Completion:
        prompt = self.task.prompt(sample)
        attempts: list[Attempt] = []
        last: Completion | None = None
        async for revision in revisions(
            prompt,
            caller,
            sampling,
            rounds=self.rounds,
            target=sample.length,
            counted=self.counted,
            attempt=number,
        ):
            if revision.critique is not None:
                attempts.append(Attempt.of("critique", revision.critique))
            last = revision.text
            attempts.append(Attempt.of("draft", last))
        assert last is not None, "there is always a first draft"
        spent = sum(attempt.num_tokens for attempt in attempts)
        alone: list[Attempt] = []
        budget = spent - attempts[0].num_tokens
        while self.equal_budget and budget > 0 and len(alone) < 2 * self.rounds:
            (reply,) = await caller(
                prompt, replace(sampling, n=1), step=f"independent_{len(alone) + 1}", attempt=number
            )
            budget -= reply.num_tokens
            alone.append(Attempt.of("independent", reply))
        return replace(last, num_tokens=spent, attempts=(*attempts, *alone))

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return what the task gives a text that nothing led to."""
        alone = Attempt(kind="draft", text=text, finish_reason="stop", num_tokens=0)
        return self.score_attempts(sample, text, finish_reason, (alone,))

    def score_attempts(
        self, sample: Sample, text: str, finish_reason: str | None, attempts: Sequence[Attempt]
    ) -> Score:
        """Return what the task gives the last text and the text of each round."""
        given = self.task.score(sample, text, finish_reason)
        score = given if isinstance(given, Score) else Score(metrics=given, answer=text)
        drafts = [attempt for attempt in attempts if attempt.kind == "draft"]
        each = [self._metrics(sample, draft) for draft in drafts]
        costs = [
            cost
            for cost, attempt in zip(running_sums([a.num_tokens for a in attempts]), attempts, strict=True)
            if attempt.kind == "draft"
        ]
        found = dict(score.metrics)
        for metric in self.task.METRICS:
            if all(metric.name in metrics for metrics in each):
                found |= curve_metrics(metric.name, [m[metric.name] for m in each], self.rounds)
        found |= curve_metrics("tokens", costs, self.rounds)
        if self.equal_budget:
            best = self._independent(sample, attempts, costs)
            if best is not None:
                found |= curve_metrics("independent", best, self.rounds)
        return replace(score, metrics=found)

    def _independent(
        self, sample: Sample, attempts: Sequence[Attempt], costs: Sequence[int]
    ) -> list[float] | None:
        """Return the best first metric of the independent drafts that each round's tokens pay for."""
        metric = self.task.METRICS[0]
        tries = [next(a for a in attempts if a.kind == "draft")]
        tries += [a for a in attempts if a.kind == "independent"]
        values = [self._metrics(sample, attempt).get(metric.name) for attempt in tries]
        prices = running_sums([attempt.num_tokens for attempt in tries])
        pick = max if metric.higher_is_better is not False else min
        found = []
        for cost in costs:
            paid = [v for v, price in zip(values, prices, strict=True) if price <= cost and v is not None]
            if not paid:
                return None
            found.append(pick(paid))
        return found

    def _metrics(self, sample: Sample, attempt: Attempt) -> Mapping[str, float]:
        given = self.task.score(sample, attempt.text, attempt.finish_reason)
        return given.metrics if isinstance(given, Score) else given

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return the task's groups."""
        return self.task.slices(sample)


def configured(
    *,
    task: str = "longbench_write",
    rounds: int = 2,
    counted: bool = False,
    equal_budget: bool = True,
    options: dict[str, Any] | None = None,
) -> WritingRefine:
    """Return the task of an entry of `tasks`.

    Args:
        task: the writing task whose prompts and scores are taken: a name or a file.
        rounds: revisions of each text.
        counted: whether critique and revision are told how many words the text has.
        equal_budget: whether to write independent drafts for as many tokens as each chain took.
        options: of that task.

    Raises:
        ConfigError: an option means nothing, or the task is none whose texts can be revised.
    """
    if rounds < 1:
        raise ConfigError(f"tasks: writing_refine.rounds is {rounds}: it must be at least 1")
    inner: Any = load_plugin("evals.tasks", task, wanted="METRICS")
    if getattr(inner, "configured", None) or getattr(inner, "ask", None):
        raise ConfigError(
            f"tasks: writing_refine.task is {task!r}, which asks the model in a way of its own: name a task that "
            "scores one text, such as longbench_write, longen or tlg"
        )
    known = task_options(cast(Callable[..., Any], inner.load), options or {}, task)
    metrics: list[Metric] = [replace(metric, pass_at_k=False) for metric in inner.METRICS]
    for metric in inner.METRICS:
        metrics += [_of_round(metric, metric.name, k) for k in range(rounds + 1)]
    if equal_budget:
        metrics += [_of_round(inner.METRICS[0], "independent", k) for k in range(rounds + 1)]
    return WritingRefine(
        task=cast(Task, inner),
        rounds=rounds,
        counted=counted,
        equal_budget=equal_budget,
        options=known,
        LABEL=f"writing_refine_{plugin_label(task)}",
        METRICS=(*metrics, *(token_round("tokens", k) for k in range(rounds + 1))),
    )


def _of_round(metric: Metric, name: str, number: int) -> Metric:
    return replace(
        metric, name=f"{name}_round_{number}", pass_at_k=False, detail=True, round_of=(name, number)
    )
