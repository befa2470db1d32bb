"""From the `scorers` and `judges` of a config to what will score: all checked before a model loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from evals.base import Metric, Task
from evals.scorers.base import Scorer
from lengthwise.config import ConfigError, build_component, component_name, result_affecting
from lengthwise.dry_run import LOCAL_ENGINES
from lengthwise.engines import build_engine
from lengthwise.engines.base import Engine
from lengthwise.judge import JudgeSettings, judge_id
from lengthwise.models import check_model
from lengthwise.plugins import load_plugin
from lengthwise.records import digest


@dataclass(frozen=True, kw_only=True)
class PlannedJudge:
    """A judge of a run."""

    settings: JudgeSettings
    engine: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What it is called; no other judge of the run is called so."""
        return self.settings.label

    def build(self) -> Engine:
        """Return its engine, nothing loaded.

        Raises:
            ConfigError: an unknown engine or option.
        """
        where = f"engine of the judge {self.label}"
        return build_engine(self.engine, self.settings.model, self.settings.adapter, where=where)


@dataclass(frozen=True, kw_only=True)
class PlannedScorer:
    """A scorer of a task, with the judge it asks; a scorer that several judges serve is planned once for each."""

    name: str
    scorer: Scorer
    config: Any
    judge: PlannedJudge | None
    judge_id: str
    """Empty without a judge."""
    metrics: tuple[Metric, ...]

    @property
    def key(self) -> str:
        """What its notes stand under in a row."""
        return self.metrics[0].name


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """The mean of several judges' values of one metric: over those who gave one, unscored if none did."""

    metric: Metric
    members: tuple[str, ...]
    """The metric's names, one for each judge."""


def plan_judges(entries: Sequence[Any], default_engine: Mapping[str, Any]) -> list[PlannedJudge]:
    """Return the judges that a config names.

    Raises:
        ConfigError: an entry is wrong, its engine or model is not to be had, or two share a name.
    """
    judges: list[PlannedJudge] = []
    for entry in entries:
        mapping = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"judges: {entry!r} is neither a model nor a map {{model, engine, name, ...}}")
        # A `name` in the map is the judge's own field, not a component's.
        settings = build_component(JudgeSettings, mapping, where="judges")
        engine = default_engine if settings.engine is None else settings.engine
        judge = PlannedJudge(settings=settings, engine=engine)
        if judge.label in [other.label for other in judges]:
            raise ConfigError(f"judges: two are called {judge.label!r}: give each a name")
        judge.build()
        if engine.get("name") in LOCAL_ENGINES:
            try:
                check_model(settings.model, settings.adapter)
            except ConfigError as error:
                raise ConfigError(f"judges: {judge.label}: {error}") from None
        judges.append(judge)
    return judges


def judges_as_served(entries: Sequence[Any], default_engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the verdicts of each judge beside its prompt and sampling, by its label.

    That is the model, and of its engine's options those that change a result, with the addresses of its servers.
    """
    found = {}
    for entry in entries:
        mapping = {"model": entry} if isinstance(entry, str) else entry
        settings = build_component(JudgeSettings, mapping, where="judges")
        spec = default_engine if settings.engine is None else settings.engine
        options: Any = getattr(PlannedJudge(settings=settings, engine=spec).build(), "config", None)
        decisive = {} if options is None else result_affecting(type(options), options)
        addresses = sorted(getattr(options, "base_urls", []))
        found[settings.label] = [settings.model, settings.adapter, spec.get("name"), decisive, addresses]
    return found


def plan_scorers(
    entries: Sequence[Any], judges: Sequence[PlannedJudge], task: Task, task_name: str
) -> list[PlannedScorer]:
    """Return the scorers of one task, those that need a judge once for each.

    Raises:
        ConfigError: an entry is wrong, lacks a judge, or measures what is measured already.
    """
    planned: list[PlannedScorer] = []
    taken = {metric.name for metric in task.METRICS}
    for entry in entries:
        found = plan_scorer(entry, judges, [metric.name for metric in task.METRICS])
        # One scorer's several judges may share what no judge has a part in.
        names = {metric.name for one in found for metric in one.metrics}
        if taken & names:
            raise ConfigError(
                f"scorers: {found[0].name} measures {min(taken & names)!r}, which {task_name} or another scorer "
                "measures already: take one of them out, or give them different names"
            )
        taken |= names
        planned += found
    return planned


def panels_of(scorers: Sequence[PlannedScorer]) -> list[Panel]:
    """Return the mean of each metric that several judges give.

    Its name holds the number of judges and a digest of who they are: other judges are another panel.
    """
    groups: dict[tuple[str, str, int], list[tuple[PlannedScorer, Metric]]] = {}
    for planned in scorers:
        for index, metric in enumerate(planned.metrics):
            if "@" in metric.name:
                groups.setdefault((planned.name, repr(planned.config), index), []).append((planned, metric))
    panels = []
    for members in groups.values():
        if len(members) > 1:
            ids = sorted(planned.judge_id for planned, _ in members)
            first = members[0][1]
            name = f"{first.name.partition('@')[0]}@panel{len(ids)}.{digest(ids)[:8]}"
            # A mean of 0s and 1s is no 0 or 1: it has no Wilson interval. Sums are each judge's own.
            is_mean = first.summary == "proportion" or bool(first.columns)
            metric = replace(first, name=name, summary="mean" if is_mean else first.summary, columns=())
            panels.append(Panel(metric=metric, members=tuple(metric.name for _, metric in members)))
    return panels


def metrics_of(scorers: Sequence[PlannedScorer], panels: Sequence[Panel]) -> list[Metric]:
    """Return what scorers and panels measure, each metric once."""
    found = {metric.name: metric for planned in scorers for metric in planned.metrics}
    return [*found.values(), *(panel.metric for panel in panels)]


def plan_scorer(
    entry: Any, judges: Sequence[PlannedJudge], task_metrics: Sequence[str]
) -> list[PlannedScorer]:
    """Return what one entry of `scorers` asks for: once, or once for each judge.

    Raises:
        ConfigError: the entry is wrong, or needs a judge and there is none.
    """
    mapping: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"scorers: {entry!r} is neither a name nor a map {{name, its options}}")
    name = component_name(mapping, where="scorers")
    scorer = cast(Scorer, load_plugin("evals.scorers", name, "NEEDS_JUDGE"))
    options = {key: value for key, value in mapping.items() if key != "name"}
    config = build_component(scorer.Config, options, where=f"scorers: {name}")
    if scorer.NEEDS_JUDGE and not judges:
        raise ConfigError(
            f"scorers: {name} needs a judge, and there is none: add judges: [{{model: ..., engine: {{...}}}}]"
        )
    served: Sequence[PlannedJudge | None] = judges if scorer.NEEDS_JUDGE else [None]
    found = []
    for judge in served:
        identity = "" if judge is None else judge_id(judge.label, scorer.prompts(config))
        metrics = scorer.metrics(config, identity, task_metrics)
        found.append(
            PlannedScorer(
                name=name, scorer=scorer, config=config, judge=judge, judge_id=identity, metrics=metrics
            )
        )
    return found
