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


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "base")


def trained(base: Path, folder: Path, processes: int, group_size: int) -> dict[str, Any]:
    folder.mkdir()
    out = folder / "out.json"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *launch, str(SCRIPT), str(base), str(out), str(group_size)]
    with children_die_with_us():
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize("group_size", [4, 8], ids=["whole_groups", "a_group_on_both"])
def test_two_processes_train_as_one(base, tmp_path, group_size):
    one, two = (trained(base, tmp_path / f"of_{n}", n, group_size) for n in (1, 2))
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
