"""What a row costs must not grow with the number of rows: counted in calls and bytes, never in seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from data_builders.run import main
from lengthwise.plugins import load_plugin

BUILDER = """
from dataclasses import dataclass

from lengthwise.engines.base import Sampling
from lengthwise.outcomes import Kept, Rejected

STARTED = []


@dataclass(kw_only=True)
class Config:
    pass


async def build(sample, callers, config):
    STARTED.append(sample.id)
    (reply,) = await callers["model"](sample.messages, Sampling(max_tokens=50), step="write")
    if sample.id.endswith("7"):
        return Rejected("seven")
    length = {"requested": None, "words_longbench": 50, "words_longen": 50, "tokens": reply.num_tokens}
    return Kept({"id": sample.id, "messages": [], "scores": {}, "length": length, "text": reply.text})
"""


@pytest.fixture
def builder(tmp_path: Path) -> ModuleType:
    (tmp_path / "one_call.py").write_text(BUILDER)
    return load_plugin("data_builders", str(tmp_path / "one_call.py"), wanted="build")


def build(folder: Path, num_rows: int, *extra: str) -> int:
    data = folder / f"prompts_{num_rows}.jsonl"
    lines = [json.dumps({"id": f"p{i:06}", "prompt": f"Write about {i:06}."}) for i in range(num_rows)]
    data.write_text("\n".join(lines))
    return main(
        [
            *("--model=script", "--engine.name=scripted", f"--builder.name={folder / 'one_call.py'}"),
            *(f"--data={data}", f"--output_dir={folder / f'run_{num_rows}'}", "--max_concurrent_samples=8"),
            *extra,
        ]
    )


def io_bytes() -> dict[str, int]:
    """Bytes that this process has read and written by system calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {key: int(value) for key, value in (line.split(": ") for line in lines[:2])}


def work_of(folder: Path, num_rows: int) -> dict[str, int]:
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = io_bytes()
    sys.setprofile(count)
    try:
        assert build(folder, num_rows) == 0
    finally:
        sys.setprofile(None)
    return {"calls": calls} | {key: value - before[key] for key, value in io_bytes().items()}


def test_the_work_for_a_row_does_not_grow(tmp_path, builder):
    work_of(tmp_path, 10)  # imports
    small, middle, large = (work_of(tmp_path, num_rows) for num_rows in (100, 200, 600))
    for kind in small:
        early = (middle[kind] - small[kind]) / 100
        late = (large[kind] - middle[kind]) / 400
        assert late < 1.15 * early, (kind, early, late)


def test_a_resumed_build_derives_no_row_again(tmp_path, builder):
    assert build(tmp_path, 200) == 0
    folder = tmp_path / "run_200"
    whole = [(folder / name).read_bytes() for name in ("data.jsonl", "dropped.jsonl")]
    generated = json.loads((folder / "manifest.json").read_text())["usage"]["completion_tokens"]
    for file in folder.iterdir():
        file.unlink()
    assert build(tmp_path, 200, f"--max_generated_tokens={generated * 3 // 4}") == 1
    builder.STARTED.clear()
    assert build(tmp_path, 200) == 0
    # The first 150 have their rows; the few after them have a call in the journal at most.
    assert len(builder.STARTED) <= 50 + 8
    assert builder.STARTED[0] >= "p000140" and sorted(builder.STARTED) == builder.STARTED
    assert [(folder / name).read_bytes() for name in ("data.jsonl", "dropped.jsonl")] == whole
