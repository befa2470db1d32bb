from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest

from lengthwise.journal import Journal, JournalError, SavedCalls, call_key
from lengthwise.records import Completion, Usage


def completion(text: str = "a reply", **fields) -> Completion:
    return Completion(
        text=text,
        finish_reason="length",
        num_tokens=2,
        usage=Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=2),
        **fields,
    )


def key(name: str) -> str:
    return call_key(weights="w", prompt=[{"role": "user", "content": name}], sampling={}, salt=["s"])


def put(journal: Journal, *names: str) -> None:
    async def run() -> None:
        for name in names:
            await journal.put(key(name), ["s", name], [completion(f"reply to {name}")])

    asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def text_of(journal: Journal, name: str) -> str | None:
    found = journal.get(key(name))
    return found[0].text if found else None


def test_a_call_comes_back_as_it_was(path):
    reply = completion(
        "第一节 — “quoted”\nline \udcff", token_ids=(1, 2), logprobs=(-0.1, -2.0), reasoning="hm", model="m"
    )
    journal = Journal(path)

    async def run() -> None:
        await journal.put(key("x"), ["s"], [reply, completion()])

    asyncio.run(run())
    assert journal.get(key("x")) == [reply, completion()]
    assert journal.get(key("y")) is None
    assert len(journal) == 1
    journal.close()
    assert path.read_bytes().count(b"\n") == 1
    assert Journal(path).get(key("x")) == [reply, completion()]


def test_every_part_of_a_call_is_in_its_key():
    call = {
        "weights": "w",
        "prompt": [{"role": "user", "content": "p"}],
        "sampling": {"n": 1},
        "salt": ["s", 0],
    }
    others = [
        {"weights": "v"},
        {"prompt": [{"role": "system", "content": "p"}]},
        {"sampling": {"n": 2}},
        {"salt": ["s", 1]},
    ]
    keys = {call_key(**call)} | {call_key(**(call | other)) for other in others}
    assert len(keys) == 5
    assert call_key(**call) in keys


def test_a_torn_tail_is_set_aside_and_writing_goes_on(path):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    whole = path.read_bytes()
    half = whole.splitlines(keepends=True)[1][:40]
    path.write_bytes(whole + half)

    resumed = Journal(path)
    assert resumed.num_damaged == 1
    assert path.read_bytes() == whole
    assert path.with_suffix(".torn").read_bytes() == half + b"\n"
    put(resumed, "c")
    resumed.close()
    again = Journal(path)
    assert again.num_damaged == 0
    assert [text_of(again, name) for name in "abc"] == ["reply to a", "reply to b", "reply to c"]


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_line_cut_at_any_place_loses_only_itself(path, cut):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    os.truncate(path, path.stat().st_size - cut)
    resumed = Journal(path)
    assert text_of(resumed, "a") == "reply to a"
    assert text_of(resumed, "b") is None
    put(resumed, "b")
    assert text_of(resumed, "b") == "reply to b"


@pytest.mark.parametrize(
    "damage", [b"\0" * 30, b"{not json", b'{"key": 3}', b'{"key": "not hex"}', b"[]", b"\xff\xfe"]
)
def test_a_damaged_line_in_the_middle_is_skipped_once(path, damage):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + second)

    resumed = Journal(path)
    assert resumed.num_damaged == 1
    assert [text_of(resumed, name) for name in "ab"] == ["reply to a", "reply to b"]
    put(resumed, "c")
    resumed.close()
    again = Journal(path)
    assert [text_of(again, name) for name in "abc"] == ["reply to a", "reply to b", "reply to c"]
    assert path.with_suffix(".torn").read_bytes() == damage + b"\n"  # not once more at each start


