"""Measures models on tasks: `lengthwise eval --config F`, or `python evals/run.py --config F`.

One model fills the run folder itself; of several, each fills a folder inside it, and `lengthwise report` and
`lengthwise compare` take the outer folder for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evals.config import EvalConfig
from evals.measure import measure
from evals.members import members
from evals.plan import PlannedTask, plan_tasks
from lengthwise.config import ConfigError, is_dry_run, parse_config
from lengthwise.dry_run import LOCAL_ENGINES, asked_words, check_models, run_line
from lengthwise.engines import build_engine
from lengthwise.job import run_main
from lengthwise.models import resolve_model
from lengthwise.run_dir import RunDir, run_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_main(_run, argv)


def _run(argv: Sequence[str] | None) -> int:
    config = parse_config(EvalConfig, argv, prog="lengthwise eval")
    if config.rescore is not None:
        config = as_rescored(config)
    if is_dry_run(argv):
        dry_run(config)
    else:
        evaluate(config)
    return 0


REPLY_SETTINGS = (
    "adapter",
    "data_dir",
    "limit",
    "num_samples",
    "seed",
    "draw_seed",
    "sampling",
    "on_bad_row",
)
"""What decided the replies of a run beside its model and tasks."""


def as_rescored(config: EvalConfig) -> EvalConfig:
    """Return the config with all that decided the replies of the rescored run taken from there.

    `engine` stays the user's where one is given: it then is that of judges.

    Raises:
        ConfigError: no finished evaluation of one model is there, or a setting of the replies is given anew.
    """
    assert config.rescore is not None
    run = RunDir.load(config.rescore)
    if run.job != "eval" or not run.is_finished or "members" in run.manifest:
        raise ConfigError(
            f"rescore: {config.rescore} is no finished evaluation of one model: name the folder of one, such as "
            "outputs/eval/NAME"
        )
    defaults = EvalConfig(model="any", tasks=["any"])
    settings = {key: run.config[key] for key in REPLY_SETTINGS if key in run.config}
    for key, value in settings.items():
        if getattr(config, key) not in (getattr(defaults, key), value):
            raise ConfigError(
                f"{key} is {getattr(config, key)!r}, but the saved replies had {value!r}: leave it out"
            )
    if config.engine == defaults.engine:
        settings["engine"] = run.config["engine"]
    if not config.tasks:  # whose entries may have scorers that ask judges
        settings |= {"tasks": run.config["tasks"], "judges": config.judges or run.config.get("judges", [])}
    return replace(config, model=run.config["model"], **settings)


def dry_run(config: EvalConfig) -> None:
    """Say what the evaluation would ask; nothing is loaded, nothing written.

    Raises:
        ConfigError: whatever would stop the run, as far as it shows without the model.
    """
    runs = members(config) if _has_members(config) else {config.name: config}
    plan = plan_all(runs)
    for member in runs.values():
        if config.rescore is None:
            build_engine(member.engine, member.model, member.adapter)
    check_models([(m.model, m.adapter, m.engine) for m in runs.values() if config.rescore is None])
    run = RunDir.check("eval", run_folder("eval", config.name, config.output_dir), config)
    print(run_line(run))
    for member in runs.values():
        adapter = f"+{member.adapter}" if member.adapter else ""
        through = "its saved replies" if config.rescore else member.engine.get("name", "vllm")
        print(f"model       {member.model}{adapter} through {through}")
    for planned in plan:
        print(_task_line(planned))
    for label, num_calls in _judge_calls(plan).items():
        print(f"judge       {label}: at least {num_calls * len(runs):,} calls")
    num_calls = 0 if config.rescore else len(runs) * sum(len(planned.samples) for planned in plan)
    at_least = "at least " if any(hasattr(planned.task, "ask") for planned in plan) else ""
    print(f"calls       {at_least}{num_calls:,} of the model\ndry run     nothing was written")


def _judge_calls(plan: Sequence[PlannedTask]) -> Mapping[str, int]:
    """Return how often each judge is asked about one model's replies, if all its verdicts can be read at once."""
    return Counter(
        scorer.judge.label
        for planned in plan
        for scorer in planned.scorers
        if scorer.judge is not None
        for _ in range(len(planned.samples) * planned.sampling.n)
    )


def _task_line(planned: PlannedTask) -> str:
    sampling = planned.sampling
    cap = "the rest of the context" if sampling.max_tokens is None else f"{sampling.max_tokens:,} tokens"
    return (
        f"task        {planned.name}: {len(planned.samples):,} of {planned.loaded.sizes['original']:,} prompts, "
        f"{sampling.n} completion{'s' if sampling.n > 1 else ''} each, of at most {cap}; "
        f"{asked_words(planned.samples)}"
    )


def evaluate(config: EvalConfig) -> RunDir:
    """Run every task of `config` on its model or models, print the tables and return the finished run.

    Raises:
        ConfigError: for wrong tasks, data or sampling, before a model is loaded.
    """
    if _has_members(config):
        return _evaluate_all(config, members(config))
    plan = plan_tasks(config)
    if config.rescore is None:
        check_model(config)
    run = RunDir.open_for("eval", run_folder("eval", config.name, config.output_dir), config)
    try:
        measure(config, plan, run)
    finally:
        run.close()
    return run


def plan_all(runs: Mapping[str, EvalConfig]) -> list[PlannedTask]:
    """Check the tasks of every model, each with its own engine; return one model's, which ask the same of all."""
    plans = [plan_tasks(member) for member in runs.values()]
    return plans[0]


def _has_members(config: EvalConfig) -> bool:
    return bool(config.models) or config.aa_run


def _evaluate_all(config: EvalConfig, runs: Mapping[str, EvalConfig]) -> RunDir:
    """Measure each model in its own folder; what has finished is not measured again."""
    plan = plan_all(runs)
    if config.aa_run and all(planned.sampling.temperature == 0 for planned in plan):
        print("note: all tasks are greedy; what differs between equal runs is the rounding of their batches")
    for member in runs.values():
        check_model(member)
    run = RunDir.open_for("eval", run_folder("eval", config.name, config.output_dir), config)
    try:
        for number, (label, member) in enumerate(runs.items(), start=1):
            print(f"model {number} of {len(runs)}: {label}")
            if _is_done(member):
                print(f"{member.output_dir} is finished")
            else:
                evaluate(member)
        folders = [Path(str(member.output_dir)) for member in runs.values()]
        run.finish(seed=config.seed, parents=folders, extra={"members": list(runs)})
    finally:
        run.close()
    print(f"see them side by side:\n  lengthwise compare {run.path}\n  lengthwise report {run.path}")
    return run


def _is_done(member: EvalConfig) -> bool:
    """Tell whether a model was measured by an earlier start of this run.

    Raises:
        ConfigError: its folder holds another evaluation.
    """
    folder = Path(str(member.output_dir))
    if not (folder / "manifest.json").is_file():
        return False
    found = RunDir.load(folder)
    if found.config_digest != RunDir.describe("eval", folder, member).config_digest:
        raise ConfigError(f"{folder} holds an evaluation with other settings: choose another --name")
    return True


def check_model(config: EvalConfig) -> None:
    """Refuse a wrong engine, or a model that is not to be had, before there is a run folder to clean up.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    build_engine(config.engine, config.model, config.adapter)
    if config.engine.get("name", "vllm") in LOCAL_ENGINES:
        try:
            resolve_model(config.model, config.adapter)
        except ValueError as error:
            raise ConfigError(str(error)) from None


if __name__ == "__main__":
    raise SystemExit(main())
