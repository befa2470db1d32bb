"""Writes evaluations of reasoning tasks, with all that may stand beside a score: for the report's tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from report_runs import STAMP, write_jsonl, write_manifest

JUDGED = "s_q@qwen3-8b.1f2e3d"
TASK = "puzzles"


def write_reasoning(
    path: Path,
    *,
    skill: float,
    tokens: float,
    model: str = "org/base",
    budgets: tuple[int, ...] = (),
    num_items: int = 24,
    seed: int = 3,
    results: dict[str, Any] | None = None,
) -> Path:
    """Write an evaluation of puzzles with right answers; `skill` is the share that is right.

    Args:
        path: the run's folder.
        skill: chance that a reply is right.
        tokens: mean tokens of a reply.
        model: what the manifest calls the model.
        budgets: token budgets that the items are spread over; more of it helps.
        num_items: prompts.
        seed: decides which are right.
        results: further top-level entries of the results file.
    """
    rng = random.Random(seed)
    rows = [_row(i, rng, skill, tokens, budgets) for i in range(num_items)]
    write_jsonl(path / f"samples_{TASK}_{STAMP}.jsonl", rows)
    metrics = {
        name: [float(r["metrics"][name]) for r in rows if name in r["metrics"]]
        for name in ("correct", JUDGED, "num_tokens")
    }
    row: dict[str, Any] = {"alias": TASK, "pass@4,none": min(1.0, skill + 0.2), "pass@4_n,none": num_items}
    for name, values in metrics.items():
        row |= {f"{name}{end},none": value for end, value in _stated(values).items()}
    row |= {f"{JUDGED}_bounds,none": [3.1, 3.4], "correct_mdd,none": 0.21}
    slices = {}
    for budget in budgets:
        here = [r for r in rows if r["slices"].get("budget") == str(budget)]
        slices[str(budget)] = {
            name: {"value": sum(v) / len(v), "ci": [min(v), max(v)], "n": len(v)}
            for name in ("correct", "num_tokens")
            if (v := [float(r["metrics"][name]) for r in here])
        }
    document = {
        "results": {TASK: row},
        "higher_is_better": {TASK: {"correct": True, JUDGED: True, "num_tokens": None}},
        "summaries": {TASK: {"correct": "proportion", JUDGED: "mean", "num_tokens": "mean"}},
        "counters": {TASK: {"correct": "none", JUDGED: "none", "num_tokens": "tokens"}},
        "slices": {TASK: {"budget": slices} if budgets else {}},
        "n-samples": {TASK: {"original": num_items, "effective": num_items}},
        "counts": {TASK: {"scored": num_items, "unscored": 2}},
        "unscored": {TASK: {JUDGED: {"num": 2, "frac": 2 / num_items, "reasons": {"malformed": 2}}}},
        "length_correlation": {TASK: {JUDGED: {"rho": 0.42, "low": 0.1, "high": 0.66, "n": num_items - 2}}},
        "versions": {TASK: 1},
        **(results or {}),
    }
    (path / f"results_{STAMP}.json").write_text(json.dumps(document), encoding="utf-8")
    return write_manifest(path, "eval", model={"name": model, "adapter": None, "identity": model})


def _row(
    index: int, rng: random.Random, skill: float, tokens: float, budgets: tuple[int, ...]
) -> dict[str, Any]:
    budget = budgets[index % len(budgets)] if budgets else None
    help_ = 0.0 if budget is None else 0.25 * (budgets.index(budget) / len(budgets) - 0.4)
    right = rng.random() < skill + help_
    used = round((budget or tokens) * rng.uniform(0.7, 1.2))
    judged = {} if index in (4, 9) else {JUDGED: float(rng.randint(2, 5))}
    return {
        "id": f"puzzle-{index}",
        "doc": {"prompt": f"Puzzle {index}: what is {index} + {index}?"},
        "target": str(2 * index),
        "resps": [
            f"Adding {index} to itself gives \\boxed{{{2 * index if right else index}}}. " + "So it is. " * 20
        ],
        "filtered_resps": [str(2 * index if right else index) if index else None],
        "finish_reason": "stop",
        "num_tokens": used,
        "metrics": {"correct": float(right), "num_tokens": float(used), **judged},
        "unscored": {} if judged else {JUDGED: "malformed"},
        "notes": {"judge_reply": "Clear, but short."} if index == 1 else {},
        "flags": {"empty": False, "truncated": False, "repetition": 0.0},
        "slices": {} if budget is None else {"budget": str(budget)},
        "prompt_hash": f"p{index}",
    }


def _stated(values: list[float]) -> dict[str, Any]:
    mean, n = sum(values) / len(values), len(values)
    spread = (sum((v - mean) ** 2 for v in values) / max(n - 1, 1) / n) ** 0.5
    return {"": mean, "_stderr": spread, "_ci": [mean - 2 * spread, mean + 2 * spread], "_n": n}
