"""What vLLM does not do by itself: adapters beside the base, bad adapters, changed adapters, orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine_jobs import gone_within, job_with, started_by
from random_adapters import write_adapter

from lengthwise.config import ConfigError
from lengthwise.devices import best_dtype
from lengthwise.engines import build_engine, open_engine
from lengthwise.engines.base import Engine, EngineError, Sampling
from lengthwise.models import EMBEDDED, resolve_model
from lengthwise.records import Prompt, user
from lengthwise.scratch import remove_abandoned

pytestmark = [pytest.mark.real_model, pytest.mark.slow, pytest.mark.timeout(1200)]

ONE_TOKEN = Sampling(temperature=0.0, max_tokens=1, logprobs=True)
# Over two blocks of vLLM's prefix cache, so that a stale cache would show. The adapters' seeds are such that
# the first tokens' log-probabilities, by transformers in float32, lie further from each other and from the base's
# than two tolerances: an answer within its tolerance can belong to no other weights, whatever the CPU rounds.
PROMPT = user(
    "The tide comes in, the tide goes out, and nobody counts the waves. " * 18
    + "Write one line about the moon."
)
SEEDS = {"a": 1, "b": 14, "c": 21}
OTHER_SEED = 26
BATCH_TOLERANCE = 0.15
"""What the composition of a batch may move a log-probability by in bfloat16."""
REFERENCE_TOLERANCE = 0.01 if best_dtype() == "float32" else 0.3
"""vLLM against transformers in float32."""
SEPARATION = 0.6


@dataclass
class Served:
    """One vLLM engine for the module, the loop it lives on, and what transformers says of the same models."""

    engine: Engine
    runner: asyncio.Runner
    folder: Path
    reference: dict[str | None, float] = field(default_factory=dict)

    def adapter(self, name: str) -> str:
        return str(self.folder / name)

    def first_logprobs(self, *adapters: str | None, prompt: Prompt = PROMPT) -> list[float | BaseException]:
        """Ask all of them at once; a caller's error stands in its place."""

        async def ask(adapter: str | None) -> float:
            (reply,) = await self.engine.generate(prompt, ONE_TOKEN, adapter=adapter)
            assert reply.logprobs is not None
            return reply.logprobs[0]

        async def ask_all() -> list[float | BaseException]:
            return await asyncio.gather(*map(ask, adapters), return_exceptions=True)

        return self.runner.run(ask_all())

    def first_logprob(self, adapter: str | None) -> float:
        (value,) = self.first_logprobs(adapter)
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("adapters")
    base = resolve_model(EMBEDDED).path
    for name, seed in SEEDS.items():
        write_adapter(folder / name, base, seed=seed)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        reference = runner.run(reference_logprobs([None, *(str(folder / name) for name in SEEDS)]))
        spec = {
            "name": "vllm",
            "max_model_len": 512,
            "cpu_kv_cache_gib": 1,
            "enable_lora": True,
            "max_loras": 2,
        }
        engine = build_engine(spec, EMBEDDED)
        stack.callback(lambda: runner.run(engine.stop()))
        runner.run(engine.start())
        yield Served(engine, runner, folder, reference)


async def reference_logprobs(adapters: list[str | None]) -> dict[str | None, float]:
    values: dict[str | None, float] = {}
    async with open_engine({"name": "hf", "dtype": "float32", "max_model_len": 512}, EMBEDDED) as engine:
        for adapter in adapters:
            (reply,) = await engine.generate(PROMPT, ONE_TOKEN, adapter=adapter)
            assert reply.logprobs is not None
            values[adapter] = reply.logprobs[0]
    return values


# --- the base beside adapters ---------------------------------------------------------------------


def test_each_model_alone_answers_as_in_transformers(served):
    values = list(served.reference.values())
    assert min(abs(x - y) for i, x in enumerate(values) for y in values[:i]) > SEPARATION
    for adapter, expected in served.reference.items():
        assert served.first_logprob(adapter) == pytest.approx(expected, abs=REFERENCE_TOLERANCE)


