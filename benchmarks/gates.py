"""What the gate finds of 100,000 synthetic rows with planted duplicates and evaluation prompts, and what that costs.

    python benchmarks/gates.py [--rows 100000]

Texts are random words of a skewed vocabulary, so that no two are alike by chance. Planted are, 1 % of the rows each:

- answers that are an earlier row's with words changed, of likeness just above 0.8, above 0.9, and 1;
- answers of likeness 0.7 to 0.75, which must stay: what is refused of them is a false alarm;
- prompts of an evaluation set, with words around them.

One process runs `lengthwise build` with the builder `gate`; its time and its peak memory are what is printed. The last
line is one JSON object; the exit code is 1 where a recall is below 0.95 or the peak above 2 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lengthwise.job import job
from lengthwise.near_duplicates import jaccard, shingles

PLANTED = {"likeness 0.8": (0.8, 0.82), "likeness 0.9": (0.9, 0.92), "likeness 1": (1.0, 1.0)}
STAYS = {"likeness 0.7": (0.7, 0.75)}
EVALUATION = "evaluation prompt"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--share", type=float, default=0.01, help="of the rows, for each kind that is planted"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Words:
    """Random text."""

    def __init__(self, seed: int) -> None:
        """Make the vocabulary: 30,000 words, the n-th as frequent as 1 / (n + 50)."""
        self.stream = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.vocabulary = [
            "".join(self.stream.choices(letters, k=self.stream.randint(3, 9))) for _ in range(30_000)
        ]
        self.sums: list[float] = []
        for n in range(len(self.vocabulary)):
            self.sums.append((self.sums[-1] if self.sums else 0.0) + 1 / (n + 50))

    def text(self, least: int, most: int) -> list[str]:
        """Return words of a text."""
        return self.stream.choices(self.vocabulary, cum_weights=self.sums, k=self.stream.randint(least, most))

    def alike(self, words: list[str], low: float, high: float) -> list[str]:
        """Return the words with some changed, so that the likeness of 5-word runs lies between two numbers."""
        if low == 1:
            return list(words)
        original = shingles(" ".join(words), 5)
        while True:
            changed = list(words)
            while (found := jaccard(original, shingles(" ".join(changed), 5))) > high:
                changed[self.stream.randrange(len(changed))] = self.stream.choice(self.vocabulary)
            if found >= low:
                return changed


def rows(args: argparse.Namespace, evaluation: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with the kind it was planted as, "" for most; a copy always follows what it copies."""
    words = Words(args.seed)
    number = round(args.share * args.rows)
    kinds = [kind for kind in (*PLANTED, *STAYS, EVALUATION) for _ in range(number)]
    kinds += [""] * (args.rows - len(kinds) - number)
    words.stream.shuffle(kinds)
    originals: list[list[str]] = []
    for index, kind in enumerate([""] * number + kinds):
        prompt, answer = words.text(15, 40), words.text(100, 300)
        if kind in PLANTED or kind in STAYS:
            answer = words.alike(originals.pop(), *({**PLANTED, **STAYS}[kind]))
        elif kind == EVALUATION:
            prompt = [*prompt[:5], words.stream.choice(evaluation), *prompt[5:8]]
        elif len(originals) < 10 * number:
            originals.insert(words.stream.randrange(len(originals) + 1), answer)
        yield kind, {"id": f"{index}", "prompt": " ".join(prompt), "completion": " ".join(answer) + "."}


def main() -> int:
    """Write the rows, run the gate, count."""
    args = arguments()
    words = Words(args.seed + 1)
    evaluation = [" ".join(words.text(20, 60)) for _ in range(500)]
    kinds = {}
    with tempfile.TemporaryDirectory(prefix="gates_") as scratch:
        data, evals, run = Path(scratch) / "rows.jsonl", Path(scratch) / "evals.jsonl", Path(scratch) / "run"
        evals.write_text("".join(json.dumps({"question": text}) + "\n" for text in evaluation))
        with data.open("w") as file:
            for kind, row in rows(args, evaluation):
                kinds[row["id"]] = kind
                file.write(json.dumps(row) + "\n")
        start = time.monotonic()
        job(
            "build",
            name="gates",
            builder={"name": "gate", "decontaminate": [{"path": str(evals), "column": "question"}]},
            data=str(data),
            output_dir=str(run),
        )
        minutes = (time.monotonic() - start) / 60
        with (run / "dropped.jsonl").open() as file:
            dropped = {row["id"]: row["reason"] for row in map(json.loads, file)}
    planted = Counter(kinds.values())
    wanted = {**dict.fromkeys(PLANTED, "duplicate answer"), EVALUATION: EVALUATION}
    recall = {
        kind: sum(dropped.get(key) == reason for key, own in kinds.items() if own == kind) / planted[kind]
        for kind, reason in wanted.items()
    }
    right = sum(wanted.get(kinds[key]) == reason for key, reason in dropped.items())
    found = {
        "rows": args.rows,
        "planted": {kind: planted[kind] for kind in (*wanted, *STAYS)},
        "recall": recall,
        "precision": right / len(dropped),
        "refused_of_likeness_0.7": sum(kinds[key] in STAYS for key in dropped),
        "minutes": round(minutes, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2, 2),
    }
    for name, value in found.items():
        print(f"{name:<26}{value}")
    print(json.dumps(found))
    return 0 if min(recall.values()) >= 0.95 and found["peak_gb"] < 2 else 1


if __name__ == "__main__":
    raise SystemExit(main())
