"""Servers of our own: what is said when they do not start, who answers, and that none is left; a stub plays vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import OPENS, PLAIN, chat_tokenizer

from lengthwise.engines import build_engine, machine_shares, server_processes, started, vllm_server
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.engines.machine_shares import CORES, binding, core_groups, environment, gpu_groups
from lengthwise.engines.server_processes import free_ports
from lengthwise.engines.vllm_server import Config, Engine, command_line
from lengthwise.models import folder_digest
from lengthwise.records import Message, user
from lengthwise.value_types import ConfigError

pytest.importorskip("vllm")
pytestmark = pytest.mark.timeout(120)

STUB = Path(__file__).with_name("served_stub.py")
GREEDY = Sampling(temperature=0.0, max_tokens=4, seed=5)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Return a function that makes an engine whose servers are stubs."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(vllm_server, "has_cuda", lambda: False)
    monkeypatch.setattr(server_processes, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(server_processes, "_POLL_SECONDS", 0.05)
    monkeypatch.setenv(CORES, "nobind")  # any number of servers on any machine

    def make(mode: str, template: str = PLAIN, *, special: bool = False, **options: Any) -> Engine:
        monkeypatch.setattr(vllm_server, "LAUNCH", [sys.executable, str(STUB), mode])
        chat_tokenizer(tmp_path / "model", template, special=special)
        (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
        return Engine(str(tmp_path / "model"), Config(num_servers=2, **options))

    return make


def run(engine: Engine, use: Callable[[Engine], Coroutine[Any, Any, Any]] | None = None) -> Any:
    async def main() -> Any:
        async with started(engine):
            return None if use is None else await use(engine)

    return asyncio.run(main())


def left(tmp_path: Path) -> list[str]:
    """Return the processes, and the scratch folders, that an engine has left behind."""
    processes = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if str(tmp_path / "model") in command:
                processes.append(command)
    return [*processes, *map(str, (tmp_path / "scratch").glob("lengthwise-engine-*"))]


# --- a start that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fails", r"ended with exit code 1 at its start: ValueError: no such dtype\."),
        ("refuses", r"ended with exit code 2 at its start: .*unrecognized arguments: --max-num-seq=8\."),
        ("killed", r"ended with exit code -9 at its start: killed by SIGKILL, .*engine\.cpu_kv_cache_gib"),
    ],
)
def test_a_server_that_ends_at_its_start_says_why_and_leaves_nothing(serve, tmp_path, mode, words):
    with pytest.raises(EngineError, match=rf"engine: server [12] of 2 {words}") as raised:
        run(serve(mode))
    kept = Path(str(raised.value).rpartition("The whole log: ")[2].rstrip("."))
    assert "--served-model-name" in kept.read_text()
    assert left(tmp_path) == []


def test_a_server_that_is_never_ready_is_given_up(serve, tmp_path, capsys):
    with pytest.raises(
        EngineError, match=r"is not ready after 1 s \(engine\.start_seconds\): its log ends with"
    ):
        run(serve("hangs", start_seconds=1.0))
    assert "starting 2 of them; their logs are in" in capsys.readouterr().err
    assert left(tmp_path) == []


def test_an_interrupt_at_the_start_leaves_nothing(serve, tmp_path):
    async def interrupted() -> None:
        task = asyncio.create_task(started(serve("hangs")).__aenter__())
        while not list((tmp_path / "scratch").rglob("server-2.log")):
            await asyncio.sleep(0.02)
        assert len(left(tmp_path)) == 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(interrupted())
    assert left(tmp_path) == []


# --- answers --------------------------------------------------------------------------------------


def test_both_servers_answer_and_none_is_left(serve, tmp_path):
    async def use(engine: Engine) -> set[int]:
        assert len(left(tmp_path)) == 3
        replies = await asyncio.gather(*(engine.generate(user("x"), GREEDY) for _ in range(16)))
        said = [json.loads(reply.text) for (reply,) in replies]
        assert {entry["seed"] for entry in said} == {None}  # a greedy request needs none
        (warm,) = await engine.generate(user("x"), Sampling(temperature=0.5, max_tokens=4, seed=5))
        assert json.loads(warm.text)["seed"] == 5
        assert {reply.model for (reply,) in replies} == {engine.model}
        return {entry["port"] for entry in said}

    engine = serve("serves")
    assert len(run(engine, use)) == 2
    assert engine.context_length == 512  # as the servers tell
    assert left(tmp_path) == []


def test_a_proxy_of_the_environment_is_not_asked(serve, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(serve("serves"), lambda engine: engine.generate(user("x"), GREEDY))
    assert "no_proxy" not in os.environ


def test_the_weights_have_an_identity_and_prompts_an_exact_length(serve, tmp_path):
    async def use(engine: Engine) -> None:
        assert engine.capabilities.exact_token_counts
        assert engine.count_tokens(user("ab")) == len("<|user|>ab<|assistant|>") - len("<|assistant|>")
        with pytest.raises(ContextOverflow, match="512"):
            await engine.generate(user("w" * 600), GREEDY)

    engine = serve("serves")
    run(engine, use)
    assert engine.weights_identity() == folder_digest(tmp_path / "model")


def test_what_the_servers_cannot_do_is_refused(serve):
    async def use(engine: Engine) -> None:
        with pytest.raises(EngineError, match="serves no adapters by request"):
            await engine.generate(user("x"), GREEDY, adapter="/some/adapter")
        with pytest.raises(EngineError, match="ask for a schema or a prefill"):
            prompt = (*user("x"), Message(role="assistant", content="y"))
            await engine.generate(prompt, Sampling(json_schema={}))

    run(serve("serves"), use)


@pytest.mark.parametrize("mode", ["stubborn", "forks"])
def test_a_server_that_does_not_go_by_itself_is_killed_with_its_children(serve, tmp_path, mode):
    async def use(engine: Engine) -> None:
        assert len(left(tmp_path)) == (5 if mode == "forks" else 3)

    run(serve(mode), use)
    deadline = time.monotonic() + 10  # a signal takes its time
    while left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left(tmp_path) == []


# --- servers that die -----------------------------------------------------------------------------


def test_one_server_that_dies_is_told_of_and_the_other_goes_on(serve, caplog):
    async def use(engine: Engine) -> None:
        assert engine._servers is not None
        engine._servers._servers[0].process.kill()
        for _ in range(4):
            assert await engine.generate(user("x"), GREEDY)
        while "ended while it was needed" not in caplog.text:
            await asyncio.sleep(0.02)
        assert await engine.generate(user("x"), GREEDY)

    run(serve("serves"), use)
    assert "server 1 of 2 ended while it was needed: killed by SIGKILL" in caplog.text
    assert "The others go on" in caplog.text


def test_when_no_server_is_left_the_run_stops_at_once(serve):
    async def use(engine: Engine) -> None:
        await engine.generate(user("please die"), GREEDY)

    with pytest.raises(
        EngineDead,
        match=r"server [12] of 2 ended while it was needed: ValueError: asked to die\. .*same command",
    ):
        run(serve("serves"), use)


# --- options --------------------------------------------------------------------------------------


def test_the_flags_of_a_server(serve, tmp_path):
    engine = serve("fails", max_model_len=64, server_options={"max_num_seqs": 8, "dtype": "half"})
    with pytest.raises(EngineError) as raised:
        run(engine)
    flags = Path(str(raised.value).rpartition("The whole log: ")[2].rstrip(".")).read_text().splitlines()[0]
    assert f"--model={tmp_path / 'model'}" in flags and "--host=127.0.0.1" in flags
    assert "--max-model-len=64" in flags and "--max-num-seqs=8" in flags
    assert "--dtype=half" in flags and flags.count("--dtype") == 1
    assert "--generation-config=vllm" in flags and "--no-enable-chunked-prefill" in flags


def test_options_as_flags():
    assert command_line({"a_b": 1, "c": True, "d": False, "e": None, "f": {"g": [1]}, "h": ["i", "j"]}) == [
        "--a-b=1",
        "--c",
        "--no-d",
        '--f={"g": [1]}',
        "--h",
        "i",
        "j",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_servers": 0}, r"num_servers is 0: it must be at least 1"),
        ({"start_seconds": 0.0}, r"start_seconds is 0\.0"),
        ({"server_options": {"port": 8000}}, r"server_options\.port is chosen by the engine"),
        ({"server_options": {"served-model-name": "x"}}, r"server_options\.served-model-name is chosen"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=rf"engine: {words}"):
        build_engine({"name": "vllm_server", **options}, "m")


def test_tags_that_a_server_would_hide_are_refused_unless_it_reads_them(serve):
    with pytest.raises(ConfigError, match=r"set engine\.server_options\.reasoning_parser"):
        run(serve("serves", OPENS, special=True))
    run(serve("serves", OPENS, special=True, server_options={"reasoning_parser": "deepseek_r1"}))
    run(serve("serves", OPENS))


# --- shares of the machine ------------------------------------------------------------------------


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.delenv(CORES, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})


def test_cores_are_divided(four_cores, monkeypatch):
    assert core_groups(1) == ["0,1,2,5"]
    assert core_groups(2) == ["0,1", "2,5"]
    assert core_groups(3) == ["0", "1", "2,5"]
    with pytest.raises(ConfigError, match=r"engine\.num_servers: 5 processes .* this one may use 4"):
        core_groups(5, "engine.num_servers")


def test_the_users_own_lists_of_cores_win(four_cores, monkeypatch):
    monkeypatch.setenv(CORES, "7-8|9")
    assert core_groups(2) == ["7-8", "9"]
    assert core_groups(1) == ["0,1,2,5"]  # meant for two
    monkeypatch.setenv(CORES, "nobind")
    assert binding(core_groups(9)) == "nobind"


def test_a_variable_is_set_for_the_block_only(monkeypatch):
    monkeypatch.setenv("LENGTHWISE_X", "before")
    with environment("LENGTHWISE_X", "inside"), environment("LENGTHWISE_Y", "new"):
        assert (os.environ["LENGTHWISE_X"], os.environ["LENGTHWISE_Y"]) == ("inside", "new")
    assert os.environ["LENGTHWISE_X"] == "before" and "LENGTHWISE_Y" not in os.environ


def test_gpus_are_divided(monkeypatch):
    assert gpu_groups(None, 1, ["0", "1"]) == ["0", "1"]
    assert gpu_groups(1, 2, ["4", "5", "6"]) == ["4,5"]
    with pytest.raises(ConfigError, match="3 servers of 2 GPUs each .* need 6, and this machine shows 4"):
        gpu_groups(3, 2, list("0123"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert machine_shares.visible_gpus() == ["2", "3"]


def test_ports_differ():
    assert len(set(free_ports(20))) == 20
