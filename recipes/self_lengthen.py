"""Self-Lengthen (arXiv 2410.23933): a model learns to write longer from nothing but its own texts, round by round.

    python recipes/self_lengthen.py --config configs/self_lengthen/debug.yaml

One round: new instructions from examples (self_instruct), near duplicates out, two answers each (respond), of which
the longer ones stay (length_biased), two extensions each (extend), of which the longer ones stay again. Two adapters
are trained on the pairs: the generator writes the extended text for the instruction, the extender for the instruction
and a thinned answer. The next round is written by these two. Unlike the original, each round's adapters start from the
base model: what they learn is the round's own pairs, which hold all that the rounds before have taught.

Every step is an ordinary job in a folder of its own under output_dir. Stop the recipe, or kill it, and start it again:
finished steps are reused, and a step that was under way goes on at its next call.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, build_component, option
from lengthwise.degeneration import language
from lengthwise.files import write_rows
from lengthwise.job import job, merged, run_main
from lengthwise.lengths import count_cjk_ws
from lengthwise.near_duplicates import NearDuplicates
from lengthwise.run_dir import RunDir
from lengthwise.templates import load_prompt
from lengthwise.yaml_source import load_yaml

KEPT_LINES = 0.8
"""Share of an answer's lines that the extender's training shows it (released code)."""


@dataclass(kw_only=True)
class Settings:
    """What a recipe's file may say."""

    model: str = option(help="the instruct model that is to write longer")
    engine: dict[str, Any] = option(default_factory=lambda: {"name": "vllm"}, help="of all builds")
    language: str = option("en", help="of the instructions: en or zh")
    rounds: int = option(3, help="rounds; the paper: 3")
    num_instructions: int = option(5000, help="slots of a round; the paper: 5000")
    samples: int = option(2, help="answers of an instruction, and extensions of an answer; the paper: 2")
    sampling: dict[str, Any] = option(
        default_factory=dict,
        help="of all calls: temperature, top_p, top_k, repetition_penalty; of the texts: max_tokens, tries",
    )
    extension: dict[str, Any] = option(
        default_factory=dict, help="options of the extension beside these: micro_iterations, min_growth"
    )
    likeness: float = option(0.8, help="likeness from which two instructions are one")
    sft: dict[str, Any] = option(
        default_factory=dict,
        help="keys of the trainings, as `lengthwise sft` takes them: lora, learning_rate, ...",
    )
    merge: bool = option(
        False,
        help="merge each adapter into the model that it writes with: for engines that serve adapters slowly, as vLLM "
        "does on a CPU",
    )
    accelerate_config: str | None = option(None, help="how the trainings are distributed: a name or file")
    seed: int = option(0, help="of everything drawn")
    output_dir: str = option("outputs/self_lengthen", help="folder of all steps")

    def __post_init__(self) -> None:
        """Refuse what makes no round."""
        if self.language not in ("en", "zh"):
            raise ConfigError(f"language is {self.language!r}: choose en or zh")
        if not 0 < self.likeness <= 1:
            raise ConfigError(f"likeness is {self.likeness}: it must be above 0 and at most 1")
        for name in ("rounds", "num_instructions", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass
class Round:
    """One round: its folder, and who writes."""

    number: int
    settings: Settings
    generator: str | None = None
    """Training run of the round before whose adapter writes the answers; None: the base writes."""
    extender: str | None = None
    """The same of the one that extends."""
    pool: list[str] = field(default_factory=list)
    """Instructions of earlier rounds."""

    @property
    def folder(self) -> Path:
        """Where its steps lie."""
        return Path(self.settings.output_dir) / f"round_{self.number}"

    def build(self, name: str, builder: Mapping[str, Any], data: Path, trained: str | None = None) -> RunDir:
        """Run a build that asks the model, or what a training made of it."""
        model, adapter = self.settings.model, trained
        if trained is not None and self.settings.merge:
            model, adapter = str(merged(trained)), None
        return job(
            "build",
            reuse=True,
            name=f"round_{self.number}_{name}",
            builder=dict(builder),
            model=model,
            adapter=adapter,
            engine=self.settings.engine,
            data=str(data),
            length_column=None,
            seed=self.settings.seed,
            min_kept_frac=0.0,
            output_dir=str(self.folder / name),
        )

    def longer_ones(self, name: str, data: RunDir) -> RunDir:
        """Run the length-biased sampling on a build."""
        return job(
            "build",
            reuse=True,
            name=f"round_{self.number}_{name}",
            builder={"name": "length_biased", "draw_seed": self.settings.seed + self.number},
            data=str(data.path),
            min_kept_frac=0.0,
            output_dir=str(self.folder / name),
        )

    def train(self, name: str, data: Path) -> str:
        """Train an adapter, and return its folder."""
        run = job(
            "sft",
            accelerate_config=self.settings.accelerate_config,
            reuse=True,
            name=f"round_{self.number}_{name}",
            model=self.settings.model,
            data=str(data),
            seed=self.settings.seed,
            output_dir=str(self.folder / name),
            **self.settings.sft,
        )
        return str(run.path)


def new_ones(instructions: Sequence[Mapping[str, Any]], likeness: float) -> list[Mapping[str, Any]]:
    """Return the instructions that are no near duplicates of one before."""
    index = NearDuplicates(threshold=likeness, n=3)
    return [
        row for row in instructions if index.find_or_add(row["id"], row["messages"][0]["content"]) is None
    ]


def generator_rows(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what teaches the generator to write the long text at once."""
    return [{"id": pair["id"], "messages": pair["messages"]} for pair in pairs]


def extender_rows(pairs: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return what teaches the extender: the request to extend an answer of which some lines are left out."""
    found = []
    for pair in pairs:
        stream = random.Random(f"{seed} {pair['id']}")
        instruction, extended = pair["messages"][0]["content"], pair["messages"][-1]["content"]
        lines = [line for line in pair["initial"].split("\n") if stream.random() < KEPT_LINES]
        code = "zh" if language(extended) == "zh" else "en"
        request = load_prompt("data_builders", f"self_lengthen_extend.{code}").render(
            instruction=instruction, draft=("\n\n" if code == "zh" else "\n").join(lines)
        )
        found.append(
            {
                "id": pair["id"],
                "messages": [
                    {"role": "user", "content": request.strip()},
                    {"role": "assistant", "content": extended},
                ],
            }
        )
    return found


def run_round(this: Round) -> dict[str, Any]:
    """Run a round, and return what it came to."""
    settings, folder = this.settings, this.folder
    slots = write_rows(
        folder / "slots.jsonl",
        [{"id": f"r{this.number}-{i}", "prompt": f"slot {i}"} for i in range(settings.num_instructions)],
    )
    shared = {key: value for key, value in settings.sampling.items() if key not in ("max_tokens", "tries")}
    asked = {"name": "self_instruct", **shared, "language": settings.language, "pool": this.pool}
    instructions = this.build("instructions", asked, slots)
    fresh = new_ones(instructions.rows(), settings.likeness)
    prompts = write_rows(
        folder / "prompts.jsonl",
        [
            {"id": r["id"], "prompt": r["messages"][0]["content"]}
            for r in fresh
            for _ in range(settings.samples)
        ],
    )
    responses = this.build("responses", {"name": "respond", **settings.sampling}, prompts, this.generator)
    initial = this.longer_ones("initial", responses)
    drafts = write_rows(
        folder / "drafts.jsonl",
        [{"id": r["id"], "messages": r["messages"]} for r in initial.rows() for _ in range(settings.samples)],
    )
    method = {"name": "extend", **settings.sampling, **settings.extension}
    extensions = this.build("extensions", method, drafts, this.extender)
    pairs = this.longer_ones("pairs", extensions).rows()
    if not pairs:
        raise ConfigError(
            f"round {this.number} has no pair to train on: {extensions.path}/dropped.jsonl has the reasons; raise "
            "num_instructions or sampling.tries, or take a stronger model"
        )
    this.generator = this.train("generator", write_rows(folder / "generator.jsonl", generator_rows(pairs)))
    this.extender = this.train(
        "extender", write_rows(folder / "extender.jsonl", extender_rows(pairs, settings.seed))
    )
    this.pool = [*this.pool, str(instructions.path)]
    steps = {"instructions": instructions, "responses": responses, "extensions": extensions}
    return {"round": this.number, "new_instructions": len(fresh), **summary(steps, len(pairs))}


def summary(steps: Mapping[str, RunDir], num_pairs: int) -> dict[str, Any]:
    """Return the numbers of a round over all attempts: one that was refused has not grown."""
    kept = steps["extensions"].rows()
    refused = steps["extensions"].rows("dropped.jsonl")
    before = [count_cjk_ws(row["initial"]) for row in kept]
    after = [row["length"]["words_longen"] for row in kept]
    unchanged = [count_cjk_ws(row["messages"][-1]["content"]) for row in refused]
    responses = steps["responses"].rows()
    ratios = [b / max(1, a) for a, b in zip(before, after, strict=True)] + [1.0] * len(unchanged)
    reasons: Counter[str] = Counter()
    for name, run in steps.items():
        for row in run.rows("dropped.jsonl"):
            reasons[f"{name}: {row['reason']}"] += 1
    seconds = sum(run.manifest["wall_seconds"] for run in steps.values())
    attempts = len(kept) + len(refused)
    return {
        "responses_kept": share(steps["responses"]),
        "extensions_kept": share(steps["extensions"]),
        "pairs": num_pairs,
        "median_response_words": median([row["length"]["words_longen"] for row in responses]),
        "median_initial_words": median([*before, *unchanged]),
        "median_extended_words": median([*after, *unchanged]),
        "median_ratio": median(ratios),
        "mean_ratio": round(sum(ratios) / attempts, 3) if attempts else None,
        "reasons": dict(reasons.most_common()),
        "generation_minutes": round(seconds / 60, 1),
    }


def share(run: RunDir) -> str:
    """Return how many inputs of a build were kept."""
    counts = run.manifest["counts"]
    return f"{counts['kept']} of {counts['inputs']}"


def median(values: Sequence[float]) -> float | None:
    """Return the median, None of nothing."""
    return round(statistics.median(values), 3) if values else None


def shown(row: Mapping[str, Any]) -> str:
    """Return a round's numbers in lines."""
    lines = [f"round {row['round']}"]
    lines += [f"  {key:<24}{value}" for key, value in row.items() if key not in ("round", "reasons")]
    return "\n".join([*lines, *(f"    {number:>5}  {reason}" for reason, number in row["reasons"].items())])


def main() -> int:
    """Run the rounds one after the other, and say what each came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML with the fields of `Settings`")
    parser.add_argument("--rounds", type=int, help="wins over the file")
    parser.add_argument("--output_dir", help="wins over the file")
    args = parser.parse_args()
    given = {key: value for key, value in vars(args).items() if key != "config" and value is not None}
    settings = build_component(Settings, {**load_yaml(args.config), **given}, where=str(args.config))
    this, found = Round(1, settings), []
    for number in range(1, settings.rounds + 1):
        this = Round(number, settings, this.generator, this.extender, this.pool)
        found.append(run_round(this))
        print(shown(found[-1]), flush=True)
    print(json.dumps(found, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
