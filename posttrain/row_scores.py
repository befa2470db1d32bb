"""How hard each row is, for a curriculum that draws rows by a score: a column of the user's, or the base model's loss.

The losses are computed in one forward pass over all rows before the first step, and kept in the run's folder: a run
that goes on draws by the very same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.files import atomic_write
from lengthwise.row_formats import TrainRow, read_row
from lengthwise.rows import Row

if TYPE_CHECKING:
    import torch

    from lengthwise.models import ModelRef
    from posttrain.train_data import TokenRow

SCORES = "curriculum_scores.json"
"""The file in a run's folder that keeps the losses of the base model, with what they were computed from."""


def read_scored_row(given: Row, *, column: str) -> TrainRow:
    """Return a row as a conversation with the number in its column as its score, if it has one of at least 0 there.

    Raises:
        ValueError: the conversation cannot be read.
    """
    value = given.values.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        value = None
    return replace(read_row(given), score=value)


def kept_losses(
    folder: Path, model: ModelRef, rows: Sequence[TokenRow], *, goes_on: bool
) -> list[float] | None:
    """Return the losses that a run has kept; None where they are to be computed.

    Args:
        folder: the run's folder.
        model: the base model.
        rows: all rows of the run.
        goes_on: whether the run goes on from a checkpoint, and so has to find them.

    Raises:
        ConfigError: the run goes on, and its losses are gone or of other rows.
    """
    file, key = folder / SCORES, _key(model, rows)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if all(found.get(name) == value for name, value in key.items()):
        return found["losses"]
    if goes_on:
        raise ConfigError(
            f"curriculum.score is loss, and {file} is gone, or was made of other rows or another base model: restore "
            "it, or choose another --name"
        )
    return None


def keep_losses(folder: Path, model: ModelRef, rows: Sequence[TokenRow], **how: Any) -> list[float]:
    """Compute the base model's mean loss on the supervised tokens of each row, and keep it for a resume.

    Every process loads the base model whole, computes the losses of its share of the rows, and frees it again.

    Args:
        folder: the run's folder, where they are kept.
        model: the base model.
        rows: all rows of the run.
        how: the other arguments of `losses_of`.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    numbers = range(state.process_index, len(rows), state.num_processes)
    share = losses_of(model.path, [rows[number] for number in numbers], **how)
    found = dict(gather_object(list(zip(numbers, share, strict=True))))
    losses = [found[number] for number in range(len(rows))]
    if state.is_main_process:
        atomic_write(folder / SCORES, json.dumps({**_key(model, rows), "losses": losses}) + "\n")
    return losses


def losses_of(
    path: Path,
    rows: Sequence[TokenRow],
    *,
    max_tokens: int,
    dtype: str,
    device: torch.device,
    trust_remote_code: bool = False,
) -> list[float]:
    """Return a model's mean loss (natural log) on the supervised tokens of each row.

    Args:
        path: the model's folder.
        rows: what it is scored on; a row whose only supervised token is its first has 0.
        max_tokens: padded tokens of a forward pass.
        dtype: type of the weights.
        device: where it is computed.
        trust_remote_code: whether the model's own code may run.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from posttrain.token_budget import TokenBudget

    if not rows:
        return []
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=trust_remote_code)
    loaded = loaded.to(device).eval()
    budget = TokenBudget(lengths=[row.length for row in rows], max_tokens=max_tokens)
    losses = [0.0] * len(rows)
    with torch.inference_mode():
        for (batch,) in budget.epoch(0, 0):
            ids = _padded([rows[number].input_ids for number in batch], 0, device)
            mask = _padded([rows[number].input_ids * 0 + 1 for number in batch], 0, device)
            labels = _padded([rows[number].labels for number in batch], -100, device)[:, 1:]
            logits = loaded(input_ids=ids, attention_mask=mask).logits
            for place, number in enumerate(batch):
                scored = labels[place] != -100
                if scored.any():
                    chosen = logits[place, :-1][scored].float()
                    loss = torch.nn.functional.cross_entropy(chosen, labels[place][scored])
                    losses[number] = float(loss)
    return losses


def _padded(rows: Sequence[Any], value: int, device: torch.device) -> torch.Tensor:
    """Return rows of token ids as one tensor, filled up on the right."""
    import torch

    tensors = [torch.as_tensor(row.astype("int64")) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value).to(device)


def _key(model: ModelRef, rows: Sequence[TokenRow]) -> dict[str, str]:
    """Return what losses depend on."""
    sha = hashlib.sha256()
    for row in rows:
        row.add_to(sha)
    return {"model": model.identity, "rows": sha.hexdigest()}
