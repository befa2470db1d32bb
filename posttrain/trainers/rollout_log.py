"""rollouts/step_000001.parquet: what the model wrote for a step, with rewards, lengths and what was made of them.

A row is one answer: `row_id` of its prompt, `prompt` (messages, with the budget that it states), `completion`,
`num_tokens`, `finish_reason` (stop or length), `token_budget`, `is_selected` (whether its group was shaped), a column
`rewards/<name>` for each reward, and `advantage`. A file is named by the step that it was written for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

FOLDER = "rollouts"


class RolloutLog:
    """Writes the files; only the first process has one that writes."""

    def __init__(self, run_folder: Path) -> None:
        """Write to `rollouts` in a run's folder."""
        self.folder = run_folder / FOLDER
        self._last: tuple[int, Any] = (-1, None)

    def path(self, step: int) -> Path:
        """Return the file of a step."""
        return self.folder / f"step_{step:06d}.parquet"

    def write(self, step: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the answers for a step, all of them or none; a step with several generations has one file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder.mkdir(exist_ok=True)
        path = self.path(step)
        unfinished = path.with_suffix(".tmp")
        table = pa.table({name: list(values) for name, values in columns.items()})
        if self._last[0] == step:
            table = pa.concat_tables([self._last[1], table], promote_options="permissive")
        self._last = (step, table)
        pq.write_table(table, unfinished)
        os.replace(unfinished, path)

    def callback(self) -> TrainerCallback:
        """Return the callback that takes out the files of steps that a resumed run does again."""
        from transformers import TrainerCallback

        log = self

        class KeepSteps(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.is_world_process_zero and log.folder.is_dir():
                    for path in log.folder.iterdir():
                        if path.suffix == ".tmp" or path.name > log.path(state.global_step).name:
                            path.unlink()

        return KeepSteps()


def read_rollouts(run_folder: Path, step: int) -> list[dict[str, Any]]:
    """Return the answers that were written for a step."""
    import pyarrow.parquet as pq

    return pq.read_table(RolloutLog(run_folder).path(step)).to_pylist()
