"""Evaluations of a training's checkpoints: `lengthwise eval` in a process of its own at each save.

What a checkpoint got is appended to `metrics.jsonl` beside the losses, as `eval_<task>/<metric>`. At most one
evaluation runs at a time, and none outlives the training. One that fails is said, and stops nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError, option
from lengthwise.job import spawn
from lengthwise.result_keys import metric_values
from posttrain.resume import checkpoints, is_complete
from posttrain.run_log import may_save, read_metrics

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from posttrain.stop import StopRequest

FOLDER = "evals"
"""Folder in the run's own that holds an evaluation for each checkpoint, under its name."""
_GRACE_SECONDS = 20.0
"""What an evaluation gets to close its journal when the training is told to stop."""
_POLL_SECONDS = 0.2
_OF_TRAINING = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_", "NCCL_ASYNC_", "ROLE_", "GROUP_")
_OF_RANK = frozenset({
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS",
})  # fmt: skip
"""What launchers say to a training process, and an engine would take for itself."""


@dataclass(kw_only=True)
class LengthEval:
    """An evaluation of each checkpoint, at each save."""

    config: str = option(
        help="config of `lengthwise eval`; its limit and draw_seed give each checkpoint the same few prompts"
    )
    wait: bool = option(
        True, help="training waits for it, since a device rarely holds both; false: only at the next save"
    )
    devices: str | None = option(
        None, help="CUDA_VISIBLE_DEVICES of the evaluation, such as '1'; null: those of the training"
    )

    def __post_init__(self) -> None:
        """Refuse a config that is not there."""
        if not Path(self.config).is_file():
            raise ValueError(f"config: there is no file {self.config!r}: name a config of lengthwise eval")


def evaluation_arguments(config: str, model: str, folder: Path) -> list[str]:
    """Return what the evaluation job is started with: the config, but of this one model as it is."""
    return [
        *(f"--config={config}", f"--model={model}", f"--output_dir={folder}"),
        *("--adapter=null", "--aa_run=false"),
    ]


def check_length_eval(options: LengthEval, model: str) -> None:
    """Let the evaluation job itself say, without a model, whether it could run; writes nothing.

    Raises:
        ConfigError: what it refuses, in its words.
    """
    with tempfile.TemporaryDirectory(prefix="lengthwise_") as scratch, tempfile.TemporaryFile() as said:
        # In a place of its own: the evaluations' folder may hold an unfinished one, which is no concern here.
        arguments = evaluation_arguments(options.config, model, Path(scratch) / "eval")
        process = spawn("eval", [*arguments, "--dry_run"], log=said, environment=environment_of(options))
        code = process.wait()
        said.seek(0)
        output = said.read().decode("utf-8", "replace").strip()
    if code != 0:
        reason = output.rpartition("config error: ")[2] or f"it ends with exit code {code}"
        raise ConfigError(f"length_eval.config: lengthwise eval refuses {options.config}: {reason}")


def is_of_launcher(key: str) -> bool:
    """Return whether a variable of the environment makes a process one of a training's ranks."""
    return key in _OF_RANK or key.startswith(_OF_TRAINING)


