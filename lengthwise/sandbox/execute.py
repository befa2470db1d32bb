"""Starts one confined program and watches it: it never writes more, and never runs longer, than it may."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.sandbox.isolation import command, package_paths, readable_paths
from lengthwise.sandbox.outcomes import Isolation, Limits
from lengthwise.scratch import Scratch

MOST_REPORTED = 64 * 1024
"""Bytes of reports that are read."""
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a process left behind."""

    outcome: str
    """An outcome of a test, or "ended" for a program that ran to its end."""
    detail: str = ""
    output: str = ""
    seconds: float = 0.0


@dataclass
class _Child:
    """A process under watch."""

    process: subprocess.Popen[bytes]
    reports: int
    """Descriptor that its reports come from."""
    output: int | None = None
    reported: bytearray = field(default_factory=bytearray)
    written: bytearray = field(default_factory=bytearray)

    def entries(self) -> list[dict[str, Any]]:
        found = []
        for line in bytes(self.reported).split(b"\n"):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("outcome"), str):
                    found.append(entry)
        return found


def run_script(source: str, *, limits: Limits, isolation: Isolation, stdin: str = "") -> Ran:
    """Run a program with an input, and return its output.

    Returns:
        outcome "ended", or what stopped it.
    """
    try:
        return _run_script(source, limits, isolation, stdin)
    except OSError as error:  # such as a full disk
        return Ran(outcome="sandbox_error", detail=str(error))


def _run_script(source: str, limits: Limits, isolation: Isolation, stdin: str) -> Ran:
    start = time.monotonic()
    with _folder(source) as folder:
        (folder.parent / "input").write_text(stdin, encoding="utf-8", errors="surrogatepass")
        with (folder.parent / "input").open("rb") as given:
            output, target = os.pipe()
            try:
                child = _start("script", folder, limits, isolation, stdin=given.fileno(), stdout=target)
            except OSError:
                os.close(output)
                raise
            finally:
                os.close(target)
            child.output = output
            stopped = _watch([child], start + limits.seconds, limits.output_kb * 1024)
            _end(child)
    text = bytes(child.written).decode("utf-8", "replace")
    outcome, detail = _how_it_ended(child, limits)
    if stopped is not None and outcome != "sandbox_error":  # what did not start is no fault of the program
        outcome, detail = stopped
    return Ran(outcome=outcome, detail=detail, output=text, seconds=time.monotonic() - start)


def run_test(
    source: str, test: str, *, limits: Limits, isolation: Isolation, names: Sequence[str] = ()
) -> Ran:
    """Run a test's own code against the functions of a program; each of the two is in a process of its own.

    Args:
        source: the program.
        test: code that raises unless the program is right.
        limits: of each of the two.
        isolation: of each of the two.
        names: the program's functions that the test may call; none: all but those named like a builtin.

    Returns:
        outcome "passed" if the test went through, else what it or the program came to.
    """
    try:
        return _run_test(source, test, limits, isolation, names)
    except OSError as error:
        return Ran(outcome="sandbox_error", detail=str(error))


def _run_test(source: str, test: str, limits: Limits, isolation: Isolation, names: Sequence[str]) -> Ran:
    start = time.monotonic()
    with _folder(source) as folder, _folder(test) as judging:
        asked, asks = os.pipe()
        answered, answers = os.pipe()
        children: list[_Child] = []
        try:
            children.append(_start("functions", folder, limits, isolation, stdin=asked, stdout=answers))
            children.append(
                _start(
                    "judge", judging, limits, isolation, stdin=None, stdout=None,
                    passed=(asks, answered), requests=asks, answers=answered, names=list(names),
                )
            )  # fmt: skip
        except OSError:
            for child in children:
                _end(child)
            raise
        finally:
            for descriptor in (asked, asks, answered, answers):
                os.close(descriptor)
        program, judge = children
        stopped = _watch([judge, program], start + limits.seconds, 0)
        for child in children:
            _end(child)
    outcome, detail = _verdict(stopped, program, judge, limits)
    return Ran(outcome=outcome, detail=detail, seconds=time.monotonic() - start)


