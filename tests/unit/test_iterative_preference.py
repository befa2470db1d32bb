"""The loop of iterative preference optimisation: its shares, its configs, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lengthwise.config import ConfigError, build_component
from lengthwise.yaml_source import load_yaml
from recipes import iterative_preference as loop

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["paper", "debug"])
def test_its_configs_load(name):
    path = ROOT / "configs" / "iterative_preference" / f"{name}.yaml"
    assert build_component(loop.Settings, load_yaml(path), where="x").rounds >= 2


def test_every_prompt_is_in_one_round():
    rows = [{"id": i} for i in range(10)]
    dealt = loop.shares(rows, 3)
    assert sorted(row["id"] for share in dealt for row in share) == list(range(10))
    assert [len(share) for share in dealt] == [4, 3, 3]


@pytest.mark.parametrize("options", [{"rounds": 0}, {"tolerance": -1}])
def test_what_makes_no_round_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        loop.Settings(model="m", data="d", eval_config="e", **options)


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Return a function that runs the loop on held-out scores that are given, with jobs that do nothing."""

    def run(*scores: float, tolerance: float = 2.0) -> tuple[list[str], dict[str, Any]]:
        data, config = tmp_path / "prompts.jsonl", tmp_path / "config.yaml"
        data.write_text("".join(json.dumps({"prompt": f"Write {i} words."}) + "\n" for i in range(9)))
        config.write_text(
            json.dumps({"model": "base", "data": str(data), "eval_config": "e", "rounds": len(scores) - 1,
                        "tolerance": tolerance, "output_dir": str(tmp_path / "out")})
        )  # fmt: skip
        left, models = list(scores), []

        def job(verb: str, *args: Any, **given: Any) -> Any:
            models.append((verb, given["model"]))
            folder = Path(given["output_dir"])
            folder.mkdir(parents=True, exist_ok=True)
            if verb == "eval":
                found = {"results": {"t": {"s_l,none": left.pop(0)}}}
                (folder / "results_1.json").write_text(json.dumps(found))
            row = {"chosen": [{"content": "a b"}], "rejected": [{"content": "a"}], "margin": 3.0}
            return SimpleNamespace(
                path=folder,
                rows=lambda: [row],
                manifest={"counts": {"kept": 1, "inputs": 3, "reasons": {}}},
            )

        monkeypatch.setattr(loop, "job", job)
        monkeypatch.setattr("sys.argv", ["x", f"--config={config}"])
        assert loop.main() == 0
        return [f"{verb} {Path(model).parent.name}" for verb, model in models], json.loads(
            capsys.readouterr().out.splitlines()[-1]
        )

    return run


def test_each_round_goes_on_from_the_policy_before(told):
    jobs, found = told(50, 60, 65)
    assert found["keep"] == 2 and [entry["policy"] for entry in found["rounds"]] == [0, 1, 2]
    assert jobs == [
        "eval ",
        "build ",
        "dpo ",
        "eval round_1",
        "build round_1",
        "dpo round_1",
        "eval round_2",
    ]


def test_a_fall_of_the_held_out_metric_ends_the_loop(told):
    jobs, found = told(50, 60, 57, 70)
    assert found["keep"] == 1 and len(found["rounds"]) == 3 and jobs[-1] == "eval round_2"
    _, found = told(50, 60, 59, 58.5, tolerance=2)
    assert found["keep"] == 1 and len(found["rounds"]) == 4


def test_a_metric_that_is_not_measured_is_named(told, monkeypatch):
    monkeypatch.setattr(loop, "metric_values", lambda row: {"other": 1.0})
    with pytest.raises(ConfigError, match="metric is 's_l', and e measures other"):
        told(50, 60)