def environment_of(options: LengthEval, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of an evaluation: the training's, without what makes a process one of its ranks.

    Example:
        >>> environment_of(LengthEval(config=__file__, devices="1"), {"RANK": "0", "HOME": "/root"})
        {'HOME': '/root', 'CUDA_VISIBLE_DEVICES': '1'}
    """
    found = {
        key: value
        for key, value in (os.environ if given is None else given).items()
        if not is_of_launcher(key)
    }
    return found if options.devices is None else {**found, "CUDA_VISIBLE_DEVICES": options.devices}


@dataclass(kw_only=True)
class _Running:
    step: int
    process: subprocess.Popen[bytes]


@dataclass(kw_only=True)
class CheckpointEvals:
    """Starts the evaluations of one training run, waits for them and notes what came of them; rank 0 only."""

    options: LengthEval
    run_folder: Path
    stop: StopRequest
    failed: dict[int, str] = field(default_factory=dict)
    """Step to what is known of the failure."""
    _running: _Running | None = None

    def folder(self, step: int) -> Path:
        """Return the run folder of a checkpoint's evaluation."""
        return self.run_folder / FOLDER / f"checkpoint-{step}"

    def log_file(self, step: int) -> Path:
        """Return where a checkpoint's evaluation writes what it says."""
        return self.folder(step) / "evaluation.log"

    def is_done(self, step: int) -> bool:
        """Return whether a checkpoint's evaluation has finished."""
        return (self.folder(step) / "manifest.json").is_file()

    def callback(self) -> TrainerCallback:
        """Return the trainer callback that evaluates at each save."""
        from transformers import TrainerCallback

        evals = self

        class EvaluateCheckpoints(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.is_world_process_zero:
                    evals.go_on(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                # A save may delete, for save_total_limit, the checkpoint that is being evaluated.
                if state.is_world_process_zero and may_save(args, control):
                    evals.settle()

            on_epoch_end = on_step_end

            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if evals.options.wait:
                    _free_cached_memory()  # on every rank: the evaluation may use all devices
                if state.is_world_process_zero:
                    evals.evaluate(state.global_step)
                if (
                    evals.stop.is_set_anywhere()
                ):  # while the others waited: this checkpoint is the one to go on from
                    control.should_training_stop = True
                    evals.stop.saved_at_step = state.global_step

        return EvaluateCheckpoints()

    def go_on(self, last_step: int) -> None:
        """Evaluate what a training cut short has left: each checkpoint up to `last_step` without a result.

        Evaluations of later steps are removed, as their checkpoints will be written again.
        """
        for folder in (self.run_folder / FOLDER).glob("checkpoint-*"):
            step = folder.name.removeprefix("checkpoint-")
            if step.isdecimal() and int(step) > last_step:
                shutil.rmtree(folder)
        for step, checkpoint in sorted(checkpoints(self.run_folder).items()):
            if step <= last_step and is_complete(checkpoint):
                self.evaluate(step)

    def evaluate(self, step: int) -> None:
        """Start the evaluation of a checkpoint, or take the result of one that has finished."""
        self.settle()
        if self.stop.signal is not None:
            return  # little time is left; the resumed run does it
        if self.is_done(step):
            self._note(step)
            return
        log = self.log_file(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = self.run_folder / f"checkpoint-{step}"
        arguments = evaluation_arguments(self.options.config, str(checkpoint), self.folder(step))
        with log.open("ab") as stream:
            process = spawn("eval", arguments, log=stream, environment=environment_of(self.options))
        self._running = _Running(step=step, process=process)
        print(f"evaluating  {checkpoint}; its log is {log}", flush=True)
        if self.options.wait:
            self.settle()

    def settle(self) -> None:
        """Wait for the evaluation under way, if any; a signal to the training ends it."""
        if self._running is None:
            return
        running, self._running = self._running, None
        try:
            while running.process.poll() is None:
                if self.stop.signal is not None:
                    break
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(_POLL_SECONDS)
        finally:
            cut_short = _end(running.process)
        if cut_short:
            print(
                f"the evaluation of checkpoint-{running.step} is cut short; a resumed run goes on", flush=True
            )
        elif self.is_done(running.step):
            self._note(running.step)
        else:
            self._fail(running.step, running.process.returncode)

    def _note(self, step: int) -> None:
        """Append a checkpoint's numbers to metrics.jsonl, once."""
        self.failed.pop(step, None)
        metrics = self.run_folder / "metrics.jsonl"
        lines = read_metrics(metrics) if metrics.is_file() else []
        values = headline(self.folder(step))
        if any(line.get("step") == step and values.keys() <= line.keys() for line in lines):
            return
        with metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")

    def _fail(self, step: int, code: int) -> None:
        self.failed[step] = (
            f"the evaluation of checkpoint-{step} ended with exit code {code}: {self.log_file(step)} says why"
        )
        print(f"WARNING     {self.failed[step]}", flush=True)

    def account(self) -> dict[str, Any]:
        """Return the manifest's `length_evals` entry: what was evaluated, and what was not and why."""
        steps = sorted(
            int(manifest.parent.name.removeprefix("checkpoint-"))
            for manifest in (self.run_folder / FOLDER).glob("checkpoint-*/manifest.json")
        )
        missing = {
            step: f"checkpoint-{step} is not evaluated: the training was stopped first"
            for step in checkpoints(self.run_folder).keys() - {*steps}
        } | self.failed
        return {
            "config": self.options.config,
            "evaluated_steps": steps,
            "failed": [{"step": step, "reason": missing[step]} for step in sorted(missing)],
        }

    def closing(self) -> list[str]:
        """Return what the job says of the evaluations at its end."""
        account = self.account()
        done = len(account["evaluated_steps"])
        return [
            f"evaluated   {done} checkpoint{'' if done == 1 else 's'}, in {self.run_folder / FOLDER}",
            *(f"WARNING     {entry['reason']}" for entry in account["failed"]),
        ]


def headline(folder: Path) -> dict[str, float]:
    """Return the estimates of a finished evaluation by `eval_<task>/<metric>`."""
    document = json.loads(max(folder.glob("results_*.json")).read_text(encoding="utf-8"))
    return {
        f"eval_{task}/{metric}": value
        for task, row in document["results"].items()
        for metric, value in metric_values(row).items()
    }


def _end(process: subprocess.Popen[bytes]) -> bool:
    """End an evaluation, gently at first, with all that it started; return whether there was one to end."""
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGINT)  # it closes its journal and can go on later
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return True


def _free_cached_memory() -> None:
    """Give back what the allocator keeps for later: another process is about to need it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
