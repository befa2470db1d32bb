"""Our GRPO trainer on TRL's: what it must not change, and what it must."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_grpo import data, shape_with, trained
from tiny_model import tiny_model
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from posttrain.budget_prompts import PromptBudget
from posttrain.length_shaping import Rollout, Shaped, grpo_lambda
from posttrain.token_budgets import BudgetSchedule
from posttrain.trainers.grpo_trainer import LengthGRPOTrainer, length_shaping
from posttrain.trainers.sorted_split import sorted_split


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "base")


def even(*, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    """Call a completion right if its length is even: the tiny model gets about half of them right."""
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def differ(a: Any, b: Any) -> list[str]:
    first, second = weights(a), weights(b)
    return [name for name in first if not first[name].equal(second[name])]


def test_lambda_0_is_trls_grpo_to_the_bit(base, tmp_path):
    stock = trained(GRPOTrainer, base, tmp_path / "stock", [even])
    ours = trained(
        LengthGRPOTrainer,
        base,
        tmp_path / "ours",
        [even, length_shaping],
        shape=shape_with(0),
        correctness="even",
        sorts_by_length=False,
    )
    assert not differ(stock, ours)
    assert any(line.get("reward_std", 0) > 0 for line in stock.state.log_history)


def test_lambda_1_trains_something_else_and_correctness_stays_to_be_seen(base, tmp_path):
    seen: list[tuple[list[list[Rollout]], Shaped]] = []

    def shape(groups: Any) -> Shaped:
        seen.append((groups, grpo_lambda(groups, top=1)))
        return seen[-1][1]

    options = {"correctness": "even", "sorts_by_length": False}
    rewards = [even, length_shaping]
    none = trained(LengthGRPOTrainer, base, tmp_path / "none", rewards, shape=shape_with(0), **options)
    every = trained(LengthGRPOTrainer, base, tmp_path / "every", rewards, shape=shape, **options)
    assert differ(none, every)
    logs = [line for line in every.state.log_history if "reward" in line]
    for line, (groups, shaped) in zip(logs, seen, strict=True):
        rollouts = [rollout for group in groups for rollout in group]
        right = sum(r.correct or 0 for r in rollouts) / len(rollouts)
        added = sum(value for group in shaped.added for value in group) / len(rollouts)
        assert line["rewards/even/mean"] == pytest.approx(right)
        assert line["rewards/length_shaping/mean"] == pytest.approx(added)
        assert line["reward"] == pytest.approx(right + added)
        assert line["shaping/selected_frac"] == pytest.approx(sum(shaped.selected) / len(shaped.selected))


SCHEDULE = BudgetSchedule(kind="piecewise", initial=40, steps=((2, 30), (3, 20)))


class Budgets:
    """A reward that notes what prompts and rows say the budget is, and at which step."""

    __name__ = "budgets"

    def __init__(self) -> None:
        self.seen: list[tuple[bool, int, set[int], set[str]]] = []
        self.is_training = True

    def __call__(
        self, *, prompts: Any, trainer_state: Any, token_budget: list[int], **columns: Any
    ) -> list[float]:
        said = {prompt[-1]["content"].rpartition("exactly ")[2] for prompt in prompts}
        self.seen.append((self.is_training, trainer_state.global_step, set(token_budget), said))
        return [float(i % 2) for i in range(len(prompts))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dataloader_num_workers": 2},
        {"num_iterations": 2, "max_steps": 8},
        {"steps_per_generation": 4, "max_steps": 8},
    ],
    ids=["plain", "workers", "two_iterations", "several_steps_a_generation"],
)  # fmt: skip
def test_prompt_reward_and_log_have_the_same_budget(base, tmp_path, options):
    noted = Budgets()
    trainer = trained(
        LengthGRPOTrainer,
        base,
        tmp_path,
        [noted],
        budget=PromptBudget(schedule=SCHEDULE, at_evaluation=16),
        **options,
    )
    assert len(noted.seen) > 1
    for _, step, column, said in noted.seen:
        assert column == {SCHEDULE.at(step)}
        assert said == {f"{SCHEDULE.at(step)} tokens."}
    logged = [line["token_budget"] for line in trainer.state.log_history if "token_budget" in line]
    assert logged == [float(SCHEDULE.at(step)) for _, step, _, _ in noted.seen]
    assert "token_budget" not in trainer.train_dataset.column_names
    assert trainer.train_dataset[0]["prompt"] == data()[0]["prompt"]


def test_evaluation_is_unshaped_and_has_its_own_budget(base, tmp_path):
    noted = Budgets()
    calls: list[int] = []

    def shape(groups: Any) -> Shaped:
        calls.append(len(groups))
        return grpo_lambda(groups, top=1)

    trainer = trained(
        LengthGRPOTrainer,
        base,
        tmp_path,
        [noted, even, length_shaping],
        shape=shape,
        correctness="even",
        budget=PromptBudget(schedule=SCHEDULE, at_evaluation=16),
        per_device_eval_batch_size=4,
        max_steps=1,
    )
    before, shaped = len(noted.seen), len(calls)
    metrics = trainer.evaluate()
    assert len(noted.seen) > before and len(calls) == shaped
    assert {(frozenset(column), frozenset(said)) for _, _, column, said in noted.seen[before:]} == {
        (frozenset({16}), frozenset({"16 tokens."}))
    }
    assert metrics["eval_rewards/length_shaping/mean"] == 0


class Prompts(TrainerCallback):
    """Notes the rows of each generation."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def reward(self, *, row: list[int], **columns: Any) -> list[float]:
        self.rows.append(row)
        return [float(random.random() > 0.5) for _ in row]


