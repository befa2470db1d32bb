"""The whole loop on the embedded model: evaluate, build data, train on it, evaluate again, report.

    make demo            (or: python recipes/demo.py --output_dir outputs/demo)

Nothing is scripted or fixed: a 135M model writes its own data, learns from it, and the report says which way it
went. A stage that is finished is not run again, a killed one resumes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lengthwise.job import job, run_main
from lengthwise.report import main as report


def main() -> int:
    """Run the five stages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="default: outputs/demo")
    folder: Path = parser.parse_args().output_dir
    started = time.monotonic()

    base = job("eval", "configs/evals/demo.yaml", output_dir=folder / "eval_base", reuse=True)
    data = job("build", "configs/data/demo.yaml", output_dir=folder / "data", reuse=True)
    runs = [base, data]
    if data.manifest["counts"]["kept"]:
        model = job("sft", "configs/sft/demo.yaml", data=data.path, output_dir=folder / "model", reuse=True)
        tuned = job(
            "eval", "configs/evals/demo.yaml", model=model.path, output_dir=folder / "eval_tuned", reuse=True
        )
        runs += [model, tuned]
    else:
        print("the builder kept no row, so there is nothing to train on: the report shows why")

    page = folder / "report.html"
    code = report([*(str(run.path) for run in runs), "--output", str(page)])
    print(f"the demo took {(time.monotonic() - started) / 60:.1f} minutes; open {page}")
    return code


if __name__ == "__main__":
    raise SystemExit(run_main(main))