def test_a_full_disk_leaves_whole_lines_and_says_what_to_do(path, monkeypatch):
    journal = Journal(path)
    put(journal, "a")
    before = path.read_bytes()
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 40:
            return write(fd, bytes(data[:40]))
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full_now)
        return write(fd, bytes(data[: len(data) // 2]))

    def full_now(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for failing in (half, full):
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(JournalError, match="No space left on device.*[Ff]ree some space.*not repeated"):
            put(journal, "b")
        assert path.read_bytes() == before
        assert journal.get(key("b")) is None
    monkeypatch.setattr(os, "write", write)
    put(journal, "b")  # space was made
    journal.close()
    resumed = Journal(path)
    assert resumed.num_damaged == 0
    assert [text_of(resumed, name) for name in "ab"] == ["reply to a", "reply to b"]


def test_a_failing_sync_reaches_every_caller_that_waits(path, monkeypatch):
    journal = Journal(path)

    def failing(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def run() -> list[BaseException | None]:
        calls = [journal.put(key(name), [], [completion()]) for name in "abc"]
        return await asyncio.gather(*calls, return_exceptions=True)

    monkeypatch.setattr(os, "fsync", failing)
    errors = asyncio.run(run())
    assert [type(error) for error in errors] == [JournalError] * 3
    assert "Free some space" in str(errors[0])


def test_a_second_reader_sees_all_finished_calls(path):
    writer = Journal(path)
    put(writer, "a")
    reader = Journal(path)
    assert text_of(reader, "a") == "reply to a"
    writer.close()
    writer.close()  # twice does no harm
    reader.close()
    third = Journal(path)
    put(third, "b")
    assert [text_of(third, name) for name in "ab"] == ["reply to a", "reply to b"]


def test_the_last_of_two_equal_calls_counts(path):
    journal = Journal(path)

    async def run() -> None:
        await journal.put(key("a"), [], [completion("first")])
        await journal.put(key("a"), [], [completion("second")])

    asyncio.run(run())
    assert text_of(journal, "a") == text_of(Journal(path), "a") == "second"


def test_calls_that_finish_together_share_syncs(path, monkeypatch):
    journal = Journal(path)
    synced: list[int] = []
    fsync = os.fsync

    def slow(fd: int) -> None:
        synced.append(path.stat().st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)

    async def run() -> None:
        async def one(number: int) -> None:
            await journal.put(key(str(number)), [number], [completion()])
            # No call returns before a sync that covers its line.
            assert synced and json.loads(path.read_bytes()[: synced[-1]].splitlines()[number])["salt"] == [
                number
            ]

        await asyncio.gather(*map(one, range(50)))

    asyncio.run(run())
    assert len(Journal(path)) == 50
    assert 1 <= len(synced) <= 5


def test_a_journal_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(JournalError, match="journal.jsonl"):
        Journal(tmp_path / "missing" / "journal.jsonl")


# --- speed, damage, memory of a large journal ----------------------------------------------------


def test_usage_adds_up_over_starts(path):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    resumed = Journal(path)
    assert resumed.usage == Usage(prompt_tokens=14, cached_tokens=6, completion_tokens=4)
    put(resumed, "c")
    assert (resumed.num_calls, resumed.usage.completion_tokens) == (3, 6)


def test_lines_of_an_earlier_version_are_read(path):
    old = {
        "key": key("a"),
        "salt": ["s"],
        "completions": [completion("old").to_dict(), completion().to_dict()],
    }
    path.write_text(json.dumps(old) + "\n")
    journal = Journal(path)
    assert text_of(journal, "a") == "old"
    assert journal.usage == Usage(prompt_tokens=14, cached_tokens=6, completion_tokens=4)
    assert journal.num_damaged == 0


def test_opening_parses_no_text(path, monkeypatch):
    journal = Journal(path)
    put(journal, *"abcdef")
    journal.close()
    parsed = []
    loads = json.loads

    def counted(text):
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    resumed = Journal(path)
    assert len(resumed) == 6 and not parsed
    assert text_of(resumed, "d") == "reply to d"
    assert len(parsed) == 1


def test_damage_inside_a_line_is_met_when_the_call_is_wanted(path):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    data = path.read_bytes()
    place = data.index(b'"completions"')
    path.write_bytes(data[:place] + b"\0" * 8 + data[place + 8 :])
    resumed = Journal(path)
    assert text_of(resumed, "a") is None
    assert resumed.num_damaged == 1
    assert path.with_suffix(".torn").exists()
    put(resumed, "a")
    assert [text_of(resumed, name) for name in "ab"] == ["reply to a", "reply to b"]
    resumed.close()
    assert text_of(Journal(path), "a") == "reply to a"


def test_a_journal_cut_at_any_byte_holds_every_whole_line(path):
    journal = Journal(path)
    put(journal, "a", "b")
    journal.close()
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        resumed = Journal(path)
        assert [text_of(resumed, name) is not None for name in "ab"] == [length >= first, length == len(data)]
        assert path.stat().st_size == (0 if length < first else first if length < len(data) else length)
        resumed.close()


def test_a_failing_sync_at_the_end_is_said_and_the_file_closed(path, monkeypatch):
    journal = Journal(path)
    put(journal, "a")

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.close()
    journal.close()  # it is closed


def test_calls_of_a_finished_run_are_replayed_and_not_paid_for_again(path, tmp_path):
    earlier = Journal(tmp_path / "earlier.jsonl")
    put(earlier, "one")
    earlier.close()
    with open(tmp_path / "earlier.jsonl", "a") as stream:
        stream.write('{"key":"torn')
    before = (tmp_path / "earlier.jsonl").read_bytes()
    journal = Journal(path, SavedCalls(tmp_path / "earlier.jsonl"))
    put(journal, "two")
    for name in ("one", "two"):
        found = journal.get(key(name))
        assert found is not None and found[0].text == f"reply to {name}"
    assert journal.get(key("three")) is None
    assert (len(journal), journal.num_calls) == (1, 1)
    journal.close()
    assert (tmp_path / "earlier.jsonl").read_bytes() == before


def test_a_finished_run_without_a_journal_has_no_calls(tmp_path):
    assert SavedCalls(tmp_path / "none.jsonl").get(key("one")) is None
