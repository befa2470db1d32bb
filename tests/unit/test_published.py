"""Published rows: what is in the files, and how a run is held against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evals.published
from evals.base import score_completion
from evals.config import EvalConfig
from evals.plan import plan_task
from evals.published import PublishedRow, differences, published, run_settings
from evals.results import Tally, summarise
from evals.results_table import format_table
from evals.tasks import tlg
from lengthwise.lengths import TLG_TARGETS
from lengthwise.records import Sample

TASK: Any = tlg
FILES = sorted(Path(evals.published.__file__).parent.glob("*.yaml"))


def row(**settings: Any) -> PublishedRow:
    return PublishedRow(model="m", metrics={"pm": 0.5}, source="s", confidence="paper", settings=settings)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_names_a_task_and_its_metrics(file: Path) -> None:
    planned = plan_task(file.stem, EvalConfig(model="m", tasks=[file.stem]))
    known = {metric.name for metric in planned.task.METRICS} | {"s_q", "s_bar"}
    for one in published(file.stem):
        assert one.model and one.source
        assert one.metrics.keys() <= known
        assert {name for group in one.slices.values() for name in group} <= known
        assert {"temperature", "max_tokens", "num_rows", "data"} <= one.settings.keys()


def test_numbers_of_rows() -> None:
    assert {file.stem: len(published(file.stem)) for file in FILES} == {
        "lifebench": 0,
        "longbench_write": 23,
        "longen": 0,
        "tlg": 45,
    }


@pytest.mark.parametrize("task", ["nothing", "../published/tlg", ""])
def test_a_task_without_a_file_has_no_rows(task: str) -> None:
    assert published(task) == []


def test_the_names_of_slices_are_those_of_our_table() -> None:
    tally = Tally()
    for target in TLG_TARGETS:
        one = Sample(id=target, messages=(), length=tlg.target_length(target))
        tally.add({"id": target, **score_completion(TASK, one, "word", "stop", 1)})
    lines = format_table({"tlg": TASK}, {"tlg": summarise(TASK, tally)})
    (row_with_targets,) = [r for r in published("tlg") if r.model == "RULER Llama-3-8B" and r.slices]
    assert len(row_with_targets.slices) == 12
    for name in row_with_targets.slices:
        assert f" {name} " in lines, name


@pytest.mark.parametrize(
    ("given", "settings", "expected"),
    [
        ({"temperature": 0.0, "profile": "code"}, {"temperature": 0, "profile": "code"}, []),
        ({"temperature": 0.0}, {"temperature": 0.5}, ["temperature: published 0.0, here 0.5"]),
        ({"num_rows": 2000}, {"num_rows": 54}, ["num_rows: published 2000, here 54"]),
        ({"judge": None}, {"judge": "local"}, ["judge: not known of the published row"]),
        ({"judge": "gpt-4o"}, {}, ["judge: published gpt-4o, not known here"]),
        (
            {"max_tokens": 2048},
            {"max_tokens": None},
            ["max_tokens: published 2048, here the rest of the context"],
        ),
        ({}, {"temperature": 0.5}, []),
    ],
)
def test_differences(given: dict[str, Any], settings: dict[str, Any], expected: list[str]) -> None:
    assert differences(row(**given), settings) == expected


def test_the_settings_of_a_run_are_those_of_its_results_file() -> None:
    document = {
        "configs": {
            "mine": {
                "data": "somewhere/tlg.jsonl",
                "options": {"profile": "paper"},
                "generation_kwargs": {"temperature": 0.0, "top_p": 1.0, "max_tokens": 2048},
            }
        },
        "n-samples": {"mine": {"effective": 2000}},
    }
    settings = run_settings(TASK, document, "mine")
    assert settings["targets"] == "one"
    (one,) = [r for r in published("tlg") if r.model == "Llama-3-8B-Instruct" and r.slices]
    assert differences(one, settings) == [
        "data: published the released script's rows of OpenHermes-2.5, here tlg.jsonl",
        "profile: published code, here paper",
    ]
