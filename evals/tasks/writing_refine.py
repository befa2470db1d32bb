"""Do texts get better when a model revises its own? Draft, critique, revision, on any writing task (`writing_loop`).

`{name: writing_refine, task: longbench_write, rounds: 2}` asks the prompts of that task, lets the model revise each
text `rounds` times, and scores every draft as that task would:

- each metric of the task is that of the last text; `<metric>_round_K` that of the text after K revisions. The results
  have the curve, each round's paired gain over the first draft, and how many texts got better and worse.
- `tokens_round_K`: all tokens written until then, critiques included, that of a revision which was not written too.
- `independent_round_K`: the best, by the task's first metric with a direction, of the independent drafts that
  `tokens_round_K` pays for, the first draft among them, one that was begun within it counted whole. It is chosen by
  that metric, which for a length anybody can: what revising gains beyond that is more than luck. There is none under
  greedy decoding, where all drafts are one; and no more than `max_independent` drafts are written.
- `ended_early`: chains that ended since the context had no room for a text as long as the last, or a text or critique
  was empty.

Tasks that score one text by itself can be revised: not those that open the reply, stop it, ask in a way of their own,
or pool over documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from evals.base import Metric, Score, Task
from evals.plan import task_options
from evals.rounds import INDEPENDENT, curve_metrics, running_sums, token_round
from evals.sources import Entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import Attempt, Completion, Prompt, Sample
from lengthwise.refinement.writing_loop import CRITIQUE_TOKENS, revisions

METRICS: tuple[Metric, ...] = ()
"""Those of the task that is named: see `configured`."""


OWN_VERSION = 1
"""Goes up when the loop or its prompts change; the inner task's version stands behind it."""


@dataclass(kw_only=True)
class WritingRefine:
    """A writing task whose texts are revised."""

    task: Task
    rounds: int
    counted: bool
    max_independent: int
    critique_tokens: int
    inner_options: Mapping[str, Any]
    LABEL: str
    METRICS: tuple[Metric, ...]
    lead: Metric | None
    """The metric by which independent drafts are chosen; None: no drafts are made beside a chain."""
    VERSION: int = field(init=False)
    TEMPERATURE: float = field(init=False)
    MAX_TOKENS: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Take over what the run asks a task for."""
        self.VERSION = 1000 * OWN_VERSION + self.task.VERSION
        self.TEMPERATURE, self.MAX_TOKENS = self.task.TEMPERATURE, self.task.MAX_TOKENS

    def __getattr__(self, name: str) -> Any:
        """Return what else the task has: where its data are, its clusters."""
        if name in ("DATA_FILE", "HUB", "PROMPTS", "cluster", "read_target", "source"):
            return getattr(self.__dict__["task"], name)
        raise AttributeError(name)

    def load(self, source: str | None, *, draw_seed: int = 0) -> list[Entry]:
        """Return the task's samples.

        Raises:
            ConfigError: the task opens the replies.
        """
        entries = self.task.load(source, draw_seed=draw_seed, **self.inner_options)
        first = next((e for e in entries if isinstance(e, Sample)), None)
        if first is not None and self.task.prompt(first)[-1].role != "user":
            raise ConfigError(
                f"tasks: {self.LABEL} would revise replies that the task itself opens: name another task or options"
            )
        return entries

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
        noted = {"options": self.options, "independent": self._is_compared(sampling)}
        async for revision in revisions(
            prompt,
            caller,
            sampling,
            rounds=self.rounds,
            target=sample.length,
            counted=self.counted,
            critique_tokens=self.critique_tokens,
            attempt=number,
        ):
            if revision.critique is not None:
                attempts.append(Attempt.of("critique", revision.critique))
            if revision.text is not None:
                last = revision.text
                attempts.append(Attempt.of("draft", last, {} if attempts else noted))
        assert last is not None, "there is always a first draft"
        spent = sum(attempt.num_tokens for attempt in attempts)
        alone = await self._alone(prompt, caller, sampling, number, spent - attempts[0].num_tokens)
        return replace(last, attempts=(*attempts, *alone), total_tokens=spent)

    async def _alone(
        self, prompt: Prompt, caller: Caller, sampling: Sampling, number: int, budget: int
    ) -> list[Attempt]:
        """Return the independent drafts that are begun within a budget of tokens."""
        found: list[Attempt] = []
        if not self._is_compared(sampling):
            return found
        while budget > 0 and len(found) < self.max_independent:
            (reply,) = await caller(
                prompt, replace(sampling, n=1), step=f"independent_{len(found) + 1}", attempt=number
            )
            budget -= max(1, reply.num_tokens)
            found.append(Attempt.of("independent", reply, {"temperature": sampling.temperature}))
        return found

    def _is_compared(self, sampling: Sampling) -> bool:
        """Tell whether independent drafts are made beside a chain."""
        return self.lead is not None and sampling.temperature != 0

    @property
    def options(self) -> dict[str, Any]:
        """What decides how a chain goes, as JSON has it; kept with it, so that it is not scored as another."""
        names = ("rounds", "counted", "max_independent", "critique_tokens")
        found = {**{name: getattr(self, name) for name in names}, "inner": dict(self.inner_options)}
        return json.loads(json.dumps(found))

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
        options = drafts[0].note.get("options", self.options)
        if options != self.options:
            fault = f"written under other options: {options}"
            return Score(metrics={}, unscored={m.name: fault for m in self.METRICS}, answer=text)
        each = [self._metrics(sample, draft) for draft in drafts]
        costs = _costs([attempt for attempt in attempts if attempt.kind != "independent"])
        early = "options" in drafts[0].note and len(drafts) <= self.rounds
        found = {**score.metrics, "ended_early": float(early), **curve_metrics("tokens", costs, self.rounds)}
        for metric in self.task.METRICS:
            if all(metric.name in metrics for metrics in each):
                found |= curve_metrics(metric.name, [m[metric.name] for m in each], self.rounds)
        best = self._independent(sample, attempts, costs)
        if best:
            found |= curve_metrics("independent", best, self.rounds)
        return replace(score, metrics=found)

    def _independent(self, sample: Sample, attempts: Sequence[Attempt], costs: Sequence[int]) -> list[float]:
        """Return the best value of the independent drafts that are begun within each round's tokens; [] without any."""
        first = attempts[0]
        if self.lead is None or not first.note.get("independent"):
            return []
        tries = [first, *(a for a in attempts if a.kind == "independent")]
        values = [self._metrics(sample, attempt).get(self.lead.name) for attempt in tries]
        # The first draft is paid for before a chain goes on, whatever it cost.
        begins = [-1, *running_sums([attempt.num_tokens for attempt in tries])[:-1]]
        pick = max if self.lead.higher_is_better else min
        found = []
        for cost in costs:
            paid = [v for v, begin in zip(values, begins, strict=True) if begin < cost and v is not None]
            if not paid:
                return []
            found.append(pick(paid))
        return found

    def _metrics(self, sample: Sample, attempt: Attempt) -> Mapping[str, float]:
        given = self.task.score(sample, attempt.text, attempt.finish_reason)
        return given.metrics if isinstance(given, Score) else given

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return the task's groups."""
        return self.task.slices(sample)


