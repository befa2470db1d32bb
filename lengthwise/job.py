"""Runs jobs: the guard around a job's main, and the start of a job in its own process.

The packages of the jobs are started by name and never imported here: `lengthwise` depends on none of them.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lengthwise.budget import LimitReached
from lengthwise.child_process import EXIT_CODE_FILE, run_process
from lengthwise.config import did_you_mean
from lengthwise.engines.base import EngineError
from lengthwise.engines.orphans import OWNER
from lengthwise.journal import JournalError
from lengthwise.models import folder_digest
from lengthwise.provenance import file_sha256
from lengthwise.run_dir import LOCATION, TRAINING_JOBS, RunDir, run_folder
from lengthwise.value_types import ConfigError
from lengthwise.yaml_source import parse_yaml

JOBS: Mapping[str, str] = {
    "sft": "posttrain.sft",
    "dpo": "posttrain.dpo",
    "kto": "posttrain.kto",
    "orpo": "posttrain.orpo",
    "grpo": "posttrain.grpo",
    "build": "data_builders.run",
    "eval": "evals.run",
}
"""Verb of the command line to the module that does the job."""

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})
"""Of a disk that is full, over its quota, or not to be written: nothing a traceback would help with."""


class JobFailed(RuntimeError):
    """A job that was started in its own process did not succeed."""

    def __init__(self, verb: str, exit_code: int) -> None:
        """Keep the exit code: 2 is a config error, 130 an interrupt."""
        super().__init__(f"the {verb} job ended with exit code {exit_code}; its own output above says why")
        self.verb = verb
        self.exit_code = exit_code


def run_main(function: Callable[..., int | None], *args: Any) -> int:
    """Call a job's main and return its exit code: 0 done, 2 for a `ConfigError`, 130 for Ctrl-C.

    A dead engine, a used-up limit or a full disk ends the job with 1 and its message, which names the remedy; in a
    recipe a failed job ends it with the job's exit code.

    Other errors propagate with their traceback, and the process ends with 1.

    Example:
        >>> run_main(lambda: 0)
        0
    """
    told = os.environ.pop(EXIT_CODE_FILE, None)  # meant for this process, not for what it starts
    code = 1
    try:
        code = function(*args) or 0
    except ConfigError as error:
        print(f"config error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; start the same command again to resume", file=sys.stderr)
        code = 130
    except (EngineError, JournalError) as error:
        print(f"stopped: {error}\nstart the same command again to resume", file=sys.stderr)
    except LimitReached as limit:
        print(f"stopped: {limit}", file=sys.stderr)
    except JobFailed as error:
        print(f"stopped: {error}", file=sys.stderr)
        code = error.exit_code if error.exit_code > 0 else 1
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        remedy = "free some space, or give an output_dir that can be written; the same command then resumes"
        print(
            f"stopped: cannot write {error.filename or 'a file'}: {error.strerror}\n{remedy}", file=sys.stderr
        )
    if code and told:
        Path(told).write_text(str(code), encoding="ascii")
    return code


def job_file(verb: str) -> Path:
    """Return the script of a job.

    Raises:
        ConfigError: no such job, or its package is not installed.
    """
    if verb not in JOBS:
        raise ConfigError(f"there is no job {verb!r}; there are {', '.join(JOBS)}")
    try:
        spec = importlib.util.find_spec(JOBS[verb])
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the {verb} job ({JOBS[verb]}) is not installed: run `pip install -e .` in a clone"
        )
    return Path(spec.origin)


def check_job(verb: str, arguments: Sequence[str]) -> None:
    """Let a distributed job check in this process what can be checked at once, without torch.

    Raises:
        ConfigError: what the job would refuse.
        SystemExit: after --help and the like, or after usage.
    """
    importlib.import_module(JOBS[verb]).check(arguments)


def job_command(verb: str, arguments: Sequence[str], accelerate_config: str | None = None) -> list[str]:
    """Return the command line that runs a job, for `sft` and `dpo` through `accelerate launch`.

    Args:
        verb: a key of `JOBS`.
        arguments: what the job itself gets.
        accelerate_config: a name in configs/accelerate/, or a file; only for distributed jobs.
    """
    script = str(job_file(verb))
    if verb not in TRAINING_JOBS:
        if accelerate_config:
            raise ConfigError(
                f"--accelerate_config is for {', '.join(sorted(TRAINING_JOBS))}, not for {verb}"
            )
        return [sys.executable, script, *arguments]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    if accelerate_config:
        launch += ["--config_file", str(_accelerate_file(accelerate_config))]
    return [*launch, script, *arguments]


def _accelerate_file(name: str) -> Path:
    """Return the file of an accelerate config given by path or by name."""
    if Path(name).is_file():
        return Path(name)
    folders = [Path("configs/accelerate"), Path(__file__).resolve().parents[1] / "configs" / "accelerate"]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    nearest = did_you_mean(name, known)
    raise ConfigError(
        f"--accelerate_config {name}: there is no such file and no {folders[0]}/{name}.yaml"
        f"{': ' + nearest if nearest else ''}; there are {', '.join(known) or 'none'}"
    )


def spawn(
    verb: str, arguments: Sequence[str], *, log: IO[bytes], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a job in its own process and return it at once; Linux ends it when this process ends, however it does.

    Args:
        verb: a key of `JOBS`.
        arguments: what the job gets.
        log: where its stdout and stderr go.
        environment: its environment variables, by default ours.

    Raises:
        ConfigError: no such job, or its package is not installed.
    """
    given = os.environ if environment is None else environment
    return subprocess.Popen(
        job_command(verb, arguments),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # out of the terminal's reach: its Ctrl-C is for the training, which then ends this one
        env={**given, OWNER: str(os.getpid())},  # read where `lengthwise` is imported
    )


