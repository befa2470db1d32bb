"""`posttrain/grpo.py` with vLLM left at the weights it began with: `python grpo_without_sync.py FLAGS...`."""

from __future__ import annotations

import sys

from trl.generation.vllm_generation import VLLMGeneration

from posttrain import grpo

if __name__ == "__main__":
    VLLMGeneration.sync_weights = lambda self: None
    raise SystemExit(grpo.main(sys.argv[1:]))
