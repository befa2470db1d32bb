"""How prompts become generations, and these steps: counted as TRL's own sampler and trainer do it."""

from __future__ import annotations

import pytest
from trl.trainer.utils import RepeatSampler

from lengthwise.config import ConfigError
from posttrain.generation_layout import GenerationLayout


def layout(**given: int) -> GenerationLayout:
    plain = {
        "num_rows": 20,
        "batch_size": 4,
        "accumulation": 2,
        "num_processes": 1,
        "num_generations": 4,
        "steps_per_generation": 2,
        "num_iterations": 1,
    }
    return GenerationLayout(**plain | given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_rows": 21},
        {"num_processes": 2},
        {"steps_per_generation": 4},
        {"num_iterations": 3},
        {"accumulation": 4, "num_rows": 22},
        {"accumulation": 8, "num_rows": 23, "num_iterations": 2},
    ],
)
def test_an_epoch_has_as_many_passes_as_trls_sampler_gives(given):
    found = layout(**given)
    sampler = RepeatSampler(
        data_source=range(found.num_rows),  # pyright: ignore[reportArgumentType]
        mini_repeat_count=found.num_generations,
        batch_size=found.prompts_per_generation,
        repeat_count=found.passes_per_generation,
        seed=0,
    )
    rows = list(sampler)
    asked = found.batch_size * found.steps_per_generation * found.num_processes
    assert len(rows) // asked == found.passes_per_epoch
    assert len(set(rows)) == found.rows_per_epoch
    assert found.steps_per_epoch == -(-found.passes_per_epoch // found.accumulation)


def test_prompts_that_are_left_over_are_said():
    assert "do not fill" not in str(layout())
    assert "1 prompts, others in each epoch, do not fill a generation" in str(layout(num_rows=21))
    assert "2 prompts x 4 answers = 8 a generation" in str(layout())
    assert "used for 2 steps" in str(layout(steps_per_generation=4))


def test_too_few_prompts_are_refused():
    with pytest.raises(ConfigError, match="there are 1 prompts, and a generation takes 2"):
        layout(num_rows=1).check()
    layout(num_rows=2).check()


@pytest.mark.parametrize(
    ("given", "cycle"),
    [
        ({}, 1),
        ({"steps_per_generation": 4}, 2),
        ({"num_iterations": 3}, 3),
        ({"steps_per_generation": 1}, 1),
        ({"steps_per_generation": 3}, 3),
    ],
)
def test_checkpoints_amid_a_generation_are_refused(given, cycle):
    found = layout(**given)
    assert found.steps_per_cycle == cycle
    for steps in range(1, 7):
        if steps % cycle:
            with pytest.raises(ConfigError, match=f"set save_steps to a multiple of {cycle}"):
                found.check_saves(steps)
        else:
            found.check_saves(steps)
    found.check_saves(0.1)
