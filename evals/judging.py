"""The second stage of an evaluation: scorers add their metrics to the samples files, judge by judge.

All replies are on disk and the model's engine is closed, since one device seldom holds model and judge. Each
judge's engine starts once for all tasks. A file is read row by row and its successor replaces it when the last row
is done; a run that is killed before makes its files anew from the journal, which holds the judges' calls too.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.base import Score
from evals.config import EvalConfig
from evals.plan import PlannedTask
from evals.scorer_plan import Panel, PlannedJudge, PlannedScorer
from evals.scorers.base import Reply
from lengthwise.budget import LimitReached, Meter
from lengthwise.caller import Caller
from lengthwise.engines import started
from lengthwise.engines.base import Engine
from lengthwise.journal import Journal
from lengthwise.judge import Judge
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample
from lengthwise.response_cache import ResponseCache
from lengthwise.workflow import run_samples


@dataclass(kw_only=True)
class JudgeUse:
    """What became of one judge in a run, for its results file."""

    model: str
    adapter: str | None
    engine: str
    temperature: float
    max_attempts: int
    identity: str
    """Digest of the weights that judged."""
    num_calls: int = 0
    """Calls of all starts and of a rescored run, failed attempts included."""
    completion_tokens: int = 0
    prompts: dict[str, str] = field(default_factory=dict)
    """Version of each prompt it was asked with."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the second stage works with."""

    config: EvalConfig
    journal: Journal
    meter: Meter
    cache: ResponseCache | None = None


async def add_scores(
    stage: Stage, plan: Sequence[PlannedTask], file_of: Callable[[PlannedTask], Path]
) -> dict[str, JudgeUse]:
    """Add what the scorers of each task measure to its samples file; return what the judges did, by label.

    Raises:
        LimitReached: saying how far the judging got.
        EngineError: a judge's engine does not start, or is gone.
    """
    uses: dict[str, JudgeUse] = {}
    judges = {s.judge.label: s.judge for planned in plan for s in planned.scorers if s.judge is not None}
    for judge in (None, *judges.values()):
        todo = [(p, [s for s in p.scorers if s.judge == judge]) for p in plan]
        async with _engine_of(judge) as engine:
            if judge is not None and engine is not None:
                uses[judge.label] = _use(judge, engine)
            for planned, scorers in todo:
                if scorers:
                    await _score_file(
                        stage,
                        planned,
                        scorers,
                        engine,
                        uses.get(judge.label if judge else ""),
                        file_of(planned),
                    )
    for planned in plan:
        if planned.panels:
            _add_panels(file_of(planned), planned.panels)
    return uses


@asynccontextmanager
async def _engine_of(judge: PlannedJudge | None) -> AsyncIterator[Engine | None]:
    if judge is None:
        yield None
        return
    async with started(judge.build()) as engine:
        yield engine


def _use(judge: PlannedJudge, engine: Engine) -> JudgeUse:
    settings = judge.settings
    return JudgeUse(
        model=settings.model,
        adapter=settings.adapter,
        engine=str(judge.engine.get("name")),
        temperature=settings.temperature,
        max_attempts=settings.max_attempts,
        identity=engine.weights_identity(),
    )


async def _score_file(
    stage: Stage,
    planned: PlannedTask,
    scorers: Sequence[PlannedScorer],
    engine: Engine | None,
    use: JudgeUse | None,
    file: Path,
) -> None:
    """Run some scorers, those without a judge or all of one judge, on a task's rows, in order."""
    samples = {sample.id: sample for sample in planned.samples}
    num_rows, num_done = sum(1 for _ in _rows(file)), 0
    for scorer in scorers:
        if use is not None:
            use.prompts |= {prompt.name: prompt.version for prompt in scorer.scorer.prompts(scorer.config)}

    async def worker(item: Sample) -> Outcome:
        reply = _reply(planned, samples[item.metadata["id"]], item.metadata)
        found = {}
        for scorer in scorers:
            judge = None if engine is None else _judge(stage, scorer, engine, reply)
            found[scorer.key] = await scorer.scorer.score(scorer.config, reply, judge)
            if judge is not None and use is not None:
                use.num_calls += judge.num_calls
                use.completion_tokens += sum(call["completion_tokens"] for call in judge.caller.calls)
        return Kept(with_scores(item.metadata, found))

    with _successor(file) as write:

        def take(item: Sample, outcome: Outcome) -> None:
            nonlocal num_done
            num_done += 1
            write(
                outcome.record
                if isinstance(outcome, Kept)
                else _unscored_row(item.metadata, scorers, outcome)
            )

        try:
            await run_samples(
                (
                    Sample(id=f"{r['id']}/{r['completion_index']}", messages=(), metadata=r)
                    for r in _rows(file)
                ),
                worker,
                max_concurrent_samples=stage.config.max_concurrent_samples,
                label=planned.name
                if engine is None
                else f"{planned.name}, judged by {scorers[0].judge.label if scorers[0].judge else ''}",
                on_outcome=take,
                total=num_rows,
                meter=stage.meter,
            )
        except LimitReached as limit:
            limit.how_far = f"All replies are there; {num_done} of {num_rows} of {planned.name} are scored."
            raise


