#!/usr/bin/env bash
# Writes requirements.lock from what .venv holds. torch, vLLM and the embedded model are pinned in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
{
    sed -n '/^#/p' requirements.lock
    .venv/bin/python -m pip list --format=freeze |
        grep -viE '^(torch|torchvision|torchaudio|torchcodec|triton|nvidia[-_].*|vllm.*|llm.smollm2|lengthwise|pip)=='
} > requirements.lock.new
mv requirements.lock.new requirements.lock