def flags_of(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as command-line arguments; maps become dotted flags.

    Example:
        >>> flags_of({"max_steps": 5, "engine": {"name": "hf"}, "packing": False})
        ['--max_steps=5', '--engine.name=hf', '--packing=false']
    """
    arguments = []
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            arguments += flags_of({f"{key}.{inner}": item for inner, item in value.items()})
        elif isinstance(value, str | Path):
            arguments.append(f"--{key}={value}")
        else:
            arguments.append(f"--{key}={json.dumps(value, ensure_ascii=False)}")
    return arguments


def resolved_config(verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the config that a job would run with, asked from the job itself, all checks done.

    Raises:
        JobFailed: the job refuses the arguments; it said why on stderr.
    """
    command = [sys.executable, str(job_file(verb)), *arguments, "--print_config"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise JobFailed(verb, done.returncode)
    return dict(parse_yaml(done.stdout, f"{verb} --print_config"))


def job(
    verb: str,
    config: str | Path | None = None,
    *,
    accelerate_config: str | None = None,
    reuse: bool = False,
    **overrides: Any,
) -> RunDir:
    """Run a job in its own process and return its finished run folder. Recipes are made of these calls.

    Args:
        verb: "build", "sft", "dpo" or "eval".
        config: the YAML file.
        accelerate_config: how to distribute a training job.
        reuse: return the run that is there if it is finished and had the same config, input files and model, so that
            a recipe resumes; a finished run of other ones is refused, with what differs.
        **overrides: fields that win over the file; maps set single entries of a component.

    Raises:
        JobFailed: the job did not succeed; the exit code tells how.
        ConfigError: to be used again is a run whose input files or model have changed since.

    Example:
        >>> data = job("build", "configs/data/agent_write.yaml", name="round_1")  # doctest: +SKIP
        >>> job("sft", "configs/sft/lora.yaml", data=str(data.path))  # doctest: +SKIP
    """
    arguments = [*(["--config", str(config)] if config else []), *flags_of(overrides)]
    resolved = resolved_config(verb, arguments)
    folder = run_folder(verb, resolved.get("name"), resolved.get("output_dir"))
    if reuse and (folder / "manifest.json").is_file():
        before = RunDir.load(folder)
        if _settings(before.config) == _settings(resolved):
            _refuse_changed_inputs(before)
            print(f"{verb}: {folder} is finished and is used again", file=sys.stderr)
            return before
    code = launch(verb, arguments, accelerate_config)
    if code != 0:
        raise JobFailed(verb, code)
    run = RunDir.load(folder)
    if not run.is_finished:
        raise JobFailed(verb, 1)
    return run


def merged(trained: str | Path) -> Path:
    """Return the folder of a training's model as one: the run's own of a full training, else `<run>_merged`.

    That is written, and checked, where it is not there yet.

    Raises:
        JobFailed: the export did not succeed; it leaves no folder then.
        ConfigError: the folder that is there was made from another training, or is none of ours.
    """
    run, folder = Path(trained), Path(f"{trained}_merged")
    if not (run / "adapter_config.json").is_file():
        return run
    if not folder.exists():
        command = [sys.executable, "-m", "lengthwise.cli", "export", str(run), "--merge"]
        code = run_process([*command, f"--output_dir={folder}"])
        if code != 0:
            raise JobFailed("export", code)
    if _merged_from(folder) != file_sha256(run / "manifest.json"):
        raise ConfigError(f"{folder} was not merged from {run} as it is: delete it, or move it away")
    return folder


def _merged_from(folder: Path) -> str | None:
    """Return the digest of the manifest of the training that a merged model is of; None where it does not say."""
    try:
        return json.loads((folder / "export.json").read_text(encoding="utf-8"))["lineage"][
            "run_manifest_sha256"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in LOCATION}


def _refuse_changed_inputs(run: RunDir) -> None:
    """Refuse a finished run of files, or a whole model, that are others now; of what is gone nothing can be said."""
    recorded = [(Path(entry["path"]), entry["sha256"]) for entry in run.manifest["inputs"]]
    changed = [str(path) for path, digest in recorded if path.is_file() and file_sha256(path) != digest]
    training = run.manifest.get("training") or {}
    for model in (run.manifest.get("model"), training.get("base_model")):
        if model and not model.get("adapter") and (Path(model["name"]) / "config.json").is_file():
            changed += [model["name"]] if folder_digest(Path(model["name"])) != model["identity"] else []
    if changed:
        raise ConfigError(
            f"{run.path} holds a finished run of other inputs: {', '.join(changed)} changed since. "
            "Choose another output_dir, or delete the folder"
        )


def launch(verb: str, arguments: Sequence[str], accelerate_config: str | None = None) -> int:
    """Run a job in its own process, stream its output, and return its exit code."""
    command = job_command(verb, arguments, accelerate_config)
    return run_process(command, str(job_file(verb)) if verb in TRAINING_JOBS else None)
