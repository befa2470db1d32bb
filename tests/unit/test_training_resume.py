"""What a resumed training run may change, which rows its steps have, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import pytest

from lengthwise.config import ConfigError
from posttrain.batch_layout import BatchLayout, check_resumable
from posttrain.stop import StopRequest


def layout(batch_size, accumulation, num_processes, num_rows=16, **more):
    return BatchLayout(
        num_rows=num_rows,
        batch_size=batch_size,
        accumulation=accumulation,
        num_processes=num_processes,
        **more,
    )


@pytest.mark.parametrize(
    ("given", "rows", "steps"),
    [
        (layout(2, 1, 1, 6), 6, 3),
        (layout(2, 2, 1, 6), 6, 2),
        (layout(2, 1, 2, 6), 8, 2),  # filled up with the first rows
        (layout(4, 1, 1, 3), 3, 1),
        (layout(2, 1, 2, 7, drop_last=True), 4, 1),
        (layout(2, 1, 1, 7, drop_last=True), 6, 3),
    ],
)
def test_rows_and_steps_of_an_epoch(given, rows, steps):
    assert (given.rows_per_epoch, given.steps_per_epoch) == (rows, steps)


def test_other_factors_of_the_same_steps_may_go_on():
    check_resumable(layout(2, 4, 1), layout(2, 2, 2), bound_by=None)
    check_resumable(layout(8, 1, 1), layout(1, 8, 1), bound_by=None)
    check_resumable(layout(2, 1, 1), layout(2, 1, 1), bound_by="dropout would draw other random numbers")


@pytest.mark.parametrize(
    ("now", "bound_by", "reason"),
    [
        (
            layout(2, 4, 2),
            None,
            "= 8 rows a step; now it is .* = 16 rows a step: each step would train on other",
        ),
        (layout(2, 4, 2), None, "with gradient_accumulation_steps 2 it could go on"),
        (layout(3, 1, 1), None, "per_device_train_batch_size 3"),
        (
            layout(2, 2, 2),
            "dropout would draw other random numbers",
            "dropout would draw other random numbers",
        ),
    ],
)
def test_other_steps_are_refused_with_both_layouts(now, bound_by, reason):
    with pytest.raises(ConfigError, match=reason):
        check_resumable(layout(2, 4, 1), now, bound_by=bound_by)


def test_a_last_batch_that_would_be_filled_up_is_refused():
    with pytest.raises(ConfigError, match="an epoch would have 8 rows instead of 6"):
        check_resumable(layout(2, 2, 1, 6), layout(2, 1, 2, 6), bound_by=None)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_an_epoch_has_the_same_order_after_a_resume(processes, strategy):
    """In the second epoch, where accelerate alone would shuffle as in the first."""
    torch = pytest.importorskip("torch")
    from accelerate import PartialState
    from accelerate.data_loader import (
        BatchSamplerShard,
        DataLoaderShard,
        SeedableRandomSampler,
        skip_first_batches,
    )
    from torch.utils.data import BatchSampler
    from transformers.trainer_pt_utils import LengthGroupedSampler

    from posttrain.batch_layout import same_order_after_resume

    PartialState(cpu=True)
    rows = list(range(16))

    def loader():
        by_length = LengthGroupedSampler(2, lengths=rows)
        sampler = by_length if strategy == "group_by_length" else SeedableRandomSampler(rows, data_seed=5)
        batches = BatchSampler(sampler, 2, drop_last=False)
        return DataLoaderShard(
            rows, batch_sampler=BatchSamplerShard(batches, processes, 0) if processes > 1 else batches
        )

    def epoch(data, number, skip=0):
        """Draw an epoch as the trainer does."""
        state = SimpleNamespace(epoch=number + skip / 8)
        order.on_epoch_begin(SimpleNamespace(seed=3), state, None, train_dataloader=data)
        data = skip_first_batches(data, skip) if skip else data
        data.set_epoch(number)
        return [batch.tolist() for batch in data]

    order = same_order_after_resume()
    whole = loader()
    first, second = epoch(whole, 0), epoch(whole, 1)
    assert first != second
    torch.manual_seed(99)
    assert epoch(loader(), 1, skip=2) == second[2:]


def test_step_rows_are_read_off_the_batch(tmp_path):
    torch = pytest.importorskip("torch")
    import numpy as np

    from lengthwise.row_formats import TrainRow
    from posttrain.step_rows import StepRows, rows_of
    from posttrain.train_data import TokenRow

    def row(name, ids):
        raw = TrainRow(id=name, messages=(), source="rows.jsonl", line=7)
        return TokenRow(raw, np.array(ids, dtype=np.int32), np.array(ids, dtype=np.int32))

    padded = {
        "input_ids": torch.tensor([[5, 6, 0], [7, 8, 9]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }
    joined = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "position_ids": torch.tensor([[0, 1, 0, 1, 2]])}
    for batch in (padded, joined):
        assert [ids.tolist() for ids in rows_of(batch)] == [[5, 6], [7, 8, 9]]

    log = StepRows(tmp_path / "step_rows.jsonl", [row("a", [5, 6]), row("b", [7, 8, 9])])
    log.see(rows_of(padded))
    write = log.callback()
    write.on_step_end(None, SimpleNamespace(global_step=1, is_world_process_zero=True), None)
    assert json.loads(log.path.read_text()) == {"step": 1, "rows": ["a", "b"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_once_and_may_come_twice(number):
    """Slurm signals every process, and launchers hand the signal on besides."""
    before = signal.getsignal(number)
    stop = StopRequest()
    stop.listen()
    try:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert stop.signal == number
    finally:
        stop.restore()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once():
    stop = StopRequest()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.restore()


def trained(folder, *, stop_at=None, **settings):
    """Train a scalar for two epochs of three steps; returns the logged steps, the saves and the evaluations."""
    torch = pytest.importorskip("torch")
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from posttrain.run_log import read_metrics, run_log

    class Scalar(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x, labels=None):
            return {"loss": ((self.weight * x - labels) ** 2).mean(), "logits": self.weight * x}

    stop, saves, evaluations = StopRequest(), [], []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == stop_at:
                stop.signal = signal.SIGTERM

        def on_save(self, args, state, control, **kwargs):
            saves.append(state.global_step)

        def on_evaluate(self, args, state, control, **kwargs):
            evaluations.append(state.global_step)

    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        num_train_epochs=2,
        per_device_train_batch_size=1,
        logging_steps=100,
        **settings,
    )
    rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([2.0 * i])} for i in range(1, 4)]
    trainer = Trainer(
        model=Scalar(),
        args=args,
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
        eval_dataset=rows,  # pyright: ignore[reportArgumentType]
        callbacks=[Watch(), stop.callback(), run_log(folder / "metrics.jsonl")],
    )
    trainer.train()
    return [r["step"] for r in read_metrics(folder / "metrics.jsonl") if "loss" in r], saves, evaluations


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({"save_strategy": "epoch"}, [3, 6]),
        ({"save_strategy": "no"}, [6]),
        ({"save_strategy": "steps", "save_steps": 4}, [4, 6]),
        ({"save_strategy": "best", "eval_strategy": "epoch", "metric_for_best_model": "loss"}, [3, 6]),
    ],
)
def test_no_loss_is_left_unlogged_at_a_checkpoint_or_at_the_end(tmp_path, settings, logged):
    assert trained(tmp_path, **settings)[0] == logged


@pytest.mark.parametrize(
    ("settings", "stop_at", "saves", "evaluations"),
    [
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, 2, [2], []),
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, 3, [3], [3]),
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, 6, [3, 6], [3, 6]),
        ({"save_strategy": "no", "eval_strategy": "epoch"}, 3, [3], [3]),
        ({"save_strategy": "steps", "save_steps": 2}, 2, [2], []),
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 2}, 2, [2], []),
        ({"save_strategy": "best", "eval_strategy": "epoch"}, 2, [2], []),
    ],
)
def test_a_stop_writes_its_checkpoint_once(tmp_path, settings, stop_at, saves, evaluations):
    if settings["save_strategy"] == "best":
        settings = {**settings, "metric_for_best_model": "loss"}
    logged, saved, evaluated = trained(tmp_path, stop_at=stop_at, **settings)
    assert (saved, evaluated) == (saves, evaluations)
    assert logged[-1] == stop_at
