from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from lengthwise.config import ConfigError, option
from lengthwise.files import atomic_write
from lengthwise.provenance import count_rows, file_sha256, git_commit, package_versions
from lengthwise.run_dir import InputFile, RunDir, run_folder


@dataclass(kw_only=True)
class DemoConfig:
    name: str = option("demo", help="name")
    model: str = option("m", help="model")
    seed: int = option(1, help="seed")
    max_concurrent_samples: int = option(4, help="at once", operational=True)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


def opened(**changes) -> RunDir:
    config = DemoConfig(**changes)
    return RunDir.open_for("build", run_folder("build", config.name), config)


def test_folder_names():
    assert run_folder("sft", "a") == Path("outputs/sft/a")
    assert run_folder("sft", "a", "elsewhere/b") == Path("elsewhere/b")
    with pytest.raises(ConfigError, match="neither a name nor an output_dir"):
        run_folder("sft")
    with pytest.raises(ConfigError, match="one folder's name"):
        run_folder("sft", "../a")


def test_new_run_writes_its_config_and_no_manifest():
    run = opened()
    assert not run.is_finished and not run.resumed
    assert json.loads(run.file("run_config.json").read_text()) == {
        "name": "demo",
        "model": "m",
        "seed": 1,
        "max_concurrent_samples": 4,
    }
    with pytest.raises(ConfigError, match="not finished"):
        _ = run.manifest


def test_manifest_describes_the_run(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"a": 1}\n\n{"a": 2}\n')
    run = opened()
    run.file("data.jsonl").write_text('{"x": 1}\n')
    run.file("model/weights.bin").write_bytes(b"w")
    run.finish(
        seed=7,
        inputs=[InputFile.of(source)],
        outputs=["data.jsonl", run.path / "model"],
        counts={"kept": 1},
        usage={"num_calls": 3},
        extra={"model": {"name": "m"}},
    )
    manifest = RunDir.load(run.path).manifest
    assert manifest["schema_version"] == 1
    assert (manifest["job"], manifest["name"], manifest["seed"]) == ("build", "demo", 7)
    assert manifest["inputs"] == [
        {"path": str(source), "sha256": file_sha256(source), "num_rows": 2},
    ]
    assert [(o["path"], o["num_rows"]) for o in manifest["outputs"]] == [
        ("data.jsonl", 1),
        ("model/weights.bin", None),
    ]
    assert manifest["counts"] == {"kept": 1}
    assert manifest["model"] == {"name": "m"}
    assert manifest["packages"]["torch"]
    assert len(manifest["config_digest"]) == 64
    assert RunDir.load(run.path).is_finished


def test_finished_folder_is_refused():
    opened().finish(seed=1)
    before = Path("outputs/build/demo/manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten: choose another --name"):
        opened()
    assert Path("outputs/build/demo/manifest.json").read_bytes() == before


def test_unfinished_run_resumes_with_other_operational_keys():
    first = opened()
    first.close()
    second = opened(max_concurrent_samples=99)
    assert second.resumed
    assert second.created == first.created
    assert second.config_digest == first.config_digest
    assert json.loads(second.file("run_config.json").read_text())["max_concurrent_samples"] == 99


def test_drafts_of_a_killed_process_are_removed():
    opened().close()
    draft = Path("outputs/build/demo/.manifest.json.123.tmp")
    draft.write_text("{")
    opened()
    assert not draft.exists()


def test_resume_with_other_results_names_keys_and_both_values():
    opened().close()
    with pytest.raises(ConfigError) as caught:
        opened(model="other", seed=2)
    message = str(caught.value)
    assert 'model: begun with "m", now "other"' in message
    assert "seed: begun with 1, now 2" in message
    assert json.loads(Path("outputs/build/demo/run_config.json").read_text())["model"] == "m"


def test_moved_folder_resumes():
    opened().close()
    Path("outputs/build/demo").rename("moved")
    assert RunDir.open_for("build", "moved", DemoConfig(name="moved")).resumed


