"""Scratch folders of killed processes go at the next start; those of living ones stay."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lengthwise.engines.scratch import Scratch, remove_abandoned

OWNER = """
import sys, tempfile, time
from lengthwise.engines.scratch import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch()
(scratch.path / "adapter").mkdir()
print(scratch.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def test_the_folder_of_a_killed_owner_goes_at_the_next_start(folder, owner):
    left = Path(owner.stdout.readline().strip())
    mine = Scratch()
    assert (left / "adapter").is_dir()  # its owner lives
    owner.kill()
    owner.wait()
    assert left.is_dir()
    other = Scratch()
    assert not left.exists()
    assert mine.path.is_dir() and other.path.is_dir()
    mine.remove()
    other.remove()
    assert list(folder.iterdir()) == []


def test_what_is_not_ours_or_not_yet_locked_is_left_alone(folder):
    for name in ("other", "lengthwise-engine-being-made"):
        (folder / name).mkdir()
    (folder / "lengthwise-engine-file").write_text("")
    assert remove_abandoned(folder) == []
    assert len(list(folder.iterdir())) == 3


def test_a_second_removal_does_nothing(folder):
    scratch = Scratch()
    scratch.remove()
    scratch.remove()
    assert not scratch.path.exists()
