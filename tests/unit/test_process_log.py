from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lengthwise.engines.process_log import ProcessLog, find_cause, one_line

# As vLLM 0.32 prints them.
WORKER = (
    "(Worker pid=14790) ERROR 11-24 18:48:19 [multiproc_executor.py:1063] RuntimeError: [enforce fail at "
    "alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8587837440 bytes."
)
CORE = (
    "(EngineCore pid=14779) ERROR 11-24 18:48:19 [core.py:1510]     raise RuntimeError(\n"
    "(EngineCore pid=14779) ERROR 11-24 18:48:19 [core.py:1510] RuntimeError: Worker failed with error 'x', please "
    "check the stack trace above for the root cause"
)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("", None),
        ("Loading safetensors checkpoint shards: 100%", None),
        ("ValueError: no room", "ValueError: no room"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n", "torch.OutOfMemoryError: CUDA out of memory."),
        (f"{WORKER}\n{CORE}\n", WORKER.partition("] ")[2]),
        ("KeyError: 1\nValueError: 2\nlast words", "ValueError: 2"),
        ("He said ValueError: no", None),
    ],
)
def test_the_cause_is_the_last_error_that_is_one(log, cause):
    assert find_cause(log) == cause


def test_an_error_of_pydantic_fits_on_a_line():
    error = ValueError(
        "1 validation error for X\nmax_num_seqs\n  Input should be 1\n    For further information x"
    )
    assert one_line(error) == "1 validation error for X max_num_seqs Input should be 1"


def say(text: str) -> None:
    """Write as the processes do: pytest has put something else in the place of sys.stdout."""
    os.write(1, text.encode())


def test_what_is_started_inside_goes_on_writing_to_the_file(tmp_path: Path, capfd):
    log = ProcessLog(tmp_path / "log")
    assert log.cause() is None and log.keep() is None
    code = "import sys; sys.stdin.readline(); print('late'); raise ValueError('why')"
    say("before\n")
    with log.capture():
        say("inside\n")
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    say("after\n")
    child.communicate("go\n")
    assert capfd.readouterr().out == "before\nafter\n"
    text = log.path.read_text()
    assert "inside" in text and "late" in text and "Traceback" in text
    assert log.cause() == "ValueError: why"
    kept = log.keep()
    assert kept is not None and kept.read_text() == text
    kept.unlink()


def test_a_librarys_logger_writes_to_the_file_while_it_is_captured(tmp_path: Path):
    log, stream = ProcessLog(tmp_path / "log"), io.StringIO()
    logger = logging.getLogger("some_library")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.error("before")
    with log.capture_logger("some_library"):
        logger.error("inside")
    logger.error("after")
    logger.removeHandler(handler)
    assert stream.getvalue() == "before\nafter\n"
    assert log.path.read_text() == "inside\n"


def test_an_error_inside_gives_the_terminal_back(tmp_path: Path, capfd):
    log = ProcessLog(tmp_path / "log")
    with pytest.raises(KeyError), log.capture():
        say("inside\n")
        raise KeyError
    say("after\n")
    assert capfd.readouterr().out == "after\n"
