"""TRL's GRPOTrainer with budgets in prompts, rewards shaped by length, and prompts that a resumed run finds again.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from lengthwise.degeneration import repeated_ngram_frac
from posttrain.batch_order import passes_of
from posttrain.budget_prompts import PromptBudget
from posttrain.length_shaping import Rollout, Shaped
from posttrain.prompt_data import with_columns
from posttrain.rewarded import BUDGET, SHAPING, is_cut
from posttrain.step_rows import StepRows
from posttrain.trainers.rollout_log import RolloutLog
from posttrain.trainers.sorted_split import SUMS, sorted_split
from posttrain.trainers.step_clock import StepClock
from posttrain.vllm_rollouts import engine_options


def length_shaping(*, prompts: Sequence[Any], **columns: Any) -> list[float]:
    """Return zeros: the trainer adds the shaping once the rewards of all processes are there."""
    return [0.0] * len(prompts)


class EpochRepeatSampler(RepeatSampler):
    """TRL's sampler with an order of its own for each epoch, which a run that goes on can draw again.

    TRL's goes on drawing from one generator, so that a run resumed in its second epoch sees the order of the first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take TRL's arguments."""
        super().__init__(*args, **kwargs)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say whose order comes next; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        """Yield row numbers as TRL's does."""
        if self.shuffle and self.seed is not None:
            self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class LengthGRPOTrainer(GRPOTrainer):
    """TRL's trainer; the mathematics is in `posttrain.length_shaping`, `token_budgets` and `length_rewards`."""

    def __init__(
        self,
        *args: Any,
        shape: Callable[[Sequence[Sequence[Rollout]]], Shaped] | None = None,
        correctness: str | None = None,
        budget: PromptBudget | None = None,
        sorts_by_length: bool = True,
        end_of_turn_ids: Collection[int] = (),
        rollouts: RolloutLog | None = None,
        step_rows: StepRows | None = None,
        vllm_dtype: str = "auto",
        **kwargs: Any,
    ) -> None:
        """Take TRL's arguments and our own.

        Args:
            args: TRL's.
            shape: what the lengths of a batch's groups add to its rewards.
            correctness: name of the reward of 0 or 1 by which groups are chosen; a completion that it cannot judge
                counts for nothing, whatever other rewards say.
            budget: what every prompt states.
            sorts_by_length: whether the completions of a step are dealt to forward passes by length, where that does
                not change the step.
            end_of_turn_ids: tokens that end a turn of the template, beside those that the model's files name.
            rollouts: where completions are written; None: nowhere.
            step_rows: log of the rows each step is trained on, whose column `row_id` names them.
            vllm_dtype: what vLLM computes in, where it writes the completions.
            kwargs: TRL's.
        """
        self._shape, self._budget = shape, budget
        self._clock, self._rollouts, self._step_rows = StepClock(), rollouts, step_rows
        given: Any = kwargs["args"]
        with (
            engine_options(dtype=vllm_dtype, on_cuda=given.device.type == "cuda")
            if given.use_vllm and given.vllm_mode == "colocate"
            else nullcontext()
        ):
            super().__init__(*args, **kwargs)
        self.args: Any = self.args  # a GRPOConfig, which the base class does not say
        self.model: Any = self.model
        self._end_turns_at(end_of_turn_ids)
        if self.use_vllm:
            self.vllm_generation.sync_weights = self._timed("sync", self.vllm_generation.sync_weights)
        if rollouts is not None:
            self.add_callback(rollouts.callback())
        passes, accumulation = self.args.steps_per_generation, self.args.gradient_accumulation_steps
        fits = passes % accumulation == 0 or accumulation % passes == 0
        self._sorts = sorts_by_length and self.args.loss_type in SUMS and fits and not self._weighs_passes()
        names = self.reward_func_names
        self._correct_at = names.index(correctness) if correctness in names else None
        if shape is not None:
            if SHAPING not in names or correctness not in names:
                raise ValueError(
                    f"the rewards are {', '.join(names)}: shaping needs {correctness!r} and {SHAPING!r} among them"
                )
            self._shaping_at = names.index(SHAPING)

    def _weighs_passes(self) -> bool:
        """Return whether the loss has a term that depends on which completions share a forward pass."""
        return self.top_entropy_quantile < 1 or self._entropy_bonus_enabled or self.aux_loss_enabled

    def _end_turns_at(self, ids: Collection[int]) -> None:
        missing = sorted(set(ids) - set(self.eos_token_ids))
        if not missing:
            return
        self.eos_token_ids = [*self.eos_token_ids, *missing]
        if self.use_vllm:
            given = self.vllm_generation.generation_kwargs
            given["stop_token_ids"] = [*given.get("stop_token_ids", []), *missing]
        else:
            self.generation_kwargs["eos_token_id"] = self.eos_token_ids
            self.generation_config.eos_token_id = self.eos_token_ids

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._clock.part(name):
                return function(*args, **kwargs)

        return timed

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        if type(sampler) is not RepeatSampler:
            raise RuntimeError("TRL's GRPOTrainer has another sampler: this version of TRL is not known here")
        return EpochRepeatSampler(
            data_source=sampler.data_source,
            mini_repeat_count=sampler.mini_repeat_count,
            batch_size=sampler.batch_size,
            repeat_count=sampler.repeat_count,
            shuffle=sampler.shuffle,
            seed=sampler.seed,
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Put the budget into prompts and rows: rewards get it as a column, so that both are the same number."""
        inputs = [with_columns(row) for row in inputs]
        if self._budget is not None:
            step = self.state.global_step if self.model.training else None
            inputs = [self._budget.stated(row, step) for row in inputs]
            self._log_metric(BUDGET, fmean(row[BUDGET] for row in inputs))
        found = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self._keep_rollouts(inputs)
        return found

    def _keep_rollouts(self, inputs: list[dict[str, Any]]) -> None:
        """Write what was generated: TRL has gathered it from all processes, for its own log."""
        if self._step_rows is not None:
            self._step_rows.seen += [row["row_id"] for row in inputs]
        if self._rollouts is None or not self.accelerator.is_main_process:
            return
        logs = self._logs
        columns = {
            **logs["extra"],
            "prompt": logs["prompt"],
            "completion": [
                text if isinstance(text, str) else text[-1]["content"] for text in logs["completion"]
            ],
            **{f"rewards/{name}": values for name, values in logs["rewards"].items()},
            "advantage": logs["advantages"],
        }
        self._rollouts.write(self.state.global_step + 1, columns)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """Return the rewards of all processes, with what the groups' lengths add."""
        with self._clock.part("rewards"):
            rewards: torch.Tensor = super()._calculate_rewards(
                inputs, prompts, completions, completion_ids_list
            )
            self._log_completions(inputs, completions, completion_ids_list)
            if self._shape is not None:
                rewards = self._shaped(rewards, completion_ids_list)
            if self._correct_at is not None:
                rewards[rewards[:, self._correct_at].isnan()] = torch.nan
            return rewards

    def _log_completions(self, inputs: Any, completions: Any, completion_ids_list: list[list[int]]) -> None:
        """Note what the rollouts' file has of each completion, and how far the texts repeat themselves."""
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        columns: dict[str, list[Any]] = {
            "row_id": [row.get("row_id") for row in inputs],
            "num_tokens": [len(ids) for ids in completion_ids_list],
            "finish_reason": ["length" if self._is_cut(ids) else "stop" for ids in completion_ids_list],
            BUDGET: [row.get(BUDGET) for row in inputs],
        }
        for name, values in columns.items():
            self._log_completion_extra(name, values)
        self._log_metric(
            "completions/repeated_frac", fmean(repeated_ngram_frac(text, None) for text in texts)
        )

    def _shaped(self, rewards: torch.Tensor, completion_ids_list: list[list[int]]) -> torch.Tensor:
        """Return the rewards with what the groups' lengths add, in the column of the placeholder; in training only."""
        assert self._shape is not None and self._correct_at is not None
        if not self.model.training:
            self._log_completion_extra("is_selected", [None] * len(completion_ids_list))
            return rewards
        facts = torch.tensor(
            [[len(ids), self._is_cut(ids)] for ids in completion_ids_list],
            dtype=torch.float32,
            device=rewards.device,
        )
        lengths, cuts = gather(facts).T.tolist()  # pyright: ignore[reportAttributeAccessIssue]
        corrects = rewards[:, self._correct_at].tolist()
        rollouts = [
            Rollout(None if correct != correct else correct, int(length), bool(cut))
            for correct, length, cut in zip(corrects, lengths, cuts, strict=True)
        ]
        size: int = self.args.num_generations
        groups = [rollouts[start : start + size] for start in range(0, len(rollouts), size)]
        shaped = self._shape(groups)
        added = torch.tensor([value for group in shaped.added for value in group], device=rewards.device)
        rewards[:, self._shaping_at] = added.to(rewards.dtype)
        self._note(group_facts(groups, shaped))
        is_selected = [chosen for chosen in shaped.selected for _ in range(size)]
        start = self.accelerator.process_index * len(completion_ids_list)
        self._log_completion_extra("is_selected", is_selected[start : start + len(completion_ids_list)])
        return rewards

    def _is_cut(self, ids: Sequence[int]) -> bool:
        return is_cut(ids, self.eos_token_ids)

    def _note(self, facts: dict[str, float]) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in facts.items():
            self._metrics[mode][name].append(value)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self._clock.part("generation"):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        with self._clock.part("log_probs"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Train on a batch as TRL does, and log where an optimizer step's time went."""
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._clock.take()  # what an evaluation in between took
        with self._clock.part("loss"):
            loss = super().training_step(*args, **kwargs)
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._note({f"time/{name}": seconds for name, seconds in self._clock.take().items()})
        return loss

    def _go_on_within(self) -> None:
        """Count forward passes from the run's start; TRL counts from the resume, and generates at other steps."""
        prompts = self.args.generation_batch_size // self.num_generations
        generations = len(self.train_dataset) // prompts  # pyright: ignore[reportArgumentType]
        passes = generations * self.args.steps_per_generation * self.num_iterations
        self._step = passes_of(self.state.global_step, passes, self.args.gradient_accumulation_steps)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Deal what was generated to the batches of each step by length."""
        if self.model.training and self._buffered_inputs is None:
            self._go_on_within()
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self._sorts or self._buffered_inputs is before or self._buffered_inputs is None:
            return inputs
        per_step = min(self.args.gradient_accumulation_steps, self.args.steps_per_generation)
        self._buffered_inputs = sorted_split(self._buffered_inputs, per_step=per_step)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]


def group_facts(groups: Sequence[Sequence[Rollout]], shaped: Shaped) -> dict[str, float]:
    """Return what is logged of a batch's groups: how many were shaped, and how long their completions are."""
    found: dict[str, list[float]] = defaultdict(list)
    for group, is_selected, ratio in zip(groups, shaped.selected, shaped.ratios, strict=True):
        found["shaping/selected_frac"].append(float(is_selected))
        if ratio is not None:
            found["shaping/correct_ratio"].append(ratio)
        which = "selected" if is_selected else "others"
        found[f"shaping/{which}_tokens"] += [float(rollout.length) for rollout in group]
        found["shaping/right_tokens"] += [float(rollout.length) for rollout in group if rollout.is_right]
        found["shaping/cut_frac"] += [float(rollout.is_cut) for rollout in group]
    return {name: fmean(values) for name, values in found.items() if values}
