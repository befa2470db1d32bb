"""Preference optimisation in rounds: sample, score, pair, train, and judge by what no round was trained on.

    python recipes/iterative_preference.py --config configs/iterative_preference/debug.yaml

The loop of CycleResearcher (arXiv 2411.00816), for any writing task: in round k the policy answers its share of the
prompts several times, a scorer makes pairs of the best and the worst (builder writing_pairs), and SimPO with a
likelihood term trains the next policy. After each round an evaluation with other prompts, and a scorer of its own,
measures the policy: a score that rises in training and falls there is the scorer being learned, not the task. Where the
held-out metric falls by more than `tolerance` below its best, the loop ends and names the policy to keep.

Every step is an ordinary job under output_dir. Stop it, or kill it, and give the command again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, build_component, option
from lengthwise.degeneration import repeated_ngram_frac
from lengthwise.files import write_rows
from lengthwise.job import job, merged, run_main
from lengthwise.lengths import count_cjk_alpha
from lengthwise.result_keys import metric_values
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.rows import BadRow
from lengthwise.run_dir import RunDir
from lengthwise.yaml_source import load_yaml


@dataclass(kw_only=True)
class Settings:
    """What a recipe's file may say."""

    model: str = option(help="the policy to begin with")
    engine: dict[str, Any] = option(default_factory=lambda: {"name": "vllm"}, help="of the builds")
    roles: dict[str, Any] = option(
        default_factory=dict, help="the judge of the builds: {judge: {model, engine}}"
    )
    data: str = option(help="prompts that state a length; each round takes its share of them")
    rounds: int = option(3, help="rounds; CycleResearcher: 3")
    pairs: dict[str, Any] = option(
        default_factory=dict,
        help="options of writing_pairs; default: CycleResearcher's 3 samples at temperature 0.4, best over worst",
    )
    dpo: dict[str, Any] = option(
        default_factory=dict,
        help="keys of the trainings, as `lengthwise dpo` takes them: simpo, lora, learning_rate, ...",
    )
    eval_config: str = option(help="the held-out evaluation: a config of `lengthwise eval`")
    metric: str = option("s_l", help="its metric by which a policy is kept; higher is better")
    tolerance: float = option(2.0, help="fall of the metric below its best that ends the loop")
    accelerate_config: str | None = option(None, help="how the trainings are distributed: a name or file")
    seed: int = option(0, help="of the sampling and the trainings")
    output_dir: str = option("outputs/iterative_preference", help="folder of all steps")

    def __post_init__(self) -> None:
        """Refuse what makes no round."""
        if self.rounds < 1:
            raise ConfigError(f"rounds is {self.rounds}: it must be at least 1")
        if self.tolerance < 0:
            raise ConfigError(f"tolerance is {self.tolerance}: it must be at least 0")


@dataclass
class Policy:
    """A model of the loop, with what is known of it."""

    number: int
    model: str
    held_out: dict[str, float] = field(default_factory=dict)


def shares(rows: Sequence[Mapping[str, Any]], rounds: int) -> list[list[Mapping[str, Any]]]:
    """Deal rows to rounds, as evenly as they go: the k-th round takes the rows k, k + rounds, ...

    Example:
        >>> shares([{"id": 0}, {"id": 1}, {"id": 2}], 2)
        [[{'id': 0}, {'id': 2}], [{'id': 1}]]
    """
    return [list(rows[number::rounds]) for number in range(rounds)]


def prompts_of(settings: Settings) -> list[dict[str, Any]]:
    """Return the prompts.

    Raises:
        ConfigError: a row that cannot be read, or fewer prompts than rounds.
    """
    found = []
    for row in read_rows(find_rows(settings.data)):
        if isinstance(row, BadRow):
            raise ConfigError(f"data: {row}")
        found.append(row.values)
    if len(found) < settings.rounds:
        raise ConfigError(f"data: {settings.data} has {len(found)} prompts for {settings.rounds} rounds")
    return found


