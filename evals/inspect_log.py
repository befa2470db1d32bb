"""An evaluation run as logs of inspect_ai: `inspect view` shows them, its data frames read them.

A log holds one task, so a run gives one for each. Every number is taken from the run's own files: inspect
computes nothing here. Replies to one prompt are its epochs. In memory at a time: one task's rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.run_results import RunResults, open_results
from lengthwise.config import ConfigError
from lengthwise.records import digest

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample
    from inspect_ai.model import ModelUsage
    from inspect_ai.scorer import Score

STOP_REASONS = {
    "stop": "stop",
    "length": "max_tokens",
    "content_filter": "content_filter",
    "abort": "unknown",
    None: "unknown",
}
"""Our finish reasons in inspect's words."""

_CALL = re.compile(r'\{"key":"[0-9a-f]{64}","usage":(\[\d+,\d+,\d+\]),"salt":(\["(?:[^"\\]|\\.)*","model",)')
"""The start of a journal line of a call to the model itself; a judge's has another role in its salt."""


def inspect_logs(folder: Path, task: str | None = None) -> Iterator[tuple[str, EvalLog]]:
    """Yield each task's name and log.

    Args:
        folder: a finished evaluation.
        task: this task only.

    Raises:
        ConfigError: inspect_ai is not installed, the run is no finished evaluation, or it has no such task.
    """
    _require_inspect()
    run = open_results(folder)
    for name in run.named(task):
        yield name, inspect_log(run, name)


def inspect_log(run: RunResults, task: str) -> EvalLog:
    """Return the log of one task of a run."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalSpec, EvalStats

    manifest, results = run.manifest, run.results
    asked = results["configs"][task]
    model = manifest["model"]
    rows, dropped = list(run.rows(task)), list(run.dropped(task))
    usage = _usage_by_id(run.folder / "journal.jsonl", task)
    samples = [_sample(row, results["counters"][task], model["name"], usage.get(row["id"])) for row in rows]
    samples += [_failed(row) for row in dropped]
    ids = list(dict.fromkeys(str(sample.id) for sample in samples))
    identity = [manifest["config_digest"], manifest["created"]]
    total = sum((sample.output.usage for sample in samples if sample.output.usage), start=_no_usage())
    return EvalLog(
        status="success",  # an unfinished run is refused before
        eval=EvalSpec(
            created=manifest["created"],
            run_id=digest(identity)[:22],
            eval_id=digest([*identity, task])[:22],
            task_id=digest([*identity, task, "task"])[:22],
            task=task,
            task_version=results["versions"][task],
            task_args={"task": asked["task"], **asked.get("options", {})},
            dataset=EvalDataset(
                name=Path(asked["data"]).stem, location=asked["data"], samples=len(ids), sample_ids=ids
            ),
            model=model["name"],
            model_args={"adapter": model["adapter"]} if model["adapter"] else {},
            model_generate_config=_generate_config(asked["generation_kwargs"], manifest["seed"]),
            config=EvalConfig(
                limit=manifest["config"].get("limit"), epochs=asked["num_samples"], fail_on_error=False
            ),
            packages=manifest["packages"],
            metadata={
                "lengthwise": {
                    "run": manifest["name"],
                    "config": manifest["config"],
                    "config_digest": manifest["config_digest"],
                    "git_commit": manifest["git_commit"],
                    "seed": manifest["seed"],
                    "model_identity": results["model_identity"],
                    "task_hash": results["task_hashes"][task],
                    "n-samples": results["n-samples"][task],
                    "counts": results["counts"][task],
                    "run_usage": manifest["usage"],
                }
            },
        ),
        plan=EvalPlan(config=_generate_config(asked["generation_kwargs"], manifest["seed"])),
        results=_results(run, task, rows, num_total=len(rows) + len(dropped) * asked["num_samples"]),
        stats=EvalStats(
            started_at=manifest["created"],
            completed_at=manifest["finished"],
            model_usage={model["name"]: total},
        ),
        samples=samples,
    )


def _require_inspect() -> None:
    try:
        import inspect_ai  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigError(
            "--format inspect needs the package inspect-ai: `pip install 'lengthwise[inspect]'`, or choose csv, "
            "markdown, latex or parquet"
        ) from error


def _generate_config(asked: Mapping[str, Any], seed: int) -> Any:
    from inspect_ai.model import GenerateConfig

    penalty = asked["repetition_penalty"]
    return GenerateConfig(
        max_tokens=asked["max_tokens"],
        temperature=asked["temperature"],
        top_p=asked["top_p"],
        top_k=asked["top_k"],
        stop_seqs=list(asked["stop"]) or None,
        num_choices=asked["n"],
        seed=seed,
        extra_body=None if penalty == 1 else {"repetition_penalty": penalty},
    )


def _sample(
    row: Mapping[str, Any], counters: Mapping[str, str], model: str, prompt_usage: Sequence[int] | None
) -> EvalSample:
    """Return one reply as a sample; the prompt, which is read once, counts in its first reply's usage."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput

    epoch = row["completion_index"] + 1
    reply = ChatMessageAssistant(content=row["resps"][0], model=model, source="generate")
    usage = _usage(row, prompt_usage if epoch == 1 else None)
    asked = _messages(row["arguments"])
    output = ModelOutput(
        model=model,
        choices=[
            ChatCompletionChoice.model_validate(
                {"message": reply, "stop_reason": STOP_REASONS.get(row["finish_reason"], "unknown")}
            )
        ],
        usage=usage,
    )
    return EvalSample(
        id=row["id"],
        epoch=epoch,
        input=asked,
        target=row["target"] or "",
        messages=[*asked, reply],
        output=output,
        scores=_scores(row, counters),
        model_usage={} if usage is None else {model: usage},
        metadata={
            key: row[key]
            for key in ("requested", "counts", "flags", "slices", "notes", "doc", "doc_hash", "prompt_hash")
            if row.get(key) is not None
        },
    )