def _verdict(
    stopped: tuple[str, str] | None, program: _Child, judge: _Child, limits: Limits
) -> tuple[str, str]:
    said = [entry for entry in judge.entries() if entry["outcome"] != "started"]
    if stopped is None and said and said[-1]["outcome"] not in ("program", "ended"):
        return said[-1]["outcome"], str(said[-1].get("detail", ""))
    if stopped is not None:
        own = _how_it_ended(program, limits)
        return own if own[0] in ("syntax", "sandbox_error") else stopped
    outcome, detail = _how_it_ended(program, limits)
    if outcome == "ended":
        return "runtime", "it ended before its functions were called, or in a call"
    return outcome, detail


@contextlib.contextmanager
def _folder(source: str) -> Iterator[Path]:
    """Make a folder of its own for a program, which goes with all that is in it."""
    scratch = Scratch("sandbox")
    try:
        folder = scratch.path / "work"
        folder.mkdir()
        (folder / "program.py").write_text(source, encoding="utf-8", errors="surrogatepass")
        yield folder
    finally:
        scratch.remove()


def _start(
    mode: str,
    folder: Path,
    limits: Limits,
    isolation: Isolation,
    *,
    stdin: int | None,
    stdout: int | None,
    passed: Sequence[int] = (),
    **settings: Any,
) -> _Child:
    readable = readable_paths(site_packages=limits.site_packages)
    reports, reporting = os.pipe()
    given = {
        "mode": mode,
        "folder": str(folder),
        "isolation": isolation,
        "readable": readable,
        "path": package_paths() if limits.site_packages else [],
        "report": reporting,
        "seconds": limits.seconds,
        "memory_mb": limits.memory_mb,
        "file_mb": limits.file_mb,
        **settings,
    }
    try:
        process = subprocess.Popen(
            [*command(isolation, str(folder), readable), json.dumps(given)],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=(reporting, *passed),
            cwd=folder,
            env={**_ENVIRONMENT, "HOME": str(folder), "TMPDIR": str(folder)},
            start_new_session=True,
        )
    except OSError:
        os.close(reports)
        raise
    finally:
        os.close(reporting)
    return _Child(process, reports)


def _watch(children: Sequence[_Child], deadline: float, most_output: int) -> tuple[str, str] | None:
    """Read until the first child has ended; return what had to stop it, None if nothing had."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.reports, selectors.EVENT_READ, (child, child.reported))
            if child.output is not None:
                selector.register(child.output, selectors.EVENT_READ, (child, child.written))
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout", "it ran out of time"
            for key, _ in selector.select(left):
                child, buffer = key.data
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fd)
                elif buffer is child.written or len(buffer) < MOST_REPORTED:
                    buffer += chunk
                if len(child.written) > most_output:
                    return "output_limit", f"it wrote more than {most_output // 1024} KB"
            if len(children) > 1 and children[0].reports not in selector.get_map():
                break  # the judge has spoken
    return None


def _end(child: _Child) -> None:
    """Kill what is left of a child, and of all it started, and wait for it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(0.2 if child.process.poll() is None else 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
    for descriptor in (child.reports, child.output):
        if descriptor is not None:
            os.close(descriptor)


def _how_it_ended(child: _Child, limits: Limits) -> tuple[str, str]:
    """Return outcome and detail of a process that nothing stopped."""
    entries, status = child.entries(), child.process.returncode
    if not entries or entries[0]["outcome"] != "started":
        first = entries[0] if entries else {}
        return "sandbox_error", str(first.get("detail") or f"it did not start (status {status})")
    last = entries[-1]
    if last["outcome"] in ("syntax", "runtime", "memory"):
        return last["outcome"], str(last.get("detail", ""))[:1000]
    if status == 0 or last["outcome"] == "ended":
        return "ended", ""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number:
        return "killed", f"by signal {number}"
    return "runtime", f"it left with status {status}"
