"""step_rows.jsonl: the rows each step trained on, read off the very tensors that the model was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.run_log import keep_steps

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from posttrain.over_length import TokenizedRow


class StepRows:
    """Collects the rows of each forward pass and writes them, a line a step, as `{"step", "rows"}`."""

    def __init__(self, path: Path, rows: Iterable[TokenizedRow]) -> None:
        """Log to `path`; rows with equal tokens go by the first one's id."""
        self.path = path
        self.seen: list[str] = []
        self.names: dict[bytes, str] = {}
        for item in rows:
            self.names.setdefault(_digest(item.sequence), item.row.id)

    def see(self, rows: Iterable[Any]) -> None:
        """Note the rows of a batch that is about to be trained on, each as its token ids without padding."""
        self.seen += [self.names.get(_digest(row), "unknown") for row in rows]

    def callback(self) -> TrainerCallback:
        """Return the callback that writes the lines; a resumed run first takes out those it will do again."""
        from accelerate.utils import gather_object
        from transformers import TrainerCallback

        log = self

        class WriteRows(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.is_world_process_zero:
                    keep_steps(log.path, state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                rows, log.seen = gather_object(log.seen), []
                if state.is_world_process_zero:
                    with log.path.open("a", encoding="utf-8") as stream:
                        line = {"step": state.global_step, "rows": rows}
                        stream.write(json.dumps(line, ensure_ascii=False) + "\n")

        return WriteRows()


def rows_of(inputs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the token ids of each row in a batch, without padding.

    Args:
        inputs: `input_ids` [B, T] with `attention_mask`, or, where rows are joined into one sequence, with
            `position_ids` that begin again at each row; for B / 2 pairs also
            `completion_mask`.
    """
    ids = inputs["input_ids"].cpu()
    if "completion_mask" in inputs:
        yield from _pairs_of(ids, inputs["attention_mask"].cpu())
        return
    if "attention_mask" in inputs:
        for row, mask in zip(ids, inputs["attention_mask"].cpu(), strict=True):
            kept = mask.nonzero().flatten()  # between them tokens may be hidden, which are no padding
            yield row[kept[0] : kept[-1] + 1]
        return
    starts = (inputs["position_ids"].cpu().flatten() == 0).nonzero().flatten()
    yield from ids.flatten().tensor_split(starts[1:])


def _pairs_of(ids: Any, mask: Any) -> Iterator[Any]:
    """Yield prompt and chosen answer, then prompt and rejected answer, of each pair: all chosen ones come first."""
    import torch

    rows = [row[kept.bool()] for row, kept in zip(ids, mask, strict=True)]
    half = len(rows) // 2
    yield from (torch.cat(pair) for pair in zip(rows[:half], rows[half:], strict=True))


def _digest(input_ids: Any) -> bytes:
    """Return a digest of token ids, whatever integer type holds them."""
    import numpy as np

    return hashlib.sha256(np.asarray(input_ids, dtype=np.int32).tobytes()).digest()[:16]