def _failed(row: Mapping[str, Any]) -> EvalSample:
    """Return a prompt that the harness could not finish; inspect leaves it out of its scores, as we do."""
    from inspect_ai.log import EvalError, EvalSample

    return EvalSample(
        id=row["id"],
        epoch=1,
        input=row["doc"]["prompt"],
        target="",
        error=EvalError(message=f"{row['outcome']}: {row['reason']}", traceback="", traceback_ansi=""),
        metadata={"doc": row["doc"]},
    )


def _messages(turns: Sequence[Mapping[str, str]]) -> list[Any]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [kinds[turn["role"]](content=turn["content"]) for turn in turns]


def _scores(row: Mapping[str, Any], counters: Mapping[str, str]) -> dict[str, Score]:
    """Return a score for each metric the reply has, and one without a value for each that failed on us."""
    from inspect_ai.scorer import Score

    answer = row.get("filtered_resps", [None])[0]
    scores = {}
    for name, value in row["metrics"].items():
        counter = counters.get(name)
        scores[name] = Score(
            value=value,
            answer=answer,
            explanation=_explanation(row, counter),
            metadata={"counter": counter},
        )
    for name, reason in (row.get("unscored") or {}).items():
        scores[name] = Score.unscored(reason="scoring_failed", answer=answer, explanation=reason)
    return scores


def _explanation(row: Mapping[str, Any], counter: str | None) -> str | None:
    """Return what a score rests on: the length asked, the length found, the notes of the scorer."""
    parts = []
    if row.get("requested"):
        parts.append(f"asked {json.dumps(row['requested'])}")
    if counter in row["counts"]:
        parts.append(f"found {row['counts'][counter]} by {counter}")
    parts += [f"{name}: {note}" for name, note in (row.get("notes") or {}).items()]
    return "; ".join(parts) or None


def _results(run: RunResults, task: str, rows: Sequence[Mapping[str, Any]], num_total: int) -> EvalResults:
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    scores = []
    for entry in run.table(task):
        if entry["slice"] != "all":
            continue
        name = entry["metric"]
        num_scored = sum(name in row["metrics"] for row in rows)
        summary = run.results["summaries"][task].get(name, "value")
        values = {
            summary: entry["value"],
            "stderr": entry["stderr"],
            "ci_low": entry["low"],
            "ci_high": entry["high"],
        }
        scores.append(
            EvalScore(
                name=name,
                scorer=name,
                scored_samples=num_scored,
                unscored_samples=len(rows) - num_scored,
                params={"counter": run.results["counters"][task].get(name), "num_prompts": entry["n"]},
                metrics={
                    key: EvalMetric(name=key, value=value)
                    for key, value in values.items()
                    if value is not None
                },
            )
        )
    return EvalResults(total_samples=num_total, completed_samples=len(rows), scores=scores)


def _usage(row: Mapping[str, Any], prompt: Sequence[int] | None) -> ModelUsage | None:
    from inspect_ai.model import ModelUsage

    if row["num_tokens"] is None:
        return None
    read, cached = (prompt[0], prompt[1]) if prompt else (0, 0)
    return ModelUsage(
        input_tokens=read - cached,  # inspect's word for what no cache served
        input_tokens_cache_read=cached if prompt else None,
        output_tokens=row["num_tokens"],
        total_tokens=read + row["num_tokens"],
        reasoning_tokens=row["num_reasoning_tokens"],
    )


def _no_usage() -> ModelUsage:
    from inspect_ai.model import ModelUsage

    return ModelUsage()


def _usage_by_id(journal: Path, task: str) -> dict[str, list[int]]:
    """Return [prompt, cached, completion] tokens of each sample's calls to the model, from the heads of the lines."""
    found: dict[str, list[int]] = {}
    if not journal.is_file():
        return found
    with journal.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            head = _CALL.match(line)
            if head is None:
                continue
            name = json.loads(f"{head[2][:-1]}]")[0]
            if name.startswith(f"{task}/"):
                usage = json.loads(head[1])
                before = found.get(name[len(task) + 1 :], [0, 0, 0])
                found[name[len(task) + 1 :]] = [a + b for a, b in zip(before, usage, strict=True)]
    return found
