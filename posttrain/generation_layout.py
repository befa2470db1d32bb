"""Which prompts are answered together, how often, and in which steps their answers are trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lengthwise.config import ConfigError
from posttrain.batch_layout import BatchLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationLayout(BatchLayout):
    """How prompts become generations, and generations steps; `num_rows` counts prompts."""

    num_generations: int
    """Answers to each prompt: a group."""
    steps_per_generation: int
    """Forward passes of a process that one generation is enough for."""
    num_iterations: int = 1
    """How often each answer is trained on."""

    @property
    def prompts_per_generation(self) -> int:
        """Prompts that are answered at once, on all processes."""
        return self.batch_size * self.num_processes * self.steps_per_generation // self.num_generations

    @property
    def passes_per_generation(self) -> int:
        """Forward passes of a process from one generation to the next."""
        return self.steps_per_generation * self.num_iterations

    @property
    def rows_per_epoch(self) -> int:
        """Prompts that an epoch asks: the rest does not fill a generation, another rest in each epoch."""
        return self.num_rows // self.prompts_per_generation * self.prompts_per_generation

    @property
    def passes_per_epoch(self) -> int:
        """Forward passes of a process in an epoch."""
        return self.num_rows // self.prompts_per_generation * self.passes_per_generation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch.

        Example:
            >>> GenerationLayout(num_rows=9, batch_size=4, accumulation=2, num_processes=1, num_generations=4,
            ...                  steps_per_generation=2, num_iterations=3).steps_per_epoch
            12
        """
        return -(-self.passes_per_epoch // self.accumulation)

    @property
    def steps_per_cycle(self) -> int:
        """Optimizer steps after which the next one begins with a generation of its own; 1 where each does."""
        return math.lcm(self.passes_per_generation, self.accumulation) // self.accumulation

    def __str__(self) -> str:
        """Return the factors as the config and the launcher name them."""
        answers = self.prompts_per_generation * self.num_generations
        used = f", used for {self.steps_per_cycle} steps" if self.steps_per_cycle > 1 else ""
        left = self.num_rows - self.rows_per_epoch
        rest = f"; {left} prompts, others in each epoch, do not fill a generation" if left else ""
        return (
            f"{self.prompts_per_generation} prompts x {self.num_generations} answers = {answers} a generation{used} "
            f"({BatchLayout.__str__(self)}){rest}"
        )

    def check(self) -> None:
        """Refuse prompts that fill no generation.

        Raises:
            ConfigError: with both numbers and the remedy.
        """
        if self.num_rows < self.prompts_per_generation:
            raise ConfigError(
                f"data: there are {self.num_rows} prompts, and a generation takes {self.prompts_per_generation}: lower "
                "per_device_train_batch_size or gradient_accumulation_steps, or raise num_generations"
            )

    def check_saves(self, save_steps: float) -> None:
        """Refuse checkpoints amid a generation, whose other answers would be drawn anew on resume.

        Raises:
            ConfigError: with the remedy.
        """
        cycle = self.steps_per_cycle
        if save_steps >= 1 and save_steps % cycle:
            raise ConfigError(
                f"save_steps is {save_steps:g}, amid a generation, which is used for {cycle} steps: a resumed run "
                f"would draw the rest of it anew; set save_steps to a multiple of {cycle}"
            )
