"""Answers that runs share: what is the same call, what a damaged file is worth, and who pays."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engines_that_count import Counting

from evals.config import EvalConfig
from lengthwise.budget import LimitReached, Limits, Meter
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.engines.openai_http import Config as HttpConfig
from lengthwise.engines.openai_http import Engine as Http
from lengthwise.journal import Journal
from lengthwise.records import Completion, Usage, user
from lengthwise.response_cache import ResponseCache, may_be_shared, open_cache, response_key

GREEDY = Sampling(temperature=0.0, max_tokens=20)
WARM = replace(GREEDY, temperature=0.7)
KEY = "ab" + "0" * 62
REPLY = Completion(
    text="two \ud800 words",  # half a surrogate pair, as models do write them
    finish_reason="stop",
    num_tokens=2,
    token_ids=(7, 8),
    usage=Usage(prompt_tokens=3, completion_tokens=2),
)
FREE = replace(REPLY, usage=Usage())


class Run:
    """A run with a journal of its own that shares the cache in `folder`."""

    def __init__(self, folder: Path, name: str, engine: Counting | None = None, **fields: Any):
        self.engine = engine or Counting()
        self.journal = Journal(folder / f"{name}.jsonl")
        self.meter = Meter(usage=self.journal.usage, num_calls=self.journal.num_calls)
        fields = {"sample_id": name, "meter": self.meter, "cache": ResponseCache(folder / "cache")} | fields
        self.caller = Caller(engine=self.engine, journal=self.journal, **fields)

    def ask(self, prompt: str = "Write.", sampling: Sampling = GREEDY, step: str = "s", attempt: int = 0):
        async def call() -> list[Completion]:
            return await self.caller(user(prompt), sampling, step=step, attempt=attempt)

        return asyncio.run(call())

    @property
    def num_asked(self) -> int:
        return len(self.engine.asked)


# --- hits -----------------------------------------------------------------------------------------


def test_another_run_and_sample_gets_the_answer_and_pays_nothing(tmp_path):
    first, second = Run(tmp_path, "one"), Run(tmp_path, "two", run_seed=9)
    (paid,) = first.ask()
    (free,) = second.ask()
    assert free == replace(paid, usage=Usage())
    assert (first.num_asked, second.num_asked) == (1, 0)
    assert first.meter.to_dict()["num_calls"] == 1 and "num_cached_calls" not in first.meter.to_dict()
    assert second.meter.to_dict() == {
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "completion_tokens": 0,
        "num_calls": 0,
        "num_cached_calls": 1,
    }
    assert second.meter.fresh_tokens == 0
    assert second.meter.summary(1, "reply") == "0 generated tokens in 0 calls, 1 answers from the cache"


def test_a_resumed_run_needs_no_cache_and_still_pays_nothing(tmp_path):
    Run(tmp_path, "one").ask()
    hit = Run(tmp_path, "two")
    before = hit.ask()
    hit.journal.close()
    resumed = Run(tmp_path, "two", cache=None)
    assert resumed.ask() == before
    assert resumed.num_asked == 0
    assert resumed.meter.usage == Usage() and resumed.meter.num_calls == 0
    assert resumed.journal.num_cached_calls == 1


def test_a_used_up_limit_stops_new_calls_but_no_cached_one(tmp_path):
    Run(tmp_path, "one").ask()
    spent = Meter(usage=Usage(completion_tokens=5), limits=Limits(max_generated_tokens=5))
    second = Run(tmp_path, "two", meter=spent)
    assert second.ask()
    with pytest.raises(LimitReached):
        second.ask("Something else.")


@pytest.mark.parametrize(
    "change",
    [
        {"engine": Counting("other weights")},
        {"engine": Counting(context_length=99)},
        {"adapter": "other"},
        {"role": "judge"},
        {"prompt": "Write more."},
        {"attempt": 1},
        {"sampling": replace(GREEDY, max_tokens=21)},
        {"sampling": replace(GREEDY, stop=("x",))},
        {"sampling": replace(GREEDY, json_schema={"type": "array"})},
    ],
    ids=str,
)
def test_another_call_is_no_hit(tmp_path, change):
    Run(tmp_path, "one").ask()
    asked = {key: change[key] for key in change if key in ("prompt", "attempt", "sampling")}
    other = Run(tmp_path, "two", **{key: change[key] for key in change if key not in asked})
    before = other.num_asked
    other.ask(**asked)
    assert other.num_asked == before + 1
    assert other.meter.num_cached_calls == 0


def test_how_a_run_goes_is_no_part_of_the_key():
    def key(**options: Any) -> str:
        return response_key(
            Counting(**options), user("x"), GREEDY, adapter=None, role="model", attempt=0, chance=[0]
        )

    assert key() == key(delay_seconds=1.0)
    assert key() != key(context_length=7)


def test_a_served_name_at_another_address_is_no_hit():
    def key(url: str, **options: Any) -> str:
        engine = Http("served", HttpConfig(base_urls=[url], **options))
        return response_key(engine, user("x"), GREEDY, adapter=None, role="model", attempt=0, chance=[])

    assert key("http://a/v1") == key("http://a/v1", max_in_flight=2)
    assert key("http://a/v1") != key("http://b/v1")
    assert key("http://a/v1") != key("http://a/v1", chat_template_kwargs={"enable_thinking": False})


# --- what is never shared -------------------------------------------------------------------------


def test_what_a_model_draws_at_random_is_neither_kept_nor_taken(tmp_path):
    for name in ("one", "two"):
        run = Run(tmp_path, name)
        run.ask(sampling=WARM)
        assert run.num_asked == 1
    assert list((tmp_path / "cache").iterdir()) == []
    assert may_be_shared(WARM, "judge") and not may_be_shared(WARM, "writer")


def test_the_votes_of_a_judge_stay_independent(tmp_path):
    first = Run(tmp_path, "one", role="judge")
    first.ask(sampling=WARM, step="vote 1")
    first.ask(sampling=WARM, step="vote 2")
    assert first.num_asked == 2
    again = Run(tmp_path, "two", role="judge")
    again.ask(sampling=WARM, step="vote 1")
    assert again.num_asked == 0
    other_seed = Run(tmp_path, "three", role="judge", run_seed=1)
    other_seed.ask(sampling=WARM, step="vote 1")
    assert other_seed.num_asked == 1


def test_a_failed_call_is_not_kept(tmp_path):
    with pytest.raises(EngineError):
        Run(tmp_path, "one", Counting(faults={"error": 1.0})).ask()
    assert list((tmp_path / "cache").iterdir()) == []


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> ResponseCache:
    cache = ResponseCache(tmp_path / "new" / "cache")
    cache.put(KEY, [REPLY, REPLY])
    return cache


def file_of(cache: ResponseCache) -> Path:
    (file,) = cache.folder.rglob("*.*")
    return file


def test_an_answer_comes_back_whole_and_nothing_else_is_left(cache):
    assert cache.get(KEY) == [FREE, FREE]
    assert cache.get("cd" + KEY[2:]) is None
    assert file_of(cache).name == f"{KEY}.json"


def tear(text: str) -> str:
    return text[: len(text) // 2]


def forge(text: str) -> str:
    return text.replace("two", "ten")


def misplace(text: str) -> str:
    return text.replace(KEY, "f" * 64)


def hollow(text: str) -> str:
    return "\0" * len(text)


@pytest.mark.parametrize(
    "damage", [tear, forge, misplace, hollow, lambda _: "", lambda _: "[]", lambda _: "3"]
)
def test_a_damaged_file_is_none_and_is_replaced(cache, damage):
    file = file_of(cache)
    file.write_text(damage(file.read_text()))
    assert cache.get(KEY) is None
    cache.put(KEY, [REPLY])
    assert cache.get(KEY) == [FREE]


def test_bytes_that_are_no_text_are_none(cache):
    file_of(cache).write_bytes(b"\xff\xfe\xff")
    assert cache.get(KEY) is None


def test_an_old_answer_is_asked_anew(cache):
    later = datetime.now(UTC) + timedelta(days=8)
    assert ResponseCache(cache.folder, max_age_days=9, clock=lambda: later).get(KEY) == [FREE, FREE]
    assert ResponseCache(cache.folder, max_age_days=7, clock=lambda: later).get(KEY) is None


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"response_cache: cannot make the folder .*file/cache"):
        ResponseCache(tmp_path / "file" / "cache")


def test_a_folder_that_takes_no_more_warns_once_and_the_run_goes_on(cache, monkeypatch, caplog):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put(KEY, [REPLY])
    cache.put(KEY, [REPLY])
    assert [record.getMessage().partition(": cannot")[0] for record in caplog.records] == ["response_cache"]
    assert "No space left" in caplog.text


def test_a_config_may_ask_for_none(tmp_path):
    assert open_cache(None) is None
    opened = open_cache(str(tmp_path / "c"), 3.0)
    assert opened is not None and opened.folder == tmp_path / "c"


def test_an_age_that_no_answer_can_have_is_refused():
    with pytest.raises(ConfigError, match=r"response_cache_max_age_days is 0: it must be above 0, or null"):
        EvalConfig(model="m", tasks=["longen"], response_cache_max_age_days=0.0)


WRITER = """
import sys
from pathlib import Path
from lengthwise.records import Completion
from lengthwise.response_cache import ResponseCache

cache = ResponseCache(Path(sys.argv[1]))
keys = [f"{number % 3:02x}" + "0" * 62 for number in range(300)]
print("ready", flush=True)
sys.stdin.readline()
for key in keys:
    found = cache.get(key)
    assert found is None or {c.text for c in found} <= {"a" * 20_000, "b" * 20_000}, "a torn answer"
    cache.put(key, [Completion(text=sys.argv[2] * 20_000, finish_reason="stop", num_tokens=1)])
    assert cache.get(key) is not None, "a file that was there is gone"
"""


def test_two_processes_write_and_read_the_same_keys(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for letter in "ab"
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0, 0]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 3
    assert all(len(json.loads(file.read_text())["completions"]) == 1 for file in files)
