"""From rows to the prompts that a model answers while it is trained, with an account of every row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from lengthwise.records import Message, sample_id
from lengthwise.row_formats import messages_or_text
from lengthwise.row_values import row_id
from lengthwise.rows import Row
from posttrain.end_of_turn import end_of_turn_ids
from posttrain.over_length import Digest, OverLengthPolicy
from posttrain.prepared_rows import PreparedRows, count_lines, failed_row, prepare_rows
from posttrain.row_sources import DataSource, RefusedRow
from posttrain.training_mask import RowRefused

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase


_TRLS = frozenset({
    "prompt", "prompts", "completion", "completions", "completion_ids", "row_id", "trainer_state", "environments",
    "environment", "image", "images", "log_extra", "log_metric",
})  # fmt: skip
"""What a reward function is given by TRL, or by us, under these names."""
COLUMNS = "row_columns"
"""The column of the data set that holds the rows' own columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRow:
    """One prompt, with what its rewards need to know."""

    id: str
    source: str
    line: int
    messages: tuple[Message, ...]
    columns: Mapping[str, Any]
    """All columns but the prompt: the answer, a length, and what else a reward reads."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt as token ids, as the template renders it before an answer."""

    row: PromptRow
    prompt_ids: np.ndarray
    """Shape [T], int32."""
    end_of_turn_ids: frozenset[int] = frozenset()

    @property
    def sequence(self) -> np.ndarray:
        """Its tokens."""
        return self.prompt_ids

    @property
    def length(self) -> int:
        """Its number of tokens."""
        return len(self.prompt_ids)

    @property
    def num_supervised(self) -> int:
        """None of a prompt's tokens carry loss."""
        return 0

    def add_to(self, digest: Digest) -> None:
        """Add the prompt and what it is rewarded by to a digest of the data."""
        digest.update(self.length.to_bytes(8, "little"))
        digest.update(self.prompt_ids.tobytes())
        digest.update(json.dumps(dict(self.row.columns), sort_keys=True, default=str).encode())

    def cut(self, max_length: int) -> Self:
        """Refuse: a prompt without its end is another question."""
        raise RowRefused("prompt_over_length")


@dataclass(slots=True)
class PromptData(PreparedRows[TokenPrompt]):
    """Prompts ready for the trainer, and the account of the other rows."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(row.length for row in self.rows)

    @property
    def num_supervised_tokens(self) -> int:
        """None: the model writes the answers itself."""
        return 0

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say in a few lines which prompts the model will answer."""
        yield from count_lines(self.counts)
        yield (
            f"prompts     {len(self.rows):,} prompts, {self.num_tokens / len(self.rows):,.0f} tokens on average, "
            f"longest {self.longest:,}"
        )
        rows_over, _ = self.over_length
        yield f"max_length  {max_length:,} tokens of a prompt ({limit_from}); over it: {rows_over:,} ({policy})"

    def to_dataset(self) -> datasets.Dataset:
        """Return the columns prompt, as messages, row_id, and the rows' own columns as JSON: `with_columns` reads it.

        A table wants one type for a column, and would fill up maps with each other's keys.
        """
        import datasets

        names = sorted({name for row in self.rows for name in row.row.columns})
        return datasets.Dataset.from_dict(
            {
                "prompt": [[m.to_dict() for m in row.row.messages] for row in self.rows],
                "row_id": [row.row.id for row in self.rows],
                COLUMNS: [
                    json.dumps({name: row.row.columns.get(name) for name in names}, default=str)
                    for row in self.rows
                ],
            }
        )


def with_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the data set with the columns that it was read with."""
    rest = {key: value for key, value in row.items() if key != COLUMNS}
    return {**json.loads(row.get(COLUMNS, "{}")), **rest}


def read_prompt(given: Row) -> PromptRow:
    """Turn a row into a prompt: the column prompt, or question, or messages that end with the user's turn.

    Raises:
        ValueError: with the reason.
    """
    row = given.values
    name = next((name for name in ("prompt", "question", "messages") if row.get(name) is not None), None)
    if name is None:
        raise ValueError(f"its keys are {sorted(row)[:8]}; it needs prompt, question, or messages")
    messages = messages_or_text(row[name], "user", name, is_context=True)
    if messages[-1].role != "user":
        raise ValueError(
            f"its {name} ends with a turn of {messages[-1].role}: the model answers a user's turn"
        )
    taken = {name, "id", *_TRLS}
    return PromptRow(
        id=row_id(row.get("id")) or sample_id(messages),
        source=given.place.source,
        line=given.place.number,
        messages=messages,
        columns={key: value for key, value in row.items() if key not in taken},
    )


def prepare_prompts(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_length: OverLengthPolicy,
    on_bad_row: Literal["raise", "drop"],
    mixture_rows: int | None,
    seed: int,
    stated: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> PromptData:
    """Read and render prompts, apply the length limit, and mix.

    Args:
        sources: where the rows are.
        tokenizer: with its chat template.
        max_length: tokens of the longest prompt.
        over_length: what becomes of longer ones; none is cut.
        on_bad_row: what becomes of rows that are no prompt.
        mixture_rows: rows to draw, where the sources have weights.
        seed: of the drawing.
        stated: adds to the messages what the trainer will add, so that it is counted.
        template_kwargs: what the template is rendered with.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or nothing left to train on.
    """
    return prepare_rows(
        PromptData,
        sources,
        read=read_prompt,
        tokenize=partial(
            _tokenize,
            tokenizer=tokenizer,
            stated=stated or (lambda messages: messages),
            template_kwargs=template_kwargs or {},
        ),
        max_length=max_length,
        over_length=over_length,
        on_bad_row=on_bad_row,
        mixture_rows=mixture_rows,
        seed=seed,
    )


def _tokenize(
    rows: Sequence[PromptRow],
    tokenizer: PreTrainedTokenizerBase,
    stated: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    template_kwargs: Mapping[str, Any],
) -> tuple[list[TokenPrompt], list[RefusedRow]]:
    import numpy as np
    from jinja2.exceptions import TemplateError

    found: list[TokenPrompt] = []
    refused: list[RefusedRow] = []
    ends = end_of_turn_ids(tokenizer)
    for row in rows:
        try:
            text = tokenizer.apply_chat_template(
                stated([message.to_dict() for message in row.messages]),
                tokenize=False,
                add_generation_prompt=True,
                **template_kwargs,
            )
        except (TemplateError, ValueError) as error:
            refused.append(failed_row(row, RowRefused(f"it has no prompt: {error}")))
            continue
        ids = tokenizer.encode(str(text), add_special_tokens=False, verbose=False)
        found.append(TokenPrompt(row, np.array(ids, dtype=np.int32), ends))
    return found, refused