def measured(policy: Policy, settings: Settings) -> Policy:
    """Evaluate a policy on what it is not trained on.

    Raises:
        ConfigError: the evaluation has no such metric.
    """
    run = job(
        "eval",
        settings.eval_config,
        reuse=True,
        model=policy.model,
        name=f"policy_{policy.number}",
        output_dir=str(Path(settings.output_dir) / f"eval_{policy.number}"),
    )
    results = json.loads(next(run.path.glob("results_*.json")).read_text(encoding="utf-8"))["results"]
    found = [metric_values(row) for row in results.values()]
    if sum(settings.metric in row for row in found) > 1:
        raise ConfigError(
            f"metric is {settings.metric!r}, which several tasks of {settings.eval_config} measure: name one task there"
        )
    policy.held_out = {name: value for row in found for name, value in row.items()}
    if settings.metric not in policy.held_out:
        raise ConfigError(
            f"metric is {settings.metric!r}, and {settings.eval_config} measures {', '.join(policy.held_out)}"
        )
    return policy


def next_policy(
    policy: Policy, rows: Sequence[Mapping[str, Any]], settings: Settings
) -> tuple[Policy, dict[str, Any]]:
    """Run a round: pairs, training, one model of the two; return it with what the pairs were like."""
    number = policy.number + 1
    folder = Path(settings.output_dir) / f"round_{number}"
    method = {
        "name": "writing_pairs",
        "num_samples": 3,
        "temperature": 0.4,
        "top_p": 0.95,
        "rejected": "worst",
    }
    pairs = job(
        "build",
        reuse=True,
        name=f"round_{number}_pairs",
        builder={**method, **settings.pairs},
        model=policy.model,
        engine=settings.engine,
        roles=settings.roles,
        data=str(write_rows(folder / "prompts.jsonl", rows)),
        seed=settings.seed + number,
        min_kept_frac=0.0,
        output_dir=str(folder / "pairs"),
    )
    if not pairs.manifest["counts"]["kept"]:
        raise ConfigError(f"round {number} has no pair to train on: see {pairs.path}/dropped.jsonl")
    run = job(
        "dpo",
        accelerate_config=settings.accelerate_config,
        reuse=True,
        name=f"round_{number}_policy",
        model=policy.model,
        data=str(pairs.path),
        seed=settings.seed,
        output_dir=str(folder / "policy"),
        **settings.dpo,
    )
    return Policy(number, str(merged(run.path))), monitored(pairs)


def monitored(pairs: RunDir) -> dict[str, Any]:
    """Return what to watch in a round's texts: how many make pairs, how long they are, how much they repeat."""
    rows = pairs.rows()
    chosen = [row["chosen"][0]["content"] for row in rows]
    rejected = [row["rejected"][0]["content"] for row in rows]
    counts = pairs.manifest["counts"]
    return {
        "pairs": f"{counts['kept']} of {counts['inputs']}",
        "median_margin": round(statistics.median(row["margin"] for row in rows), 2),
        "median_chosen_words": statistics.median(map(count_cjk_alpha, chosen)),
        "median_rejected_words": statistics.median(map(count_cjk_alpha, rejected)),
        "mean_chosen_repetition": round(statistics.fmean(map(repeated_ngram_frac, chosen)), 3),
        "reasons": counts["reasons"],
    }


def main() -> int:
    """Run the rounds, and name the policy to keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML with the fields of `Settings`")
    parser.add_argument("--rounds", type=int, help="wins over the file")
    parser.add_argument("--output_dir", help="wins over the file")
    args = parser.parse_args()
    given = {key: value for key, value in vars(args).items() if key != "config" and value is not None}
    settings = build_component(Settings, {**load_yaml(args.config), **given}, where=str(args.config))
    rows = shares(prompts_of(settings), settings.rounds)
    policy = best = measured(Policy(0, settings.model), settings)
    print(f"policy 0: held out {settings.metric} {policy.held_out[settings.metric]:.3f}", flush=True)
    told = [{"policy": 0, "held_out": policy.held_out}]
    for share in rows:
        policy, watched = next_policy(policy, share, settings)
        measured(policy, settings)
        now, most = (one.held_out[settings.metric] for one in (policy, best))
        told.append({"policy": policy.number, "held_out": policy.held_out, **watched})
        print(
            f"policy {policy.number}: held out {settings.metric} {now:.3f}; {json.dumps(watched)}", flush=True
        )
        if now < most - settings.tolerance:
            print(f"the held-out metric fell by {most - now:.3f}: the loop ends, keep policy {best.number}")
            break
        best = policy if now > most else best
    print(f"keep policy {best.number}: {best.model}")
    print(json.dumps({"keep": best.number, "rounds": told}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
