"""What a training job does once its config is known to be right."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.files import atomic_write
from lengthwise.run_dir import RunDir, run_folder
from posttrain.added_tokens import refit
from posttrain.batch_layout import CHECKED_HERE, same_order_after_resume
from posttrain.end_of_turn import stop_at_end_of_turn
from posttrain.length_eval import CheckpointEvals
from posttrain.precision import weights_dtype
from posttrain.resume import BEGUN_WITH, binds, clear_leftovers, is_at_end
from posttrain.row_sources import DataSource
from posttrain.run_batches import with_scores
from posttrain.run_log import run_log
from posttrain.start_model import model_arguments
from posttrain.step_rows import StepRows
from posttrain.stop import StopRequest
from posttrain.train_header import header
from posttrain.train_output import account, describe, finish, save
from posttrain.train_plan import Plan, plan_training

if TYPE_CHECKING:
    from transformers import Trainer

    from posttrain.train_job import TrainJob
    from posttrain.trainers.preflight import Preflight


def train(job: TrainJob, sources: Sequence[DataSource], eval_sources: Sequence[DataSource]) -> int:
    """Run the job; returns the exit code (128 + n if signal n stopped it, with a checkpoint)."""
    folder = run_folder(job.VERB, job.name, job.output_dir)
    if _is_main():
        clear_leftovers(folder)
    run = RunDir.open_for(job.VERB, folder, job, checked_by_job=CHECKED_HERE, starts_anew=not binds(folder))
    try:
        return _train_in(run, job, sources, eval_sources)
    finally:
        run.close()


def _train_in(
    run: RunDir, job: TrainJob, sources: Sequence[DataSource], eval_sources: Sequence[DataSource]
) -> int:
    folder = run.path
    plan = plan_training(job, folder, sources, eval_sources, keeps_rows=True)
    plan = replace(
        plan,
        budget=with_scores(
            plan.budget,
            plan.data.rows,
            args=plan.args,
            folder=folder,
            model=plan.model,
            dtype=weights_dtype(job.dtype, is_lora=job.lora is not None),
        ),
    )
    if run.writes:
        if plan.checkpoint is None or not run.file(BEGUN_WITH).is_file():
            atomic_write(run.file(BEGUN_WITH), json.dumps(plan.begun_with(), indent=2) + "\n")
        refused = [*plan.data.refused, *(plan.eval_data.refused if plan.eval_data else [])]
        lines = [json.dumps(r.to_dict(), ensure_ascii=False) + "\n" for r in refused]
        atomic_write(run.file("dropped.jsonl"), "".join(lines))

    stop = StopRequest()
    evals = (
        CheckpointEvals(options=job.length_eval, run_folder=folder, stop=stop) if job.length_eval else None
    )
    with job.beside(plan) if _is_main() else nullcontext():
        trainer = _trained(job, plan, stop, evals)
    if stop.is_early(trainer.state):
        if _is_main():
            if evals is not None:
                evals.settle()
                print("\n".join(evals.closing()), flush=True)
            print(f"stopped at step {trainer.state.global_step}; {stop.how_to_go_on}", flush=True)
        return stop.exit_code
    save(job, run, trainer)  # first, so that nothing that is measured after it can cost the training
    found, lines = job.after_training(trainer, plan.data, plan.eval_data)
    training = account(job, plan, trainer) | found
    if run.writes:
        describe(job, run, trainer, training)
        print("\n".join(lines), end="\n" if lines else "", flush=True)
        if evals is not None:
            evals.settle()
            print("\n".join(evals.closing()), flush=True)
        finish(job, run, plan, training, length_evals=evals.account() if evals else None)
        loss = training["train_loss"]
        shown = "not logged" if loss is None else f"{loss:.4f}"
        print(f"finished    {run.path}: {training['steps']} steps, mean loss {shown}", flush=True)
    return 0


def _trained(job: TrainJob, plan: Plan, stop: StopRequest, evals: CheckpointEvals | None) -> Trainer:
    """Say what is trained on what, and train; returns the trainer with the trained weights."""
    trainer = make_trainer(job, plan, stop, evals)
    stop_note = stop_at_end_of_turn(trainer, plan.tokenizer, plan.data)
    if _is_main():
        print("\n".join([*header(job, plan), *stop_note]), flush=True)
    asked = trainer.args.max_steps, trainer.args.num_train_epochs
    is_own = plan.checkpoint is not None and plan.checkpoint.parent.resolve() == plan.folder.resolve()
    if plan.checkpoint is not None and is_own and is_at_end(plan.checkpoint):
        # Ended, but not to the manifest: the trainer would take one more step of the epoch before it looks.
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    try:
        trainer.train(resume_from_checkpoint=str(plan.checkpoint) if plan.checkpoint else None)
    finally:
        trainer.args.max_steps, trainer.args.num_train_epochs = asked
        stop.restore()  # also where the training fails: on_train_end does not come then
    return trainer


def make_trainer(
    job: TrainJob, plan: Plan, stop: StopRequest, evals: CheckpointEvals | None = None
) -> Trainer:
    """Build TRL's trainer on rows that it takes as they are: input_ids and labels, nothing left to cut."""
    # The log comes after the stop: it also logs at the steps that a stop, or the trainer, saves.
    callbacks = [
        same_order_after_resume(),
        *job.callbacks(plan, stop),
        stop.callback(),
        run_log(plan.folder / "metrics.jsonl"),
    ]
    if evals is not None:
        callbacks.append(evals.callback())
    step_rows = StepRows(plan.folder / "step_rows.jsonl", plan.data.rows) if job.log_step_rows else None
    if step_rows is not None:
        callbacks.append(step_rows.callback())
    with model_arguments(job, plan) as of_model:
        trainer = job.trainer_class()(
            **of_model,
            args=plan.args,
            train_dataset=plan.data.to_dataset(),
            eval_dataset=plan.eval_data.to_dataset() if plan.eval_data else None,
            processing_class=plan.tokenizer,
            callbacks=callbacks,
            step_rows=step_rows,
            **({} if job.is_online else {"token_budget": plan.budget, "preflight": _preflight(job, plan)}),
            **job.trainer_options(plan),
        )
    if job.lora is not None and plan.new_tokens:
        refit(trainer.model)
    if job.lora is not None and not Path(job.model).exists() and not job.model.startswith("embedded:"):
        # By its id, not by a path in this cache, the adapter finds its base on another machine too.
        model_with_adapter: Any = trainer.model
        model_with_adapter.peft_config["default"].base_model_name_or_path = job.model
    return trainer


def _preflight(job: TrainJob, plan: Plan) -> Preflight | None:
    from posttrain.trainers.preflight import Preflight

    is_wanted = plan.args.device.type == "cuda" if job.preflight == "auto" else job.preflight
    if not is_wanted:
        return None
    lengths = None if plan.is_packed else plan.data.lengths
    max_tokens = None if plan.budget is None else plan.budget.max_tokens
    return Preflight(
        lengths=lengths,
        max_tokens=max_tokens,
        max_length=plan.max_length,
        sequences_per_row=plan.data.sequences_per_row,
    )


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