def _reply(planned: PlannedTask, sample: Sample, row: Mapping[str, Any]) -> Reply:
    return Reply(
        task=planned.name,
        sample=sample,
        prompt=planned.task.prompt(sample),
        index=row["completion_index"],
        text=row["resps"][0],
        finish_reason=row["finish_reason"],
        metrics=row["metrics"],
    )


def _judge(stage: Stage, scorer: PlannedScorer, engine: Engine, reply: Reply) -> Judge:
    assert scorer.judge is not None
    caller = Caller(
        engine=engine,
        journal=stage.journal,
        sample_id=f"{reply.task}/{reply.sample.id}/{reply.index}",
        run_seed=stage.config.seed,
        role=f"judge:{scorer.judge.label}",
        meter=stage.meter,
        cache=stage.cache,
        timeout_seconds=scorer.judge.settings.timeout_seconds,
    )
    return Judge(id=scorer.judge_id, settings=scorer.judge.settings, caller=caller)


def with_scores(row: Mapping[str, Any], scores: Mapping[str, Score]) -> dict[str, Any]:
    """Return a row with what scorers found; their notes stand under the given keys.

    Example:
        >>> row = {"metrics": {"s_l": 80.0}, "unscored": {}, "notes": {}}
        >>> with_scores(row, {"s_q@j": Score(metrics={}, unscored={"s_q@j": "malformed"})})
        {'metrics': {'s_l': 80.0}, 'unscored': {'s_q@j': 'malformed'}, 'notes': {}}
    """
    metrics, unscored, notes = dict(row["metrics"]), dict(row["unscored"]), dict(row["notes"])
    for key, score in scores.items():
        metrics |= score.metrics
        unscored |= score.unscored
        if score.notes:
            notes[key] = dict(score.notes)
    return {**row, "metrics": metrics, "unscored": unscored, "notes": notes}


def _unscored_row(
    row: Mapping[str, Any], scorers: Sequence[PlannedScorer], outcome: Outcome
) -> dict[str, Any]:
    """Return a row whose scorers failed for a reason of an engine's that is none of the judge's call."""
    reason = outcome.reason or outcome.end
    names = [metric.name for scorer in scorers for metric in scorer.metrics]
    failed = Score(metrics={}, unscored=dict.fromkeys(names, reason), notes=outcome.record)
    return with_scores(row, {scorers[0].key: failed})


def with_panels(row: Mapping[str, Any], panels: Sequence[Panel]) -> dict[str, Any]:
    """Return a row with the mean of the judges that gave a value; what none gave is unscored."""
    metrics, unscored = dict(row["metrics"]), dict(row["unscored"])
    for panel in panels:
        values = [metrics[name] for name in panel.members if name in metrics]
        if values:
            metrics[panel.metric.name] = sum(values) / len(values)
        elif any(name in unscored for name in panel.members):
            unscored[panel.metric.name] = "no judge of the panel gave a score"
    return {**row, "metrics": metrics, "unscored": unscored}


def _add_panels(file: Path, panels: Sequence[Panel]) -> None:
    with _successor(file) as write:
        for row in _rows(file):
            write(with_panels(row, panels))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@contextmanager
def _successor(file: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give what takes the rows of a file's next version, which replaces it if the block ends well."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