def test_the_base_in_a_batch_with_adapters_is_still_the_base(served):
    # Three adapters fill all the places that vLLM has; while one is empty the base happens to be right.
    names = [None, *map(served.adapter, SEEDS)]
    alone = {name: served.first_logprob(name) for name in names}
    batch = [*names, *reversed(names), None, *names]
    for name, value in zip(batch, served.first_logprobs(*batch), strict=True):
        assert value == pytest.approx(alone[name], abs=BATCH_TOLERANCE)
    for name in names[1:]:
        base, other = served.first_logprobs(None, name)
        assert base == pytest.approx(alone[None], abs=BATCH_TOLERANCE)
        assert other == pytest.approx(alone[name], abs=BATCH_TOLERANCE)


# --- seeds ----------------------------------------------------------------------------------------


def test_seeded_requests_survive_more_prompt_tokens_than_one_batch_takes(served):
    # Prefilled in chunks, a seeded request makes vLLM 0.32 rewind a generator, which on CPU kills the engine.
    sampling = Sampling(temperature=1.0, max_tokens=2, seed=5)
    prompts = [user(f"Number {i}. " + "A wave comes in and a wave goes out. " * 36) for i in range(10)]

    async def ask_all() -> int:
        replies = await asyncio.gather(*(served.engine.generate(p, sampling) for p in prompts))
        return sum(len(reply) for reply in replies)

    assert sum(map(served.engine.count_tokens, prompts)) > 3000  # vLLM's batch is 2048 by default
    assert served.runner.run(ask_all()) == 10


# --- bad adapters ---------------------------------------------------------------------------------


def assert_refused_alone(served: Served, adapter: Path, error: type[Exception], words: str) -> None:
    """A bad adapter's caller gets an error, each time; those beside and after it do not notice."""
    good = served.adapter("a")
    for _ in range(2):
        before, refused, after = served.first_logprobs(good, str(adapter), None)
        assert isinstance(refused, error) and words in str(refused), refused
        assert before == pytest.approx(served.reference[good], abs=REFERENCE_TOLERANCE)
        assert after == pytest.approx(served.reference[None], abs=REFERENCE_TOLERANCE)


def test_a_wrong_path_is_an_error_to_its_caller_alone(served):
    assert_refused_alone(served, served.folder / "typo", ValueError, "typo has no adapter_config.json")


def test_a_cut_file_is_an_error_to_its_caller_alone(served):
    cut = write_adapter(served.folder / "cut", resolve_model(EMBEDDED).path, seed=5)
    weights = cut / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert_refused_alone(served, cut, ValueError, "is not a whole safetensors file")


def test_an_adapter_of_another_model_is_an_error_to_its_caller_alone(served):
    unfit = write_adapter(served.folder / "unfit", resolve_model(EMBEDDED).path, seed=5, narrower_by=64)
    assert_refused_alone(served, unfit, ValueError, "does not fit the model")


def test_what_vllm_does_not_serve_is_an_error_to_its_caller_alone(served):
    dora = write_adapter(served.folder / "dora", resolve_model(EMBEDDED).path, seed=5)
    config = dora / "adapter_config.json"
    config.write_text(config.read_text().replace("{", '{"use_dora": true, ', 1))
    assert_refused_alone(served, dora, ConfigError, "DoRA")


def test_an_adapter_that_vllm_can_load_only_in_part_is_refused_each_time(served):
    """VLLM takes it for loaded after the first failure and would serve the half."""
    base = resolve_model(EMBEDDED).path
    half = write_adapter(served.folder / "half", base, seed=5, rank=64)
    config = half / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 64', '"r": 8'))  # the matrices say otherwise
    assert_refused_alone(served, half, EngineError, "vLLM cannot serve")


# --- changed adapters -----------------------------------------------------------------------------


