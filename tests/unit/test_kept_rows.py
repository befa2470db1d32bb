"""Tokenised rows in the run folder: made once, made anew when anything that decides them changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from byte_tokenizer import PLAIN, chat_tokenizer
from tiny_model import tiny_model
from transformers import AutoTokenizer

from posttrain import sft
from posttrain.kept_rows import PATTERN, kept_rows, rows_key
from posttrain.row_sources import DataSource

REPO = Path(__file__).parents[2]
SETTINGS = {"max_length": 64}


@pytest.fixture
def tokenizer(tmp_path):
    chat_tokenizer(tmp_path / "tokenizer", PLAIN)
    return AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "Say " + "a" * n, "completion": "b" * n} for n in range(1, 9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_key_is_that_of_all_that_decides_the_rows(tokenizer, data):
    sources = [DataSource(path=str(data))]
    key = rows_key(sources, tokenizer, SETTINGS)
    assert key == rows_key(sources, tokenizer, SETTINGS)
    assert rows_key(sources, tokenizer, {"max_length": 65}) != key
    assert rows_key([*sources, *sources], tokenizer, SETTINGS) != key
    tokenizer.chat_template = PLAIN + " "
    assert rows_key(sources, tokenizer, SETTINGS) != key
    tokenizer.chat_template = PLAIN
    tokenizer.add_tokens(["aaa"])
    assert rows_key(sources, tokenizer, SETTINGS) != key


def test_a_changed_file_has_another_key(tokenizer, data):
    sources = [DataSource(path=str(data))]
    key = rows_key(sources, tokenizer, SETTINGS)
    os.utime(data, ns=(1, 1))
    assert rows_key(sources, tokenizer, SETTINGS) != key


def test_rows_of_the_hub_are_not_kept(tokenizer, data, tmp_path):
    key = rows_key([DataSource(path=str(data)), DataSource(path="owner/name")], tokenizer, SETTINGS)
    assert key is None
    assert kept_rows(tmp_path, key, lambda: [1]) == ([1], None)
    assert not list(tmp_path.glob(PATTERN))


def test_they_are_made_once(tmp_path):
    made = []

    def make() -> list[int]:
        made.append(1)
        return [len(made)]

    assert kept_rows(tmp_path, "k" * 64, make) == ([1], None)
    (file,) = tmp_path.glob(PATTERN)
    assert file.stat().st_mode & 0o077 == 0
    assert kept_rows(tmp_path, "k" * 64, make) == ([1], file)
    assert kept_rows(tmp_path, "l" * 64, make) == ([2], None)


@pytest.mark.parametrize("content", [b"", b"torn", b"\x80\x05\x8c\x05posix\x94"])
def test_a_torn_file_is_made_anew(tmp_path, capsys, content):
    kept_rows(tmp_path, "k" * 64, lambda: 1)
    (file,) = tmp_path.glob(PATTERN)
    file.write_bytes(content)
    assert kept_rows(tmp_path, "k" * 64, lambda: 2) == (2, None)
    assert "its rows are made anew" in capsys.readouterr().err
    assert kept_rows(tmp_path, "k" * 64, lambda: 3) == (2, file)


def test_a_file_of_somebody_else_is_not_read(tmp_path, monkeypatch):
    kept_rows(tmp_path, "k" * 64, lambda: 1)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert kept_rows(tmp_path, "k" * 64, lambda: 2) == (2, None)


def test_a_full_disk_stops_nothing(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("posttrain.kept_rows.pickle.dump", full)
    assert kept_rows(tmp_path, "k" * 64, lambda: 1) == (1, None)
    assert "the rows are not kept: [Errno 28] No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.glob(".rows-*"))


def arguments(tmp_path: Path, data: Path) -> list[str]:
    return [
        *(
            "--name=x",
            f"--model={tiny_model(tmp_path / 'base')}",
            f"--data={data}",
            "--use_cpu",
            "--max_steps=2",
        ),
        *(f"--output_dir={tmp_path / 'run'}", "--save_strategy=no", "--gradient_checkpointing=false"),
    ]


def test_a_second_start_reads_them_and_a_finished_run_removes_them(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    flags = arguments(tmp_path, data)
    with monkeypatch.context() as broken:
        broken.setattr("posttrain.train_run.make_trainer", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sft.main(flags)
    assert len(list((tmp_path / "run").glob(PATTERN))) == 1
    monkeypatch.setattr(sft.SFTJob, "prepare", lambda *args: 1 / 0)
    assert sft.main(flags) == 0
    assert "made by an earlier start or another process" in capsys.readouterr().out
    assert not list((tmp_path / "run").glob(".rows-*"))


def test_of_two_processes_one_tokenises(data, tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "count.py"
    script.write_text(
        "import os, sys\n"
        "from posttrain import sft\n"
        "prepare = sft.SFTJob.prepare\n"
        "def counted(*args):\n"
        "    open(sys.argv[1], 'a').write(os.environ['RANK'])\n"
        "    return prepare(*args)\n"
        "sft.SFTJob.prepare = counted\n"
        "sys.exit(sft.main(sys.argv[2:]))\n"
    )
    log = tmp_path / "made"
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node=2",
                str(script),
            ),
            *(str(log), *arguments(tmp_path, data)),
        ],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "0"
