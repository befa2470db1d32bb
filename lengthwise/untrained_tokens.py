"""Finds tokens that a model was never trained to write: it then never ends its turn, however long it runs.

A base model's reserved tokens have rows in the embedding and output matrices that no training moved: close to
zero, or equal to each other. A chat template put on such a model names one of them as the end of a turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NEAR_ZERO_FRAC = 0.05
"""A row shorter than this share of the median row was not trained; trained rows differ by far less."""
EQUAL_FRAC = 1e-3
"""Two rows whose difference is shorter than this share of them are equal, up to rounding."""

_INPUT = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
_OUTPUT = ("lm_head.weight", "embed_out.weight", "output.weight")
_SAMPLED_ROWS = 64


def untrained_sign(folder: Path, token_id: int, others: Iterable[int] = ()) -> str | None:
    """Return why a token seems never trained, or None; of the weights only the rows asked for are read.

    The output matrix decides whether a model can write a token, so it is looked at first; a model whose
    matrices are tied has only the other.

    Args:
        folder: of the model, weights in safetensors files.
        token_id: the token.
        others: further tokens that may be reserved ones; an equal row among them is the sign.

    Raises:
        ValueError: the weights cannot be looked at, with the reason.
    """
    rows = _Rows(folder)
    if token_id >= rows.num_rows:
        return f"the model has {rows.num_rows} rows of embeddings, and none for it"
    row = rows[token_id]
    step = max(1, rows.num_rows // _SAMPLED_ROWS)
    lengths = sorted(float(rows[i].norm()) for i in range(0, rows.num_rows, step) if i != token_id)
    median = lengths[len(lengths) // 2]
    length = float(row.norm())
    if length < NEAR_ZERO_FRAC * median:
        return f"its row in {rows.name} has the length {length:.3g}, where the median row has {median:.3g}"
    for other in others:
        if other == token_id or other >= rows.num_rows:
            continue
        if float((row - rows[other]).norm()) < EQUAL_FRAC * length:
            return f"its row in {rows.name} equals that of token {other}"
    return None


class _Rows:
    """The rows of a model's output matrix, or of its tied embeddings, read one by one."""

    def __init__(self, folder: Path):
        self.name, file = _find_matrix(folder)
        from safetensors import safe_open

        self._slice: Any = safe_open(file, framework="pt").get_slice(self.name)
        self.num_rows: int = self._slice.get_shape()[0]

    def __getitem__(self, index: int) -> Any:
        return self._slice[index : index + 1][0].float()


def _find_matrix(folder: Path) -> tuple[str, Path]:
    """Return the name of the matrix that decides, and the file that holds it.

    Raises:
        ValueError: there is none.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / file for name, file in places.items()}
    elif (folder / "model.safetensors").is_file():
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), folder / "model.safetensors")
    else:
        raise ValueError(f"{folder} holds no safetensors weights")
    for ends in (_OUTPUT, _INPUT):
        found = next((name for name in files if name.endswith(ends)), None)
        if found is not None:
            return found, files[found]
    raise ValueError(f"{folder} has neither an embedding nor an output matrix under a known name")
