"""Group relative policy optimisation with length in view: GRPO-λ (arXiv 2505.18086), shrinking budgets (2508.08940).

Of three papers called GRPO-λ this is "Stable Reinforcement Learning for Efficient Reasoning". The trainer is TRL's;
what is ours stands in `trainers.grpo_trainer`, and its mathematics in `length_shaping`, `token_budgets` and
`length_rewards`. A reward is a file in `posttrain.rewards`, or one of yours.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lengthwise.config import ConfigError, option
from lengthwise.devices import has_cuda
from lengthwise.job import run_main
from posttrain import train_job
from posttrain.budget_prompts import PromptBudget, with_budget
from posttrain.chosen_rewards import ChosenReward, check_columns, choose_rewards, reward_functions
from posttrain.end_of_turn import end_of_turn_ids
from posttrain.generation_layout import GenerationLayout
from posttrain.precision import weights_dtype
from posttrain.resume import find_checkpoint, steps_done
from posttrain.rl_guards import Guards, guard_callback
from posttrain.rollout_server import RolloutServer, check_rollout_server, free_port, running
from posttrain.row_sources import DataSource
from posttrain.shaping import Budget, read_shaping
from posttrain.stages import Stages, ended_stages, first_step, stage_callback
from posttrain.train_job import TrainJob
from posttrain.trl_keys import MANAGED_GRPO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
    from trl.trainer.grpo_config import GRPOConfig

    from posttrain.prompt_data import PromptData
    from posttrain.stop import StopRequest
    from posttrain.train_plan import Plan
    from posttrain.trainers.grpo_trainer import LengthGRPOTrainer

_DEFAULTS = {"num_generations": 8, "max_completion_length": 512}
"""TRL's, where they are needed before TRL is imported; a test compares them."""
FEWEST_GENERATIONS = 4


