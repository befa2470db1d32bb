"""What `--dry_run` checks and says of a job that asks models: everything but the models themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lengthwise.models import check_model
from lengthwise.records import Sample
from lengthwise.run_dir import RunDir

LOCAL_ENGINES = ("vllm", "vllm_server", "hf")
"""Engines that load weights on this machine, where a model id can be checked at once."""


def check_models(models: Iterable[tuple[str, str | None, Mapping[str, Any]]]) -> None:
    """Refuse models that are not to be had; each is (model, adapter, engine's map).

    Raises:
        ConfigError: naming the model and the remedy.
    """
    for model, adapter, engine in models:
        if engine.get("name", "vllm") in LOCAL_ENGINES:
            check_model(model, adapter, ask_hub=True)


def run_line(run: RunDir) -> str:
    """Return the line on the run folder: whether a run begins there or goes on."""
    if not run.resumed:
        return f"run         {run.path}: new"
    journal = run.path / "journal.jsonl"
    done = sum(1 for _ in journal.open("rb")) if journal.is_file() else 0
    return f"run         {run.path}: goes on with an unfinished run; {done:,} finished calls are kept"


def asked_words(samples: Sequence[Sample]) -> str:
    """Return how much text the samples ask for, as far as they carry a length.

    Example:
        >>> from lengthwise.records import LengthTarget, user
        >>> asked_words([Sample(id="a", messages=user("Write."), length=LengthTarget.about(900))])
        '900 words asked for by 1 of 1'
    """
    totals: dict[str, float] = {}
    asking = [sample.length for sample in samples if sample.length is not None]
    for length in asking:
        totals[length.unit] = totals.get(length.unit, 0) + length.nominal
    if not asking:
        return "no row has a column of lengths"
    amounts = " and ".join(f"{round(total):,} {unit}" for unit, total in totals.items())
    return f"{amounts} asked for by {len(asking):,} of {len(samples):,}"
