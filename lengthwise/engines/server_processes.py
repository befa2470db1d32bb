"""Servers of our own: started, waited for, watched, and gone with the job, however it ends.

Each is a session of its own, out of reach of the terminal's Ctrl-C, so that it answers until the job has stopped
asking. A job that is killed takes them along: see `lengthwise.engines.orphans`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from socket import socket
from typing import Any

from lengthwise.engines.base import EngineError
from lengthwise.engines.orphans import children_die_with_us
from lengthwise.engines.process_log import ProcessLog

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_REPORT_SECONDS = 15.0
_GRACE_SECONDS = 15.0
"""Time between the request to end and the kill; vLLM takes 2 to 6 s."""


def free_ports(num_ports: int) -> list[int]:
    """Return as many different ports that nobody on this machine listens to now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket()) for _ in range(num_ports)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerCommand:
    """How one server is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    """Added to this process's own."""
    health_url: str
    """Answers 200 when the server is ready."""


@dataclass(frozen=True, slots=True)
class _Running:
    number: int
    process: subprocess.Popen[bytes]
    log: ProcessLog
    health_url: str


class ServerProcesses:
    """Some servers of one model, whose logs lie in one folder."""

    def __init__(self, name: str, folder: Path):
        """Name them for messages; nothing is started yet."""
        self._name = name
        self._folder = folder
        self._servers: list[_Running] = []

    async def start(self, commands: Sequence[ServerCommand], limit_seconds: float) -> None:
        """Start the servers and wait until all are ready.

        Raises:
            EngineError: if one ends, or is not ready in time; with the cause that its log names.
        """
        # Not in a thread: the processes are bound to the life of the thread that starts them.
        with children_die_with_us():
            for number, command in enumerate(commands, 1):
                log = ProcessLog(self._folder / f"server-{number}.log")
                with open(log.path, "wb") as output:
                    process = subprocess.Popen(
                        list(command.arguments),
                        env={**os.environ, **command.environment},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                self._servers.append(_Running(number, process, log, command.health_url))
        self._say(f"starting {len(commands)} of them; their logs are in {self._folder}")
        await self._wait_until_ready(limit_seconds)

    async def _wait_until_ready(self, limit_seconds: float) -> None:
        began = reported = time.monotonic()
        waiting = list(self._servers)
        while True:
            for server in waiting:
                self._refuse_dead(server)
            ready = await asyncio.gather(*(asyncio.to_thread(_is_ready, s.health_url) for s in waiting))
            waiting = [s for s, is_ready in zip(waiting, ready, strict=True) if not is_ready]
            now = time.monotonic()
            if not waiting:
                self._say(f"all {len(self._servers)} are ready after {now - began:.0f} s")
                return
            if now - began >= limit_seconds:
                slow = waiting[0]
                raise EngineError(
                    slow.log.failure(
                        f"server {slow.number} of {len(self._servers)} is not ready after {limit_seconds:g} s "
                        "(engine.start_seconds)",
                        f"its log ends with {slow.log.last_line()!r}",
                    )
                )
            if now - reported >= _REPORT_SECONDS:
                num_ready = len(self._servers) - len(waiting)
                self._say(f"{num_ready} of {len(self._servers)} are ready after {now - began:.0f} s")
                reported = now
            await asyncio.sleep(_POLL_SECONDS)

    def _refuse_dead(self, server: _Running) -> None:
        code = server.process.poll()
        if code is not None:
            what = f"server {server.number} of {len(self._servers)} ended with exit code {code} at its start"
            raise EngineError(server.log.failure(what, self._cause(server)))

    async def wait_until_all_are_gone(self) -> str:
        """Return why the last server ended, once none is left; each one that ends is told of."""
        alive = list(self._servers)
        while True:
            for server in [s for s in alive if s.process.poll() is not None]:
                alive.remove(server)
                what = f"server {server.number} of {len(self._servers)} ended while it was needed"
                failure = server.log.failure(what, self._cause(server))
                if not alive:
                    return failure
                _log.warning("%s The others go on", failure)
            await asyncio.sleep(_POLL_SECONDS)

    @staticmethod
    def _cause(server: _Running) -> str:
        code = server.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}, as the system does when memory runs out"
        return server.log.cause() or server.log.last_line() or "its log is empty"

    async def stop(self) -> None:
        """End the servers; no process of theirs is left."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.process.terminate()
        await asyncio.to_thread(_end, [server.process for server in servers])

    def _say(self, what: str) -> None:
        print(f"{self._name}: {what}", file=sys.stderr, flush=True)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it, or what it has left behind
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with _open(url) as reply:
            return reply.status == 200
    except (OSError, HTTPException):
        return False


def told_context(base_url: str, key: str | None) -> int:
    """Return the context's length in tokens that a server of vLLM tells with its list of models."""
    with _open(f"{base_url}/models", {"Authorization": f"Bearer {key}"} if key else {}) as reply:
        models = json.load(reply)["data"]
    return next(model["max_model_len"] for model in models if model.get("max_model_len"))


def _open(url: str, headers: Mapping[str, str] | None = None) -> Any:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this machine
    return direct.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=10)
