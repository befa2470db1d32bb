"""Builds and evaluations that hit a limit, a full or read-only disk, a second start, a date that jumps."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_builders.run import main as build_main
from evals.run import main as eval_main

ROOT = Path(__file__).resolve().parents[2]
NUM_INPUTS = 24
PRICES = ("--prices.prompt_per_million=1", "--prices.completion_per_million=4")
FAULTS = '{"empty": 0.1, "truncated": 0.1, "error": 0.1, "refusal": 0.1}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"Write a story of {200 + 10 * i} words."} for i in range(NUM_INPUTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def flags(job: str, folder: Path, data: str, *extra: str) -> list[str]:
    own = [f"--data={data}"] if job == "build" else ["--tasks=longbench_write", f"--limit={NUM_INPUTS}"]
    return [
        *("--model=script", "--engine.name=scripted", f"--engine.faults={FAULTS}", f"--output_dir={folder}"),
        *("--max_concurrent_samples=4", *own, *extra),
    ]


def run(job: str, folder: Path, data: str, *extra: str) -> int:
    return {"build": build_main, "eval": eval_main}[job](flags(job, folder, data, *extra))


def start(job: str, folder: Path, data: str, *extra: str, **options: Any) -> subprocess.Popen[str]:
    script = {"build": "data_builders/run.py", "eval": "evals/run.py"}[job]
    command = [sys.executable, str(ROOT / script), *flags(job, folder, data, *extra)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def products(folder: Path) -> dict[str, bytes]:
    """The row files, their time stamps left out of the names."""
    files = [*folder.glob("data.jsonl"), *folder.glob("dropped.jsonl"), *folder.glob("samples_*.jsonl")]
    return {file.name.split("_20")[0]: file.read_bytes() for file in files}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def num_finished_twice(log: Path) -> int:
    events = [json.loads(line) for line in log.read_text().splitlines()]
    finished = [event["request"] for event in events if event["event"] == "finished"]
    return len(finished) - len(set(finished))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: str) -> dict[str, Path]:
    folders = {job: tmp_path_factory.mktemp("whole") / job for job in ("build", "eval")}
    for job, folder in folders.items():
        assert run(job, folder, data, *PRICES) == 0
    return folders


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["build", "eval"])
@pytest.mark.parametrize("limit", ["max_generated_tokens", "max_cost_usd"])
def test_a_limit_stops_the_run_and_a_larger_one_goes_on(tmp_path, capsys, data, whole, job, limit):
    folder, log = tmp_path / "run", tmp_path / "requests.jsonl"
    spent = manifest(whole[job])["usage"]["completion_tokens"], manifest(whole[job])["cost"]["usd"]
    total = dict(zip(("max_generated_tokens", "max_cost_usd"), spent, strict=True))[limit]
    shares = [total // 3 if limit == "max_generated_tokens" else total / 3, total // 2 or total / 2]
    for share in shares:
        assert run(job, folder, data, *PRICES, f"--{limit}={share}", f"--engine.request_log={log}") == 1
        said = capsys.readouterr().err
        assert f"stopped: {limit} is reached" in said
        assert f"of {NUM_INPUTS} inputs have ended" in said
        assert f"start the same command with a larger {limit} to go on" in said
        assert not (folder / "manifest.json").exists()
    assert run(job, folder, data, *PRICES, f"--engine.request_log={log}") == 0
    assert products(folder) == products(whole[job])
    assert num_finished_twice(log) == 0
    # What was paid before the stops is in the sum, and once.
    assert manifest(folder)["usage"] == manifest(whole[job])["usage"]
    assert manifest(folder)["cost"] == manifest(whole[job])["cost"]


@pytest.mark.parametrize("job", ["build", "eval"])
def test_the_cost_per_kept_row_is_said(tmp_path, capsys, data, whole, job):
    assert run(job, tmp_path / "run", data, *PRICES) == 0
    found = manifest(tmp_path / "run")
    usage = found["usage"]
    dollars = (usage["prompt_tokens"] + 4 * usage["completion_tokens"]) / 1e6
    num = found["counts"]["kept"] if job == "build" else found["counts"]["longbench_write"]["scored"]
    assert found["cost"] == {"usd": round(dollars, 6), "usd_per_kept": round(dollars / num, 6)}
    assert f"{dollars:.4f} US dollars ({dollars / num:.6f} per" in capsys.readouterr().out
    if job == "build":
        assert (
            f"| US dollars per kept row | {dollars / num:,.6f} |" in (tmp_path / "run/README.md").read_text()
        )


def test_the_counts_of_a_stopped_build_add_up(tmp_path, capsys, data):
    folder = tmp_path / "run"
    assert run("build", folder, data, "--max_generated_tokens=2000") == 1
    kept, dropped = (products(folder)[name].count(b"\n") for name in ("data.jsonl", "dropped.jsonl"))
    said = capsys.readouterr().err
    assert 0 < kept + dropped < NUM_INPUTS
    assert f"{kept + dropped} of {NUM_INPUTS} inputs have ended ({kept} kept, " in said
    assert f"), {NUM_INPUTS - kept - dropped} have not." in said


@pytest.mark.parametrize("job", ["build", "eval"])
def test_minutes_stop_a_start_and_the_same_command_goes_on(tmp_path, data, whole, job):
    folder = tmp_path / "run"
    slow = ("--engine.delay_seconds=0.05", "--max_minutes=0.002", *PRICES)
    codes = []
    while not codes or (codes[-1] == 1 and len(codes) < 50):
        codes.append(run(job, folder, data, *slow))
    assert codes[0] == 1 and codes[-1] == 0
    assert products(folder) == products(whole[job])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--max_cost_usd=5"], "add prices"),
        (["--max_minutes=0"], "max_minutes is 0"),
        (["--prices.prompt_per_million=1"], "prices.completion_per_million is missing"),
        (["--prices.promt_per_million=1"], "did you mean 'prompt_per_million'"),
    ],
)
@pytest.mark.parametrize("job", ["build", "eval"])
def test_limits_that_make_no_sense_are_config_errors(tmp_path, capsys, data, job, extra, message):
    assert run(job, tmp_path / "run", data, *extra) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["build", "eval"])
@pytest.mark.parametrize("kib", [5, 20, 60])
def test_a_file_that_may_not_grow_stops_the_run_and_nothing_is_lost(tmp_path, data, whole, job, kib):
    folder, log = tmp_path / "run", tmp_path / "requests.jsonl"

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, resource.RLIM_INFINITY))

    process = start(job, folder, data, preexec_fn=small_files)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "stopped: cannot write" in said and "Traceback" not in said
    assert run(job, folder, data, *PRICES, f"--engine.request_log={log}") == 0
    assert products(folder) == products(whole[job])
    assert num_finished_twice(log) == 0
    assert manifest(folder)["usage"] == manifest(whole[job])["usage"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory, with the options given; called again, it changes the options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        remount = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a disk needs root")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("job", ["build", "eval"])
def test_a_full_disk(disk, capsys, data, whole, job):
    for kib in (64, 128):
        folder = disk(f"size={kib}k") / "run"
        assert run(job, folder, data, *PRICES) == 1
        said = capsys.readouterr().err
        assert "No space left on device" in said and "ree some space" in said
    assert run(job, disk("size=20m") / "run", data, *PRICES) == 0
    assert products(folder) == products(whole[job])
    assert manifest(folder)["usage"] == manifest(whole[job])["usage"]


@pytest.mark.parametrize("job", ["build", "eval"])
def test_a_disk_that_is_not_to_be_written(disk, capsys, data, whole, job):
    folder = disk("size=20m") / "run"
    assert run(job, folder, data, "--max_generated_tokens=1000") == 1
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    disk("ro")
    capsys.readouterr()
    for place in (folder, folder.parent / "new"):
        assert run(job, place, data) == 2
        assert "Read-only file system" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# --- two starts, dates ------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["build", "eval"])
def test_a_second_start_on_a_folder_is_refused_and_the_first_is_not_disturbed(tmp_path, data, whole, job):
    folder = tmp_path / "run"
    first = start(job, folder, data, "--engine.delay_seconds=0.05")
    deadline = time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = start(job, folder, data)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "is in use by another process" in said
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert products(folder) == products(whole[job])


@pytest.mark.parametrize("job", ["build", "eval"])
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path, data, whole, job):
    folder, log = tmp_path / "run", tmp_path / "requests.jsonl"
    process = start(job, folder, data, "--engine.delay_seconds=0.05", f"--engine.request_log={log}")
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("finished") > 9) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "start the same command again to resume" in said
    assert run(job, folder, data, f"--engine.request_log={log}") == 0
    assert products(folder) == products(whole[job])


@pytest.mark.parametrize("job", ["build", "eval"])
def test_a_date_that_jumps_back_changes_nothing(tmp_path, monkeypatch, data, whole, job):
    dates = iter(range(10**9, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(dates)))
    limits = ("--max_generated_tokens=2000", "--max_minutes=60")
    assert run(job, tmp_path / "run", data, *PRICES, *limits) == 1
    assert run(job, tmp_path / "run", data, *PRICES, "--max_minutes=60") == 0
    assert products(tmp_path / "run") == products(whole[job])