def test_an_adapter_overwritten_in_place_is_served_as_the_new_one(served):
    base = resolve_model(EMBEDDED).path
    changing = str(write_adapter(served.folder / "changing", base, seed=SEEDS["a"]))
    old = served.first_logprob(changing)
    assert old == pytest.approx(served.reference[served.adapter("a")], abs=REFERENCE_TOLERANCE)
    old_identity = served.engine.weights_identity(changing)

    write_adapter(Path(changing), base, seed=SEEDS["b"])
    new = served.first_logprob(changing)
    assert new == pytest.approx(served.first_logprob(served.adapter("b")), abs=BATCH_TOLERANCE)
    assert served.engine.weights_identity(changing) != old_identity

    write_adapter(Path(changing), base, seed=OTHER_SEED)  # content that no other folder has brought in
    (expected,) = served.runner.run(reference_logprobs([changing])).values()
    assert min(abs(expected - served.reference[served.adapter(name)]) for name in ("a", "b")) > SEPARATION
    assert served.first_logprob(changing) == pytest.approx(expected, abs=REFERENCE_TOLERANCE)


# --- the end --------------------------------------------------------------------------------------


def test_a_clean_stop_leaves_no_process(served):
    """It stops the engine of this module: no test that needs it may follow."""
    owner = os.getpid()
    assert started_by(owner)
    scratch = served.engine._process_log.path.parent
    assert scratch.is_dir()
    served.runner.run(served.engine.stop())
    left = [command for command in started_by(owner).values() if "resource_tracker" not in command]
    assert left == []  # Python's own resource tracker stays as long as this process
    assert not scratch.exists()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with job_with(tmp_path) as process:
        yield process


def test_a_kill_while_it_generates_leaves_no_process_and_its_scratch_goes_at_the_next_start(job, tmp_path):
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"
    time.sleep(3)
    assert len(started_by(job.pid)) >= 2
    job.kill()
    assert gone_within(10, job.pid), started_by(job.pid)
    assert len(remove_abandoned(tmp_path)) == 1


def test_a_kill_of_two_replicas_leaves_no_process(tmp_path):
    with job_with(tmp_path, data_parallel_size=2) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "started\n"
        time.sleep(3)
        assert sum("EngineCore" in command for command in started_by(job.pid).values()) == 2
        job.kill()
        assert gone_within(10, job.pid), started_by(job.pid)


def test_an_engine_that_dies_ends_the_job_with_one_message(job, tmp_path):
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"
    time.sleep(3)
    core = next(pid for pid, command in started_by(job.pid).items() if "EngineCore" in command)
    os.kill(core, signal.SIGKILL)
    assert job.wait(60) == 1
    said = (tmp_path / "log").read_text() + job.stdout.read()
    assert "stopped: engine: vLLM's engine process died: " in said
    assert "memory" in said and "start the same command again to resume" in said
    assert "Traceback" not in said
    assert gone_within(10, job.pid), started_by(job.pid)


def test_an_engine_that_cannot_start_says_why_in_one_message(tmp_path):
    with job_with(tmp_path, cpu_kv_cache_gib=4000) as job:
        assert job.wait(300) == 1
        said = (tmp_path / "log").read_text()
        assert "vLLM could not load" in said and "4000.0 GiB" in said and "engine.cpu_kv_cache_gib" in said
        assert "Traceback" not in said
        (kept,) = tmp_path.glob("lengthwise-vllm-log-*")
        assert str(kept) in said and "Traceback" in kept.read_text()
        assert not list(tmp_path.glob("lengthwise-engine-*"))
        assert gone_within(10, job.pid), started_by(job.pid)


def test_an_option_that_vllm_does_not_have_is_named(tmp_path):
    with job_with(tmp_path, options={"max_num_seq": 8}) as job:
        assert job.wait(120) == 2
        assert (
            "config error: engine.options: vLLM's AsyncEngineArgs has no 'max_num_seq'. did you mean"
            in (tmp_path / "log").read_text()
        )


def test_a_kill_while_it_starts_leaves_no_process(job):
    deadline = time.monotonic() + 300
    while not any(
        "spawn_main" in command or "EngineCore" in command for command in started_by(job.pid).values()
    ):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(3)
    job.kill()
    assert gone_within(10, job.pid), started_by(job.pid)
