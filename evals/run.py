"""Measures models on tasks: `lengthwise eval --config F`, or `python evals/run.py --config F`.

One model fills the run folder itself; of several, each fills a folder inside it, and `lengthwise report` and
`lengthwise compare` take the outer folder for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evals.measure import measure
from evals.members import members
from evals.plan import EvalConfig, PlannedTask, plan_tasks
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


def as_rescored(config: EvalConfig) -> EvalConfig:
    """Return the config with all that decided the replies of the rescored run taken from there.

    Raises:
        ConfigError: no finished evaluation of one model is there.
    """
    assert config.rescore is not None
    run = RunDir.load(config.rescore)
    if run.job != "eval" or not run.is_finished or run.config.get("models"):
        raise ConfigError(
            f"rescore: {config.rescore} is no finished evaluation of one model: name the folder of one, such as "
            "outputs/eval/NAME"
        )
    kept = ("adapter", "engine", "data_dir", "limit", "num_samples", "seed", "draw_seed", "sampling")
    settings = {key: run.config[key] for key in kept if key in run.config}
    config = replace(config, tasks=config.tasks or run.config["tasks"], **settings)
    config.model = run.config["model"]  # beside `rescore`, which a config of its own may not have
    return config


def dry_run(config: EvalConfig) -> None:
    """Say what the evaluation would ask; nothing is loaded, nothing written.

    Raises:
        ConfigError: whatever would stop the run, as far as it shows without the model.
    """
    plan = plan_tasks(config)
    runs = members(config) if _has_members(config) else {config.name: config}
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
    num_calls = 0 if config.rescore else len(runs) * sum(len(planned.samples) for planned in plan)
    print(f"calls       {num_calls:,}\ndry run     nothing was written")


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


def _has_members(config: EvalConfig) -> bool:
    return bool(config.models) or config.aa_run


def _evaluate_all(config: EvalConfig, runs: Mapping[str, EvalConfig]) -> RunDir:
    """Measure each model in its own folder; what has finished is not measured again."""
    plan_tasks(config)
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