@pytest.mark.parametrize("stop_at", [2, 6])
def test_a_run_that_goes_on_sees_the_same_prompts(base, tmp_path, stop_at):
    """8 prompts, 2 a step: an epoch is 4 steps, so that the second stop lies within the second epoch."""
    whole, first, second = Prompts(), Prompts(), Prompts()
    shared = {"max_steps": 10, "save_strategy": "steps", "save_steps": stop_at}
    trained(LengthGRPOTrainer, base, tmp_path / "whole", [whole.reward], **shared | {"save_strategy": "no"})
    folder = tmp_path / "parts"

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_training_stop = state.global_step == stop_at
            return control

    trained(LengthGRPOTrainer, base, folder, [first.reward], callbacks=[Stop()], **shared)
    trained(
        LengthGRPOTrainer,
        base,
        folder,
        [second.reward],
        resume_from_checkpoint=str(folder / f"checkpoint-{stop_at}"),
        **shared,
    )
    assert first.rows == whole.rows[:stop_at]
    assert second.rows == whole.rows[stop_at:]
    assert whole.rows[:4] != whole.rows[4:8]


def test_rows_are_sorted_within_a_step_and_trimmed():
    lengths = [[3, 9], [1, 2], [8, 7], [9, 1]]
    batches = []
    for number, pair in enumerate(lengths):
        mask = torch.tensor([[1] * n + [0] * (10 - n) for n in pair])
        names = torch.tensor([10 * number, 10 * number + 1])
        batches.append(
            {
                "completion_mask": mask,
                "completion_ids": mask * (names[:, None] + 1),
                "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1]]),
                "prompt_ids": torch.tensor([[0, 0, 5], [0, 6, 7]]),
                "advantages": names.float(),
                "num_items_in_batch": torch.tensor(40),
            }
        )
    found = sorted_split(batches, per_step=2)
    assert [batch["completion_mask"].sum(1).tolist() for batch in found] == [[1, 2], [3, 9], [1, 7], [8, 9]]
    assert [batch["completion_ids"].shape[1] for batch in found] == [2, 9, 7, 9]
    assert [batch["advantages"].tolist() for batch in found] == [[10, 11], [0, 1], [31, 21], [20, 30]]
    assert [batch["prompt_ids"].shape[1] for batch in found] == [2, 2, 2, 1]
    assert {int(batch["num_items_in_batch"]) for batch in found} == {40}
    for batch in found:
        for ids, mask, name in zip(
            batch["completion_ids"], batch["completion_mask"], batch["advantages"], strict=True
        ):
            assert set(ids[mask.bool()].tolist()) == {int(name) + 1}


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "grpo"},
        {"loss_type": "dapo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "cispo"},
        {"beta": 0.1},
        {"mask_truncated_completions": True, "max_completion_length": 150},
        {"num_iterations": 2, "max_steps": 2},
    ],
    ids=lambda options: "_".join(map(str, options.values())),
)
def test_a_sorted_step_has_the_gradient_of_trls(base, tmp_path, options):
    """SGD without clipping: the weights after one step differ by the gradients."""
    shared = {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        **options,
    }
    stock = trained(GRPOTrainer, base, tmp_path / "stock", [even], **shared)
    ours = trained(LengthGRPOTrainer, base, tmp_path / "ours", [even], **shared)
    before = trained(GRPOTrainer, base, tmp_path / "none", [even], **shared | {"learning_rate": 0.0})
    start, theirs, sorted_ = weights(before), weights(stock), weights(ours)
    moved = sum(float((theirs[name] - start[name]).norm() ** 2) for name in start) ** 0.5
    apart = sum(float((theirs[name] - sorted_[name]).norm() ** 2) for name in start) ** 0.5
    assert moved > 0 and apart / moved < 1e-5


def test_what_cannot_be_judged_counts_for_nothing_whatever_other_rewards_say(base, tmp_path):
    seen: list[torch.Tensor] = []

    def judged(*, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float | None]:
        return [None if i % 4 == 0 else float(i % 2) for i in range(len(completion_ids))]

    def polite(*, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [1.0] * len(completion_ids)

    class Noting(LengthGRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            found = super()._generate_and_score_completions(inputs)
            seen.append(torch.tensor(list(self._logs["advantages"])))
            return found

    for shape in (None, shape_with(1)):
        rewards = [judged, polite, *([] if shape is None else [length_shaping])]
        trained(Noting, base, tmp_path, rewards, shape=shape, correctness="judged", max_steps=1)
        advantages = seen[-1].view(-1, 4)
        assert (advantages[:, 0] == 0).all() and (advantages[:, 1] > 0).all() and (advantages[:, 2] < 0).all()


@pytest.mark.parametrize("options", [{"top_entropy_quantile": 0.5}, {"entropy_coef": 0.01}])
def test_a_loss_that_weighs_by_the_pass_is_not_sorted(base, tmp_path, options):
    trainer = trained(LengthGRPOTrainer, base, tmp_path, [even], max_steps=1, **options)
    assert not trainer._sorts


def test_shaping_without_its_rewards_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="shaping needs 'even' and 'length_shaping' among them"):
        trained(LengthGRPOTrainer, base, tmp_path, [even], shape=shape_with(0.2), correctness="even")
