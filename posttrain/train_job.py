"""What the jobs that train have in common: their fields, their checks, and the way from a command line to a run."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from lengthwise.config import is_dry_run, option, parse_config
from lengthwise.devices import has_cuda
from lengthwise.models import check_model
from lengthwise.run_dir import RunDir, run_folder
from lengthwise.schemas import load_schema
from posttrain.added_tokens import AddedTokens
from posttrain.base_model import check_template
from posttrain.batch_layout import CHECKED_HERE, BatchLayout
from posttrain.batching import Batching, check_batching
from posttrain.curriculum import Curriculum, check_curriculum, read_curriculum
from posttrain.length_eval import LengthEval, check_length_eval
from posttrain.lora import LoraOptions, check_quantization, check_served
from posttrain.resume import binds, find_checkpoint
from posttrain.row_sources import DataSource, data_sources
from posttrain.trl_keys import OPERATIONAL, RENAMED, also_decisive, check_trainer_keys

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

    from posttrain.prepared_rows import PreparedRows
    from posttrain.stop import StopRequest
    from posttrain.train_plan import Plan


@dataclass(kw_only=True)
class TrainJob(ABC):
    """A model, the data, and how the one is trained on the other; a subclass says what a row is and what its loss."""

    VERB: ClassVar[str]
    """The verb of the command line, the name of the schema of TRL's keys, and of the folder in outputs/."""
    RENAMED: ClassVar[Mapping[str, str]] = RENAMED
    OPERATIONAL: ClassVar[frozenset[str]] = OPERATIONAL

    name: str = option(help="name of the run and of its folder")
    model: str = option(help="embedded:smollm2-135m, a folder, or a hub id")
    data: str | list[DataSource] = option(
        help="a build's run folder, a .jsonl, .json or .parquet file, a hub id; or a list of maps with "
        "path, split, subset, revision, weight"
    )
    eval_data: str | None = option(None, help="rows for the evaluation loss; goes with eval_strategy")
    mixture_rows: int | None = option(
        None, help="rows of a weighted mixture; default: as many as all sources have"
    )
    on_bad_row: Literal["raise", "drop"] = option("raise", help="what to do with rows that cannot be read")
    max_length: int | None = option(None, help="longest row in tokens; default: the model's context length")
    over_length: Literal["raise", "drop", "truncate"] = option(
        "raise",
        help="what to do with rows over max_length; truncate cuts the end, and with it the end-of-turn token",
    )
    chat_template_path: str | None = option(
        None, help="a .jinja file, or a model whose chat template to use, instead of the model's own"
    )
    lora: LoraOptions | None = option(
        None,
        help="train an adapter: r, alpha, dropout, target_modules, use_rslora, use_dora, modules_to_save, "
        "quantization; null: full",
    )
    batching: Batching = option(
        default_factory=Batching,
        help="how rows become batches: {name: padded, token_budget or packed, max_tokens}",
    )
    curriculum: dict[str, Any] | None = option(
        None,
        help="in which order lengths come, with batching: {name: token_budget}: {name: length_buckets, "
        "competence_window, cyclical, or for plain texts dataset_decomposition; its options}",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        "auto",
        help="type of the loaded weights; auto: float32, or bfloat16 for LoRA where the hardware has it",
    )
    seed: int = option(42, help="decides data order, mixture, and the adapter's start")
    output_dir: str | None = option(None, help="run folder; default: outputs/<job>/<name>")
    resume_from_checkpoint: bool | str = option(
        "auto", help="auto (the last checkpoint, if any), true, false, or a path", operational=True
    )
    log_step_rows: bool = option(
        False, help="write step_rows.jsonl: the ids of the rows each step trained on", operational=True
    )
    preflight: bool | Literal["auto"] = option(
        "auto",
        help="train on the longest batch for nothing before the first step, so that what does not fit into memory "
        "shows at once; auto: on CUDA",
        operational=True,
    )
    length_eval: LengthEval | None = option(
        None,
        help="evaluate each checkpoint when it is saved: config (of lengthwise eval), wait, devices",
        operational=True,
    )
    trainer: dict[str, Any] = option(default_factory=dict, help="the keys of TRL's config class")

    def __post_init__(self) -> None:
        """Refuse combinations that would fail late or do nothing."""
        check_trainer_keys(self.trainer, self.managed_keys)
        check_batching(self.batching, self.trainer)
        check_curriculum(self.length_curriculum, self.batching, self.trainer)
        for key in ("max_length", "mixture_rows"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} is {value}: it must be at least 1")
        if not 0 <= self.seed < 2**32:  # as numpy has it
            raise ValueError(f"seed is {self.seed}: it must lie between 0 and {2**32 - 1}")
        if self.mixture_rows and (isinstance(self.data, str) or self.data[0].weight is None):
            raise ValueError("mixture_rows is set, but the data has no weights: give each source a weight")
        if self.length_eval is not None and self.trainer.get("save_strategy") == "no":
            raise ValueError(
                "length_eval is set, but save_strategy is 'no': there is no checkpoint to evaluate"
            )
        wants_eval = self.trainer.get("eval_strategy", "no") != "no"
        if wants_eval and self.eval_data is None:
            raise ValueError("eval_strategy is set, but there is nothing to evaluate on: set eval_data")
        if self.trainer.get("load_best_model_at_end") and not wants_eval:
            raise ValueError("load_best_model_at_end is set, but nothing is evaluated: set eval_strategy too")

    @property
    def length_curriculum(self) -> Curriculum | None:
        """The field `curriculum`, read."""
        return read_curriculum(self.curriculum)

    @property
    def also_decisive(self) -> frozenset[str]:
        """The trainer's operational keys that decide the result under these settings."""
        return also_decisive(self.trainer)

    @property
    def update(self) -> str:
        """What of the weights is trained, in words."""
        return "full fine-tuning" if self.lora is None else str(self.lora)

    @property
    @abstractmethod
    def method(self) -> str:
        """What is done to the weights, in words."""

    @property
    @abstractmethod
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's config class that would do nothing or harm here, with the reason."""

    @property
    @abstractmethod
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""

    @property
    def new_tokens(self) -> AddedTokens | None:
        """What is added to the vocabulary; None where nothing is."""
        return None

    @property
    def unserved(self) -> str | None:
        """Why vLLM does not serve the adapter that is trained, None where it does or there is none."""
        return None if self.lora is None else self.lora.unserved

    @property
    def of_batch(self) -> str | None:
        """Why the loss of a step depends on how its rows are dealt to forward passes; None where it does not."""
        return None

    @property
    def keys_of_rows(self) -> frozenset[str]:
        """The trainer's keys that decide what becomes of the rows before they are trained on."""
        return frozenset()

    @property
    def needs_masks(self) -> bool:
        """Whether tokens within a row are hidden, so that attention has to be told which."""
        return False

    @property
    def is_online(self) -> bool:
        """Whether the model writes the answers of the rows itself while it is trained."""
        return False

    @abstractmethod
    def prepare(
        self, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> PreparedRows[Any]:
        """Read, tokenise and mix the rows of `sources`, with an account of all others."""

    @abstractmethod
    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> TrainingArguments:
        """Return TRL's config object of `keys`, of which those that this job settles itself are not there yet."""

    @abstractmethod
    def trainer_class(self) -> type[Any]:
        """Return the trainer, one of `posttrain.trainers`."""

    def check_machine(self) -> None:
        """Refuse what this machine has no devices for; needs no torch.

        Raises:
            ConfigError: naming the field and the remedy.
        """
        check_quantization(self.lora, on_cuda=has_cuda() and not self.trainer.get("use_cpu"))

    def layout(self, args: TrainingArguments, *, num_rows: int) -> BatchLayout:
        """Return how the rows of an epoch are dealt to steps where no token budget does it."""
        return BatchLayout(
            num_rows=num_rows,
            batch_size=args.train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            num_processes=args.world_size,
            drop_last=args.dataloader_drop_last,
        )

    def settled(self, plan: Plan) -> Plan:
        """Return the plan with the arguments that depend on the data; refuses what does not fit it."""
        return plan

    def notes(self, plan: Plan) -> list[str]:
        """Return what else is to be known of the plan before it begins, in lines of the header."""
        return []

    def beside(self, plan: Plan) -> AbstractContextManager[None]:
        """Return what runs beside the training, on its first process."""
        return nullcontext()

    def trainer_options(self, plan: Plan) -> dict[str, Any]:
        """Return what the trainer takes beside TRL's arguments and the batches."""
        return {}

    def callbacks(self, plan: Plan, stop: StopRequest) -> list[TrainerCallback]:
        """Return what else watches the training; it may ask for a stop."""
        return []

    def after_training(self, trainer: Any, data: Any, eval_data: Any) -> tuple[dict[str, Any], list[str]]:
        """Return what else is to be known of the trained model: for the manifest, and in lines; all ranks take part."""
        return {}, []


J = TypeVar("J", bound=TrainJob)


def check(job_class: type[J], argv: Sequence[str] | None) -> tuple[J, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing.

    Raises:
        ConfigError: a wrong config, or a file, a model or a run folder that the job could not use.
    """
    verb = job_class.VERB
    job = parse_config(job_class, argv, prog=f"lengthwise {verb}", passthrough=load_schema(verb))
    sources = data_sources(job.data)
    eval_sources = data_sources(job.eval_data, field="eval_data") if job.eval_data else []
    check_model(job.model)
    check_template(job.chat_template_path)
    job.check_machine()
    if job.length_eval is not None:
        check_served(job.unserved, job.length_eval.config)
    folder = run_folder(verb, job.name, job.output_dir)
    RunDir.check(verb, folder, job, checked_by_job=CHECKED_HERE, starts_anew=not binds(folder))
    find_checkpoint(folder, job.resume_from_checkpoint)
    if job.length_eval is not None and os.environ.get("RANK", "0") == "0":
        check_length_eval(job.length_eval, job.model)
    return job, sources, eval_sources


def run_job(job_class: type[TrainJob], argv: Sequence[str] | None) -> int:
    """Train, or with `--dry_run` say what would be trained; returns the exit code."""
    job, sources, eval_sources = check(job_class, argv)
    if is_dry_run(argv):
        from posttrain.train_header import dry_run

        return dry_run(job, run_folder(job.VERB, job.name, job.output_dir), sources, eval_sources)
    from posttrain.train_run import train

    return train(job, sources, eval_sources)