def _costs(chain: Sequence[Attempt]) -> list[int]:
    """Return all tokens written until each draft, and until the end where a critique led to none."""
    totals = running_sums([attempt.num_tokens for attempt in chain])
    costs = [cost for cost, attempt in zip(totals, chain, strict=True) if attempt.kind == "draft"]
    return costs if chain[-1].kind == "draft" else [*costs, totals[-1]]


def configured(
    *,
    task: str = "longbench_write",
    rounds: int = 2,
    counted: bool = False,
    max_independent: int = 8,
    critique_tokens: int = CRITIQUE_TOKENS,
    options: dict[str, Any] | None = None,
) -> WritingRefine:
    """Return the task of an entry of `tasks`.

    Args:
        task: the writing task whose prompts and scores are taken: a name or a file.
        rounds: revisions of each text.
        counted: whether critique and revision are told how many words the text has.
        max_independent: most independent drafts beside a chain; 0: none.
        critique_tokens: most tokens of a critique, a thinking part included.
        options: of that task.

    Raises:
        ConfigError: an option means nothing, or the task is none whose texts can be revised.
    """
    for name, value, least in (
        ("rounds", rounds, 1),
        ("max_independent", max_independent, 0),
        ("critique_tokens", critique_tokens, 1),
    ):
        if value < least:
            raise ConfigError(f"tasks: writing_refine.{name} is {value}: it must be at least {least}")
    inner: Any = load_plugin("evals.tasks", task, wanted="METRICS")
    special = [n for n in ("configured", "ask", "SAMPLING", "REQUIRES", "score_tokens") if hasattr(inner, n)]
    if special or any(metric.columns for metric in inner.METRICS):
        raise ConfigError(
            f"tasks: writing_refine.task is {task!r}, which does more than score one text: name a task such as "
            "longbench_write or longen"
        )
    known = task_options(cast(Callable[..., Any], inner.load), options or {}, task)
    directed = [metric for metric in inner.METRICS if metric.higher_is_better is not None]
    lead = directed[0] if directed and max_independent else None
    metrics: list[Metric] = [replace(metric, pass_at_k=False) for metric in inner.METRICS]
    metrics.append(
        Metric(name="ended_early", counter="-", higher_is_better=None, summary="proportion", detail=True)
    )
    for metric in inner.METRICS:
        metrics += [_of_round(metric, metric.name, k) for k in range(rounds + 1)]
    if lead is not None:
        metrics += [_of_round(lead, INDEPENDENT, k) for k in range(rounds + 1)]
    return WritingRefine(
        task=cast(Task, inner),
        rounds=rounds,
        counted=counted,
        max_independent=max_independent,
        critique_tokens=critique_tokens,
        inner_options=known,
        LABEL=f"writing_refine_{plugin_label(task)}",
        METRICS=(*metrics, *(token_round("tokens", k) for k in range(rounds + 1))),
        lead=lead,
    )


def _of_round(metric: Metric, name: str, number: int) -> Metric:
    return replace(
        metric,
        name=f"{name}_round_{number}",
        pass_at_k=False,
        detail=True,
        part_of=None,
        round_of=(name, number),
    )