def test_folder_of_another_job_is_refused():
    opened().close()
    with pytest.raises(ConfigError, match="holds a build run, not eval"):
        RunDir.open_for("eval", "outputs/build/demo", DemoConfig())


def test_folder_with_something_else_is_refused_but_a_log_is_fine(tmp_path):
    Path("full").mkdir()
    Path("full/run.log").write_text("")
    RunDir.open_for("build", "full", DemoConfig()).close()
    Path("other").mkdir()
    Path("other/thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"is no run folder \(it holds thesis\.tex\)"):
        RunDir.open_for("build", "other", DemoConfig())


def test_second_process_is_refused():
    run = opened()
    code = (
        "from lengthwise.run_dir import RunDir\n"
        "from lengthwise.config import ConfigError\n"
        "try:\n    RunDir.open_for('build', 'outputs/build/demo', {})\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "is in use by another process" in done.stdout
    run.close()


def test_lock_is_freed_when_the_process_is_killed():
    code = (
        "import os, signal\nfrom lengthwise.run_dir import RunDir\n"
        "run = RunDir.open_for('build', 'outputs/build/demo', {'a': 1})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert RunDir.open_for("build", "outputs/build/demo", {"a": 1}).resumed


def test_other_ranks_of_a_training_write_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = RunDir.open_for("sft", run_folder("sft", "demo"), DemoConfig())
    run.finish(seed=1)
    assert not Path("outputs").exists()


def test_the_rank_that_a_cluster_sets_opens_no_finished_build(monkeypatch):
    opened().finish(seed=1)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="finished run, which is never overwritten"):
        opened(seed=7)


def test_a_finished_run_of_other_settings_says_which():
    opened().finish(seed=1)
    with pytest.raises(ConfigError, match=r"other settings:\n  seed: done with \d+, now 7$"):
        opened(seed=7)
    with pytest.raises(ConfigError, match="or delete the folder$"):
        opened()


def test_parents_are_recorded_by_digest():
    opened().finish(seed=1)
    parent = Path("outputs/build/demo")
    run = opened(name="child")
    run.finish(seed=1, parents=[parent, Path("gone")])
    assert run.manifest["parents"] == [
        {"path": str(parent), "job": "build", "manifest_sha256": file_sha256(parent / "manifest.json")},
        {"path": "gone", "job": None, "manifest_sha256": None},
    ]


def test_extra_cannot_replace_the_manifests_own_entries():
    with pytest.raises(ValueError, match="counts"):
        opened().finish(seed=1, extra={"counts": {}})


def test_load_refuses_other_folders(tmp_path):
    with pytest.raises(ConfigError, match="is not a run folder"):
        RunDir.load(tmp_path)


def test_load_of_an_unfinished_run():
    opened().close()
    run = RunDir.load("outputs/build/demo")
    assert (run.job, run.is_finished, run.config["model"]) == ("build", False, "m")


def test_atomic_write_leaves_no_draft(tmp_path):
    atomic_write(tmp_path / "deep" / "a.txt", "one")
    atomic_write(tmp_path / "deep" / "a.txt", "two")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"


def test_count_rows(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c.bin").write_bytes(b"\n\n")
    assert [count_rows(tmp_path / name) for name in ("a.json", "b.json", "c.bin")] == [3, None, None]


def test_count_rows_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1, 2]}), tmp_path / "a.parquet")
    assert count_rows(tmp_path / "a.parquet") == 2


def test_git_commit_and_versions():
    commit = git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
    assert package_versions()["lengthwise"]


def test_a_run_that_no_model_has_answered_may_start_anew_with_other_settings(tmp_path):
    folder = tmp_path / "run"
    for number, content in enumerate(["", '{"key": "00"}\n']):
        with closing(RunDir.open_for("build", folder, {"model": f"wrong-{number}"})) as run:
            assert not run.resumed
            run.file("journal.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match='model: begun with "wrong-1", now "right"'):
        RunDir.open_for("build", folder, {"model": "right"})
