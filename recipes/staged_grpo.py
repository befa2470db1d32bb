"""Reinforcement learning in stages: `lengthwise grpo` with more room for answers each time a stage is over.

    python recipes/staged_grpo.py --config staged.yaml [--accelerate_config NAME] [--key value ...]

The config is any of `lengthwise grpo` with `stages: {lengths: [8192, 16384, 24576]}`. Stop it and start it again as you
like: each stage begins from a checkpoint of the one before, with its optimizer, and the run folder is one.
"""

from __future__ import annotations

import subprocess
import sys

from posttrain.stages import STAGE_OVER


def main() -> int:
    """Give the command until it ends otherwise than with a stage; returns its exit code."""
    if not sys.argv[1:] or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0
    command = [sys.executable, "-m", "lengthwise.cli", "grpo", *sys.argv[1:]]
    while (code := subprocess.run(command, check=False).returncode) == STAGE_OVER:
        print("staged_grpo: on to the next stage", flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