@dataclass(kw_only=True)
class GRPOJob(TrainJob):
    """Train a language model by rewards of its own answers; all keys of TRL's GRPOConfig apply too."""

    VERB: ClassVar[str] = "grpo"
    EXAMPLE: ClassVar[str] = (
        "accelerate launch posttrain/grpo.py --config configs/grpo/debug.yaml --shaping.top 0.3"
    )

    rewards: dict[str, dict[str, Any] | None] = option(
        help="rewards by name (a file of posttrain/rewards, a path, or a dotted module), each with its options and a "
        "weight: {answer_correct: {weight: 1, column: answer}}"
    )
    correctness: str = option(
        "answer_correct", help="the reward of 0 or 1 by which shaping tells right from wrong"
    )
    shaping: dict[str, Any] | None = option(
        None, help="what the lengths of a group's answers add: {name: grpo_lambda or kimi, top, alpha, ...}"
    )
    budget: Budget | None = option(
        None, help="tokens that every prompt asks for: {kind, initial, gamma, interval, ...}"
    )
    stages: Stages | None = option(
        None,
        help="max_completion_length in stages, each begun once the answers of the one before need more room: lengths, "
        "window, cut_frac, most_steps",
    )
    guards: Guards = option(
        default_factory=Guards,
        help="when a training is warned of or ends itself: cut_frac, cut_steps, collapse_drop, on_collapse",
        operational=True,
    )
    vllm_dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        "auto", help="with use_vllm: what vLLM computes in; auto: what the training computes in"
    )
    vllm_server: RolloutServer | None = option(
        None,
        help="start a vLLM server on GPUs of its own, and have it write the answers: devices, gpu_memory_utilization, "
        "start_seconds, options",
        operational=True,
    )
    sort_by_length: bool = option(
        True, help="deal a step's answers to forward passes by length, where the loss does not mind"
    )

    def __post_init__(self) -> None:
        """Refuse combinations that would fail late or do nothing."""
        if self.batching.name != "padded":
            raise ValueError(
                f"batching.name is {self.batching.name}, but the model writes its rows itself: leave it out"
            )
        if self.curriculum is not None:
            raise ValueError(
                "curriculum is set, but lengths are not known before they are written: use budget"
            )
        super().__post_init__()
        chosen = self.chosen_rewards
        read_shaping(self.shaping)
        if self.vllm_server is not None:
            for key in (
                "use_vllm",
                "vllm_mode",
                "vllm_server_base_url",
                "vllm_server_host",
                "vllm_server_port",
            ):
                if key in self.trainer:
                    raise ValueError(
                        f"vllm_server and {key} are both set: the first starts a server and has it used; remove {key}"
                    )
            self.trainer = {**self.trainer, "use_vllm": True, "vllm_mode": "server"}
        if self.stages is not None and "max_completion_length" in self.trainer:
            raise ValueError(
                "max_completion_length and stages are both set: stages.lengths are its values; remove it"
            )
        if self.shaping is not None:
            self._check_shaping({reward.name: reward.weight for reward in chosen})
        if self.budget is not None:
            largest, limit = self.budget.schedule().largest, self._limits[0]
            if limit is not None and 2 * largest > limit:
                raise ValueError(
                    f"max_completion_length is {limit}, and the largest budget {largest}: answers of twice the budget "
                    f"are not to be told from cut ones; set max_completion_length to {2 * largest} or lower the budget"
                )
            asked = self.budget.at_evaluation
            if asked is not None and limit is not None and asked > limit:
                raise ValueError(
                    f"budget.at_evaluation is {asked}, above max_completion_length, {limit}: every answer would be cut"
                )
        elif any(reward.name in ("budget_length", "lcpo") for reward in chosen):
            raise ValueError("rewards has budget_length or lcpo, but no prompt states a budget: set budget")

    def _check_shaping(self, weights: Mapping[str, float]) -> None:
        if self.correctness not in weights:
            raise ValueError(
                f"shaping is set, and correctness is {self.correctness!r}, which is none of the rewards "
                f"({', '.join(weights)}): name the one that is 1 for a right answer and 0 for a wrong one"
            )
        if weights[self.correctness] != 1:
            raise ValueError(
                f"rewards.{self.correctness}.weight is {weights[self.correctness]}, but shaping is made for a right "
                "answer that is worth 1: leave the weight out, and weigh the other rewards"
            )
        if self.trainer.get("multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            raise ValueError(
                "multi_objective_aggregation is normalize_then_sum, which would take the shaping for a reward of its "
                "own: leave it out"
            )
        if self._key("num_generations") < FEWEST_GENERATIONS:
            raise ValueError(
                f"num_generations is {self._key('num_generations')}: shaping compares the answers to one prompt, and "
                f"needs at least {FEWEST_GENERATIONS}, better 8"
            )

    @property
    def _limits(self) -> list[int | None]:
        """The limits of a completion's tokens, of each stage; None is no limit."""
        return [self._key("max_completion_length")] if self.stages is None else list(self.stages.lengths)

    def _key(self, name: str) -> Any:
        return self.trainer.get(name, _DEFAULTS[name])

    @property
    def chosen_rewards(self) -> list[ChosenReward]:
        """The field `rewards`, read."""
        return choose_rewards(self.rewards)

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        rewards = ", ".join(f"{r.weight:g} {r.name}" for r in self.chosen_rewards)
        shaping = "" if self.shaping is None else f", shaped by {self.shaping['name']}"
        budget = "" if self.budget is None else f", a budget from {self.budget.initial} tokens"
        return f"GRPO ({rewards}{shaping}{budget}) with {self.update}"

    @property
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""
        return "the answers that the model writes"

    @property
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's GRPOConfig that would do nothing or harm here, with the reason."""
        return MANAGED_GRPO

    @property
    def of_batch(self) -> str:
        """Why a run goes on with the batches it began with."""
        return "the answers of a generation are drawn together"

    @property
    def keys_of_rows(self) -> frozenset[str]:
        """What decides how much room a prompt has, and how it is written."""
        return frozenset({"max_completion_length", "chat_template_kwargs"})

    @property
    def is_online(self) -> bool:
        """The model writes the answers."""
        return True

    def check_machine(self) -> None:
        """Refuse what this machine has no devices for."""
        super().check_machine()
        if self.trainer.get("use_vllm") and importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "use_vllm is true, but vLLM is not installed: `make setup` installs it; or leave the key out"
            )
        check_rollout_server(self.vllm_server, on_cuda=has_cuda() and not self.trainer.get("use_cpu"))

    def layout(self, args: TrainingArguments, *, num_rows: int) -> GenerationLayout:
        """Return how prompts become generations, and these steps."""
        trl: Any = args
        return GenerationLayout(
            num_rows=num_rows,
            batch_size=trl.per_device_train_batch_size,
            accumulation=trl.gradient_accumulation_steps,
            num_processes=trl.world_size,
            num_generations=trl.num_generations,
            steps_per_generation=trl.steps_per_generation,
            num_iterations=trl.num_iterations,
        )

    def settled(self, plan: Plan) -> Plan:
        """Return the plan with no more context for vLLM than is needed; refuses prompts that fill no generation."""
        layout: Any = plan.layout
        layout.check()
        self.notes(plan)  # refuses on all processes what the header would refuse on the first
        sets = [plan.data, *([plan.eval_data] if plan.eval_data else [])]
        for data in sets:
            check_columns(self.chosen_rewards, data)
        trl: Any = plan.args
        if str(trl.save_strategy.value) == "steps":
            if "save_steps" not in self.trainer and layout.steps_per_cycle > 1:
                trl.save_steps -= trl.save_steps % layout.steps_per_cycle
            layout.check_saves(trl.save_steps)
        if trl.use_vllm and trl.vllm_max_model_length is None:
            trl.vllm_max_model_length = max(data.longest for data in sets) + trl.max_completion_length
        return plan

    def notes(self, plan: Plan) -> list[str]:
        """Return a warning where a generation has too few prompts for shaping to choose among them."""
        shaping, layout = read_shaping(self.shaping), plan.layout
        assert isinstance(layout, GenerationLayout)
        return [] if shaping is None else shaping.check_groups(layout.prompts_per_generation)

    def prepare(
        self, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> PromptData:
        """Read, render and mix the prompts of `sources`, which leave room for an answer."""
        from posttrain.prompt_data import prepare_prompts

        longest = self._limits[-1] or 0
        room = max_length - longest
        if room < 1:
            raise ConfigError(
                f"max_completion_length is {longest}, which leaves no room for a prompt in {max_length} tokens: "
                "lower it"
            )
        return prepare_prompts(
            sources,
            tokenizer,
            max_length=room,
            over_length=self.over_length,
            on_bad_row=self.on_bad_row,
            mixture_rows=self.mixture_rows,
            seed=self.seed,
            stated=None if self.budget is None else partial(_stated, self.budget),
            template_kwargs=self.trainer.get("chat_template_kwargs"),
        )

    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> GRPOConfig:
        """Return TRL's config object, with defaults under which lengths are not biased in silence.

        vLLM renormalises log-probabilities over what `top_p` keeps, the trainer does not; and TRL's correction of the
        difference multiplies it over all tokens of an answer, so that long answers are masked more often.
        """
        from trl.trainer.grpo_config import GRPOConfig

        if self.stages is not None:
            keys["max_completion_length"] = self._stage(Path(keys["output_dir"]))
        keys.setdefault("logging_steps", 1)  # a step takes long, and the guards see what is logged
        keys.setdefault("top_p", 1.0)
        keys.setdefault("vllm_importance_sampling_mode", "token_truncate")
        weights = [reward.weight for reward in self.chosen_rewards]
        return GRPOConfig(reward_weights=[*weights, *([1.0] if self.shaping is not None else [])], **keys)

    def _stage(self, folder: Path) -> int:
        """Return the limit of the stage that the run in a folder goes on with."""
        assert self.stages is not None
        return self.stages.lengths[len(self._begun_stages(folder))]

    def _begun_stages(self, folder: Path) -> list[dict[str, Any]]:
        checkpoint = find_checkpoint(folder, self.resume_from_checkpoint)
        return ended_stages(folder, 0 if checkpoint is None else steps_done(checkpoint))

    def trainer_class(self) -> type[LengthGRPOTrainer]:
        """Return TRL's trainer with budgets and shaping."""
        from posttrain.trainers.grpo_trainer import LengthGRPOTrainer

        return LengthGRPOTrainer

    def trainer_options(self, plan: Plan) -> dict[str, Any]:
        """Return the rewards, the shaping and the budget."""
        from posttrain.trainers.grpo_trainer import length_shaping
        from posttrain.trainers.rollout_log import RolloutLog

        template_kwargs = self.trainer.get("chat_template_kwargs") or {}
        functions = reward_functions(self.chosen_rewards, plan.model.path, plan.tokenizer, template_kwargs)
        shaping = read_shaping(self.shaping)
        if shaping is not None:
            functions.append(length_shaping)
        budget = None
        if self.budget is not None:
            schedule = self.budget.schedule()
            budget = PromptBudget(
                schedule=schedule,
                at_evaluation=self.budget.at_evaluation or self._last_budget(plan),
                sentence=self.budget.sentence,
                role=self.budget.role,
                seed=self.seed,
            )
        return {
            "reward_funcs": functions,
            "shape": None if shaping is None else shaping.shape(),
            "correctness": self.correctness,
            "budget": budget,
            "sorts_by_length": self.sort_by_length,
            "end_of_turn_ids": end_of_turn_ids(plan.tokenizer),
            "rollouts": RolloutLog(plan.folder),
            "vllm_dtype": self._vllm_dtype(plan),
        }

    @contextmanager
    def beside(self, plan: Plan) -> Iterator[None]:
        """Keep the server that writes the answers while the block runs, where the config asks for one."""
        if self.vllm_server is None:
            yield
            return
        trl: Any = plan.args
        port = free_port()
        trl.vllm_server_base_url = f"http://127.0.0.1:{port}"
        command = self.vllm_server.command(
            model=plan.model.path,
            dtype=self._vllm_dtype(plan),
            max_model_len=trl.vllm_max_model_length,
            port=port,
        )
        with running(command, self.vllm_server.start_seconds):
            yield

    def _vllm_dtype(self, plan: Plan) -> str:
        return self._computes_in(plan) if self.vllm_dtype == "auto" else self.vllm_dtype

    def _computes_in(self, plan: Plan) -> str:
        if plan.args.bf16 or plan.args.fp16:
            return "bfloat16" if plan.args.bf16 else "float16"
        return weights_dtype(self.dtype, is_lora=self.lora is not None)

    def callbacks(self, plan: Plan, stop: StopRequest) -> list[TrainerCallback]:
        """Return the guards, and what ends a stage."""
        names = {reward.name for reward in self.chosen_rewards}
        judge = self.correctness if self.correctness in names else None
        if self.stages is None:
            return [guard_callback(self.guards, judge, stop)]
        begun = self._begun_stages(plan.folder)
        is_last = len(begun) + 1 == len(self.stages.lengths)
        return [
            guard_callback(self.guards, judge, stop, from_step=first_step(begun), bears_cuts=not is_last),
            stage_callback(self.stages, plan.folder, stop),
        ]

    def _last_budget(self, plan: Plan) -> int | None:
        """Return the budget of the last step, in tokens; None where prompts draw theirs."""
        assert self.budget is not None
        if self.budget.kind == "uniform":
            return None
        args = plan.args
        steps = (
            args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * plan.steps_per_epoch)
        )
        return self.budget.schedule().at(max(0, steps - 1))


def _stated(budget: Budget, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages that state the largest budget, as the trainer will have them."""
    found = with_budget(messages, budget.schedule().largest, sentence=budget.sentence, role=budget.role)
    assert isinstance(found, list)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train, or say what would be trained; returns the exit code."""
    return run_main(train_job.run_job, GRPOJob, argv)


def check(argv: Sequence[str] | None) -> tuple[GRPOJob, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing."""
    return train_job.check(GRPOJob, argv)


if __name__ == "__main__":
    raise SystemExit(main())
