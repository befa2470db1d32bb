"""One model's evaluation: what it holds while it is under way, and the files it leaves at its end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from evals.config import EvalConfig
from evals.first_look import FirstLook
from evals.judging import JudgeUse
from evals.plan import PlannedTask
from evals.published import differences, published, run_settings
from evals.results import Tally, results_document, summarise
from evals.results_table import format_table, warnings_of
from evals.sources import doc_of
from lengthwise.budget import Meter
from lengthwise.config import config_to_dict
from lengthwise.files import atomic_write
from lengthwise.journal import Journal
from lengthwise.models import run_of_model
from lengthwise.plugins import plugin_label
from lengthwise.records import digest
from lengthwise.response_cache import ResponseCache
from lengthwise.run_dir import RunDir


@dataclass(kw_only=True)
class Measurement:
    """One model's evaluation under way."""

    config: EvalConfig
    plan: Sequence[PlannedTask]
    run: RunDir
    journal: Journal
    meter: Meter
    cache: ResponseCache | None
    started: float = field(default_factory=time.monotonic)
    model_identity: str = ""
    first_look: FirstLook = field(default_factory=FirstLook)
    generation_seconds: float = 0.0
    """Time the tasks took, without the start of the engine."""
    judges: dict[str, JudgeUse] = field(default_factory=dict)
    """What the judges did, by label."""

    def samples_file(self, planned: PlannedTask) -> Path:
        """Return where a task's rows go."""
        return self.run.file(f"samples_{planned.name}_{self.stamp}.jsonl")

    @property
    def stamp(self) -> str:
        """When the run was first started: a resumed run writes the same files."""
        return self.run.created[:19].replace(":", "-")


def finish(m: Measurement) -> None:
    """Sum up the rows, write results and manifest, print the table."""
    summaries = {planned.name: summarise(planned.measured, _tally(m, planned)) for planned in m.plan}
    results = m.run.file(f"results_{m.stamp}.json")
    document = _document(m, summaries)
    atomic_write(results, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    num_scored = sum(summary["counts"]["scored"] for summary in summaries.values())
    cost = m.meter.cost_dict(num_scored)
    config = m.config
    read = [run_of_model(config.model), run_of_model(config.adapter)]
    read += [run_of_model(spec) for spec in (config.rescore, *(p.source.run_folder for p in m.plan))]
    m.run.finish(
        seed=config.seed,
        inputs={item.path: item for planned in m.plan for item in planned.inputs}.values(),
        outputs=[results, *map(m.samples_file, m.plan), m.run.file("dropped.jsonl")],
        parents=dict.fromkeys(run for run in read if run is not None),
        counts={name: summary["counts"] for name, summary in summaries.items()},
        usage=m.meter.to_dict(),
        extra={
            "model": {"name": config.model, "adapter": config.adapter, "identity": m.model_identity},
            **({} if cost is None else {"cost": cost}),
        },
    )
    print(format_table({p.name: p.measured for p in m.plan}, summaries))
    print(f"{m.run.path}: {m.meter.summary(num_scored, 'scored reply')}")
    for label, use in m.judges.items():
        told = f"{use.num_calls:,} calls, replayed ones included, {use.completion_tokens:,} generated tokens"
        print(f"judge {label}: {told}")
    for warning in document["warnings"]:
        print(f"WARNING: {warning}", file=sys.stderr)


def _tally(m: Measurement, planned: PlannedTask) -> Tally:
    """Return what the summary needs of a task's rows, read back from the file that readers will get."""
    tally = Tally(num_failed=planned.num_failed, num_bad_rows=planned.num_bad_rows)
    with open(m.samples_file(planned), encoding="utf-8") as rows:
        for line in rows:
            tally.add(json.loads(line))
    return tally


def _document(m: Measurement, summaries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole results file."""
    document = {
        **results_document({planned.name: planned.measured for planned in m.plan}, summaries),
        "warnings": [*m.first_look.warnings, *warnings_of(summaries)],
        **m.first_look.to_dict(),
        "n-samples": {p.name: {**p.loaded.sizes, "effective": len(p.samples)} for p in m.plan},
        "n-shot": {p.name: getattr(p.task, "NUM_FEWSHOT", 0) for p in m.plan},
        "configs": {
            p.name: {
                "task": p.config.name,
                "data": p.source.name,
                "options": p.options,
                "scorers": [*m.config.scorers, *p.config.scorers],
                "generation_kwargs": p.sampling.to_dict(),
                "num_samples": m.config.num_samples,
                "draw_seed": m.config.draw_seed,
            }
            for p in m.plan
        },
        "task_hashes": {p.name: digest([[s.id, doc_of(s)] for s in p.samples]) for p in m.plan},
        "judges": {label: asdict(use) for label, use in m.judges.items()},
        "config": config_to_dict(m.config),
        "model_identity": m.model_identity,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "generation_time_seconds": m.generation_seconds,
        "total_evaluation_time_seconds": time.monotonic() - m.started,
    }
    return document | {"published": {p.name: _published(p, document) for p in m.plan}}


def _published(planned: PlannedTask, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what papers print for a task, each row with the settings in which this run departs from it."""
    settings = run_settings(planned.task, document, planned.name)
    return [
        {
            "model": row.model,
            "metrics": dict(row.metrics),
            "source": row.source,
            "confidence": row.confidence,
            "differs": differences(row, settings),
        }
        for row in published(plugin_label(planned.config.name))
    ]
