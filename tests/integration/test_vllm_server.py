"""Servers that the job starts: an adapter's answers, the death of one and of all, and that none outlives the job."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_jobs import gone_within, job_with, started_by
from random_adapters import write_adapter

from lengthwise.devices import num_cores
from lengthwise.engines import build_engine, open_engine
from lengthwise.engines.base import Engine, EngineDead, Sampling
from lengthwise.models import EMBEDDED, resolve_model
from lengthwise.records import user
from lengthwise.scratch import remove_abandoned

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(num_cores() < 2, reason="two servers need two cores"),
]

PROMPTS = [user(f"Write one line about the number {number}.") for number in range(6)]
GREEDY = Sampling(temperature=0.0, max_tokens=12)


@dataclass
class Served:
    """Two servers of an adapter, in float32 so that their texts can be compared."""

    engine: Engine
    runner: asyncio.Runner
    adapter: str

    def texts(self) -> list[str]:
        async def ask() -> list[str]:
            replies = await asyncio.gather(*(self.engine.generate(prompt, GREEDY) for prompt in PROMPTS))
            return [reply.text for (reply,) in replies]

        return self.runner.run(ask())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    adapter = str(write_adapter(tmp_path_factory.mktemp("adapter"), resolve_model(EMBEDDED).path, seed=1))
    spec = {
        "name": "vllm_server",
        "num_servers": 2,
        "max_model_len": 256,
        "dtype": "float32",
        "cpu_kv_cache_gib": 1,
    }
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        engine = build_engine(spec, EMBEDDED, adapter)
        stack.callback(lambda: runner.run(engine.stop()))
        runner.run(engine.start())
        yield Served(engine, runner, adapter)


def test_the_adapter_answers_and_has_its_own_identity(served):
    async def by_transformers() -> tuple[str, list[str]]:
        spec = {"name": "hf", "dtype": "float32", "max_model_len": 256}
        async with open_engine(spec, EMBEDDED, served.adapter) as engine:
            texts = [(await engine.generate(prompt, GREEDY))[0].text for prompt in PROMPTS]
            return engine.weights_identity(), texts

    identity, texts = served.runner.run(by_transformers())
    assert served.texts() == texts
    assert served.engine.weights_identity() == identity != resolve_model(EMBEDDED).identity
    assert served.engine.context_length == 256


def test_one_server_killed_is_told_of_and_the_other_answers(served, caplog):
    before = served.texts()
    with caplog.at_level(logging.WARNING):
        served.engine._servers._servers[0].process.kill()
        assert served.texts() == before
    assert gone_within(0, os.getpid()) is False  # the other lives


def test_when_all_are_killed_the_run_stops_with_one_message(served):
    """It ends the servers of this module: no test that needs them may follow."""
    for server in served.engine._servers._servers:
        server.process.kill()
    with pytest.raises(EngineDead, match=r"server [12] of 2 ended while it was needed: killed by SIGKILL"):
        served.texts()
    served.runner.run(served.engine.stop())
    assert gone_within(10, os.getpid()), started_by(os.getpid())


# --- the end of the job ---------------------------------------------------------------------------


def test_a_kill_while_they_answer_leaves_no_process_and_their_scratch_goes_at_the_next_start(tmp_path):
    with job_with(tmp_path, name="vllm_server", num_servers=2) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "started\n"
        time.sleep(3)
        assert sum("EngineCore" in command for command in started_by(job.pid).values()) == 2
        job.kill()
        assert gone_within(15, job.pid), started_by(job.pid)
    assert len(remove_abandoned(tmp_path)) == 1


@pytest.mark.parametrize(
    ("blow", "seconds"),
    [(signal.SIGKILL, 0.0), (signal.SIGKILL, 8.0), (signal.SIGINT, 8.0), (signal.SIGTERM, 8.0)],
)
def test_a_job_that_ends_while_they_start_leaves_no_process(tmp_path, blow, seconds):
    with job_with(tmp_path, name="vllm_server", num_servers=2) as job:
        deadline = time.monotonic() + 300
        while len(started_by(job.pid)) < 2:
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(seconds)
        job.send_signal(blow)
        job.wait(60)
        assert gone_within(15, job.pid), started_by(job.pid)
    assert len(remove_abandoned(tmp_path)) == (0 if blow == signal.SIGINT else 1)


def test_a_flag_that_vllm_does_not_have_is_named(tmp_path):
    with job_with(tmp_path, name="vllm_server", server_options={"max_num_seq": "eight"}) as job:
        assert job.wait(300) == 1
        said = (Path(tmp_path) / "log").read_text()
        assert "stopped: engine: server 1 of 1 ended with exit code 2 at its start: " in said
        assert "max-num-seq" in said and "Traceback" not in said
