"""Scratch folders of killed processes go at the next start; those of living ones stay."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lengthwise.scratch import Scratch, remove_abandoned

OWNER = """
import sys, tempfile, time
from lengthwise.scratch import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch("engine")
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
    mine = Scratch("sandbox")
    assert remove_abandoned() == [] and (left / "adapter").is_dir()  # its owner lives
    owner.kill()
    owner.wait()
    assert left.is_dir()
    assert remove_abandoned() == [left]
    assert not left.exists() and mine.path.is_dir()
    mine.remove()
    assert list(folder.iterdir()) == []


def test_what_is_not_ours_or_not_yet_locked_is_left_alone(folder):
    for name in ("other", "lengthwise-engine-being-made"):
        (folder / name).mkdir()
    (folder / "lengthwise-engine-file").write_text("")
    assert remove_abandoned(folder) == []
    assert len(list(folder.iterdir())) == 3


def test_a_second_removal_does_nothing(folder):
    scratch = Scratch("engine")
    scratch.remove()
    scratch.remove()
    assert not scratch.path.exists()


def test_a_folder_that_is_gone_already_is_removed(folder):
    scratch = Scratch("sandbox")
    shutil.rmtree(scratch.path)
    scratch.remove()
    assert list(folder.iterdir()) == []


def test_folders_in_folders_without_end_go_too(folder):
    scratch = Scratch("sandbox")
    inner = "import os\nfor _ in range(3000):\n    os.mkdir('a')\n    os.chdir('a')"
    subprocess.run([sys.executable, "-c", inner], cwd=scratch.path, check=True)
    scratch.remove()
    assert not scratch.path.exists()
