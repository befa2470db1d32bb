"""Which walls this machine can put around a program, found by trying, and the command that puts them up.

From weak to strong: `process` has limits and a filter of system calls; `landlock` also shuts off all files but Python's
own and the program's folder; `userns` also gives it a network, processes and semaphores of its own, with nothing in
them; `bwrap` (bubblewrap) also a file system of its own. What is missing depends on kernel, container and privileges.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from lengthwise.sandbox.outcomes import RUNGS, Isolation

LAUNCHER = Path(__file__).with_name("launcher.py")
PROBE_SECONDS = 20.0

_UNSHARE = ("--net", "--ipc", "--pid", "--fork", "--kill-child")
_BINARY_PATHS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/urandom", "/dev/zero")


def interpreter() -> str:
    """Return the Python behind a virtual environment: a program sees no packages of ours unless it may."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def package_paths() -> list[str]:
    """Return where installed packages lie."""
    found = [*site.getsitepackages(), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    return list(dict.fromkeys(os.path.realpath(path) for path in found if os.path.isdir(path)))


def readable_paths(*, site_packages: bool) -> list[str]:
    """Return what a program must be able to read for Python to run."""
    own = [sys.base_prefix, interpreter(), *_BINARY_PATHS, *_DEVICES]
    return [path for path in [*own, *(package_paths() if site_packages else [])] if os.path.exists(path)]


def command(isolation: Isolation, folder: str, readable: list[str]) -> list[str]:
    """Return the command up to the launcher's own arguments."""
    # Isolated (-I) but for the environment, which is ours: a hash seed, so that sets print alike in each run.
    python = [interpreter(), "-P", "-s", "-S", str(LAUNCHER)]
    if isolation == "userns":
        return [*_dies_with_parent(), "unshare", *_user_namespace(), *_UNSHARE, *python]
    if isolation == "bwrap":
        bound = [arg for path in [*readable, str(LAUNCHER.parent)] for arg in ("--ro-bind", path, path)]
        return [
            "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--dev", "/dev", "--tmpfs", "/tmp", *bound,
            "--bind", folder, folder, "--chdir", folder, *python,
        ]  # fmt: skip
    return python


@cache
def available() -> tuple[Isolation, ...]:
    """Return the rungs that work here, from weak to strong: each has run a program."""
    return tuple(rung for rung in RUNGS if works(rung) is None)


@cache
def works(isolation: Isolation) -> str | None:
    """Return None if a rung runs a program here, else why it does not."""
    needed = {"userns": ["unshare", "setpriv"], "bwrap": ["bwrap"]}.get(isolation, [])
    missing = [name for name in needed if shutil.which(name) is None]
    if sys.platform != "linux":
        return "only Linux has it" if isolation != "process" else None
    if missing:
        return f"{missing[0]} is not installed"
    from lengthwise.sandbox.execute import run_script
    from lengthwise.sandbox.outcomes import Limits

    ran = run_script("print(6 * 7)", limits=Limits(seconds=PROBE_SECONDS), isolation=isolation)
    return None if ran.outcome == "ended" and ran.output.strip() == "42" else ran.detail or ran.outcome


@cache
def _user_namespace() -> tuple[str, ...]:
    """Return the flags of a user namespace, or none where root may do without and users may not have one."""
    flags = ("--user", "--map-root-user")
    try:
        tried = subprocess.run(
            ["unshare", *flags, "true"], capture_output=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return flags
    return flags if tried.returncode == 0 or os.geteuid() != 0 else ()


def _dies_with_parent() -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL"]
