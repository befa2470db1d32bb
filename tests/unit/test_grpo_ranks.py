"""One process trains as two do: groups are chosen, and length is penalised, on what all of them wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model

from lengthwise.engines.orphans import children_die_with_us

SCRIPT = Path(__file__).with_name("grpo_on_ranks.py")


GROUP_SIZES = {"whole_groups": 4, "a_group_on_both": 8}


def trained(base: Path, folder: Path, processes: int) -> dict[int, Any]:
    """Return what was trained for each size of a group, on one process or several."""
    folder.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [str(SCRIPT), str(base), str(folder), *map(str, GROUP_SIZES.values())]
    with children_die_with_us():
        done = subprocess.run(
            [sys.executable, *(torchrun if processes > 1 else []), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in GROUP_SIZES.values()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[dict[int, Any], dict[int, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    base = tiny_model(folder / "base")
    return trained(base, folder / "one", 1), trained(base, folder / "two", 2)


@pytest.mark.parametrize("group_size", GROUP_SIZES.values(), ids=GROUP_SIZES.keys())
def test_two_processes_train_as_one(runs, group_size):
    one, two = (found[group_size] for found in runs)
    assert len(one["noted"]) == 2
    selected = [line["shaping/selected_frac"] for line in one["logs"] if "shaping/selected_frac" in line]
    assert any(share > 0 for share in selected)
    for first, second in zip(one["noted"], two["noted"], strict=True):
        assert first["prompts"] == second["prompts"]
        assert first["length_shaping"] == pytest.approx(second["length_shaping"], nan_ok=True)
        assert first["even"] == pytest.approx(second["even"], nan_ok=True)
        assert first["advantages"] == pytest.approx(second["advantages"], abs=1e-6)
        assert any(first["advantages"]) and any(value for value in first["length_shaping"] if value == value)
    for first, second in zip(one["logs"][:2], two["logs"][:2], strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    for name, value in one["weights"].items():
        assert value == pytest.approx(two["weights"][name], rel=1e-5, abs=1e-4), name
