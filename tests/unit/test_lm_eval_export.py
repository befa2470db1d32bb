"""Our tasks run by lm-eval: the numbers are ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evals import score as score_job
from evals.base import score_completion
from evals.config import EvalConfig
from evals.plan import plan_task
from evals.results import Tally, summarise
from lengthwise.config import parse_config
from lengthwise.plugins import load_plugin
from lengthwise.records import digest

FOLDER = Path(__file__).parents[2] / "evals" / "lm_eval_tasks"
FILES = sorted(FOLDER.glob("*.yaml"))
AGGREGATIONS = {
    "mean": ("mean", "proportion"),
    "!function lengthwise_tasks.median": ("median",),
    "!function lengthwise_tasks.root_mean_square": ("rmse",),
}
OF_TOKENS = ("budget_deviation", "budget_rmse", "within_budget")
"""Metrics that rest on the number of generated tokens, which lm-eval does not tell a task."""


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML, functions by name."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {loader.construct_scalar(node)}")


def config_of(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), _Loader)


def task_of(file: Path) -> Any:
    return load_plugin("evals.tasks", config_of(file)["dataset_kwargs"]["task"], "METRICS")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEachFile:
    def test_names_metrics_and_version_are_the_tasks(self, file):
        config, task = config_of(file), task_of(file)
        assert config["task"] == file.stem == f"lengthwise_{config['dataset_kwargs']['task']}"
        assert config["metadata"] == {"version": task.VERSION}
        metrics = [metric for metric in task.METRICS if metric.name not in OF_TOKENS]
        assert [(m["metric"], m["higher_is_better"]) for m in config["metric_list"]] == [
            (m.name, m.higher_is_better) for m in metrics
        ]
        for given, metric in zip(config["metric_list"], metrics, strict=True):
            assert metric.summary in AGGREGATIONS[given["aggregation"]]

    def test_the_sampling_is_the_tasks(self, file):
        kwargs, task = config_of(file)["generation_kwargs"], task_of(file)
        assert kwargs["temperature"] == task.TEMPERATURE
        assert kwargs["do_sample"] is (task.TEMPERATURE > 0)
        if task.MAX_TOKENS is not None:
            assert kwargs["max_gen_toks"] == task.MAX_TOKENS
        assert kwargs["until"] == list(getattr(getattr(task, "SAMPLING", None), "stop", ()))


def test_every_length_task_has_a_file():
    assert {"tlg", "longbench_write", "longen", "lifebench"} <= {
        config_of(file)["dataset_kwargs"]["task"] for file in FILES
    }


lm_eval = pytest.importorskip("lm_eval")


def reply(prompt: str) -> str:
    """Of no words up to nine hundred, by the prompt: some hit, some miss, one is empty."""
    draw = int(digest(prompt)[:8], 16)
    return "" if draw % 17 == 0 else " ".join(["word"] * (draw % 900))


def lm_evals(
    monkeypatch: Any, *tasks: str, answer: Callable[[str], str] = reply, data: Path | None = None
) -> dict[str, Any]:
    """Return what lm-eval makes of the answers to a task's prompts."""
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class StandIn(LM):
        def generate_until(self, requests, disable_tqdm=False):
            return [answer(request.args[0]) for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

    monkeypatch.delenv("LENGTHWISE_DATA", raising=False)
    if data is not None:
        monkeypatch.setenv("LENGTHWISE_DATA", str(data))
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    found = lm_eval.evaluate(StandIn(), task_dict=manager.load(list(tasks)), bootstrap_iters=0)
    return found["results"]


def our_numbers(name: str, answer: Callable[[str], str]) -> dict[str, float]:
    """Return what our evaluation makes of the answers to a task's prompts."""
    planned = plan_task(name, parse_config(EvalConfig, ["--model", "m", "--tasks", name], prog="test"))
    tally = Tally()
    for sample in planned.samples:
        text = answer(planned.task.prompt(sample)[-1].content)
        scored = score_completion(planned.task, sample, text, None, None)
        tally.add({"id": sample.id, "prompt_hash": sample.id, **scored})
    return {name: found["value"] for name, found in summarise(planned.task, tally)["overall"].items()}


@pytest.mark.parametrize("name", ["tlg", "longbench_write", "longen", "lifebench"])
def test_lm_eval_gives_our_numbers(monkeypatch, name):
    ours = our_numbers(name, reply)
    theirs = lm_evals(monkeypatch, f"lengthwise_{name}")[f"lengthwise_{name}"]
    assert {metric: theirs[f"{metric},none"] for metric in ours} == pytest.approx(ours, rel=1e-12)
    assert any(value > 0 for value in ours.values())


def test_lm_eval_gives_the_numbers_of_lengthwise_score(monkeypatch, tmp_path):
    source = FOLDER.parent / "prompts" / "length_control.jsonl"
    asked = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    outputs = tmp_path / "outputs.jsonl"
    outputs.write_text(
        "".join(
            json.dumps(
                {
                    "id": row["id"],
                    "prompt": row["prompt"],
                    "length": row["length"],
                    "output": reply(row["prompt"]),
                }
            )
            + "\n"
            for row in asked
        )
    )
    words = ["--task", "longen", "--file", str(outputs)]
    document = score_job.score(parse_config(score_job.ScoreConfig, words, prog="test"))
    theirs = lm_evals(monkeypatch, "lengthwise_longen")["lengthwise_longen"]
    assert theirs["length_score,none"] == pytest.approx(
        document["results"]["longen"]["length_score,none"], rel=1e-12
    )


def test_a_task_with_reference_answers(monkeypatch, tmp_path):
    rows = [{"question": f"{i} and {i}?", "answer": f"It is {2 * i}. #### {2 * i}"} for i in range(8)]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = ["\\boxed{0}", "The answer is \\boxed{2}.", "\\boxed{5}", "no idea", "#### 8", "", "x", "14"]
    found = lm_evals(
        monkeypatch,
        "lengthwise_gsm8k",
        answer=lambda prompt: answers[int(prompt.split()[0])],
        data=tmp_path,
    )
    assert found["lengthwise_gsm8k"]["accuracy,none"] == 3 / 8
    assert found["lengthwise_gsm8k"]["answered,none"] == 4 / 8


@pytest.mark.slow
def test_by_lm_evals_own_command_line(tmp_path):
    """The model `dummy` of lm-eval answers "lol", one word, to everything."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "dummy", "--include_path", str(FOLDER)]
    command += ["--tasks", "lengthwise_tlg,lengthwise_longbench_write", "--output_path", str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "LENGTHWISE_DATA"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("results_*.json")
    results = json.loads(file.read_text())
    for name in ("tlg", "longbench_write"):
        found = results["results"][f"lengthwise_{name}"]
        ours = our_numbers(name, lambda prompt: "lol")
        assert {metric: found[f"{metric},none"] for metric in ours} == pytest.approx(ours, rel=1e-12)
    assert results["n-samples"]["lengthwise_tlg"] == {"original": 54, "effective": 54}
    assert "overrides existing task" not in done.stderr and "Duplicate" not in done.stderr
