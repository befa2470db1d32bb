"""Where a trained model stops: the end-of-sequence tokens of its generation config, with those its turns end in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.engines.chat_tokenizer import token_ids
from lengthwise.records import Message
from posttrain.training_mask import RowRefused, TemplateRefused, assistant_spans, mask_conversations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

    from posttrain.prepared_rows import PreparedRows


def stop_ids(known: int | list[int] | None, taught: Iterable[int]) -> int | list[int] | None:
    """Return the ids at which a model stops, as a generation config has them, with those it was taught to end with.

    Args:
        known: `eos_token_id` as it stands; it stays as it is where nothing is missing.
        taught: ids of end-of-turn tokens.

    Example:
        >>> stop_ids(2, {2, 7}), stop_ids(2, {2}), stop_ids(None, set())
        ([2, 7], 2, None)
    """
    listed = [] if known is None else [known] if isinstance(known, int) else list(known)
    missing = sorted(set(taught) - token_ids(known))
    return [*listed, *missing] if missing else known


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a turn of the template, found on a short conversation; empty where none can be."""
    try:
        spans = assistant_spans(
            tokenizer, [Message(role="user", content="Hi"), Message(role="assistant", content="Yes")], [1]
        )
        (masked,) = mask_conversations(tokenizer, [spans])
    except (RowRefused, TemplateRefused):
        return frozenset()
    return masked.end_of_turn_ids


def stop_token_ids(model: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return every token that ends an answer: those of the model's files, the tokenizer's, and the template's."""
    from transformers import AutoConfig, GenerationConfig

    try:
        known: Any = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:  # a model without such a file
        known = AutoConfig.from_pretrained(model).get_text_config().eos_token_id
    own: Any = tokenizer.eos_token_id
    return token_ids(known, own) | end_of_turn_ids(tokenizer)


def stop_at_end_of_turn(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, data: PreparedRows[Any]
) -> list[str]:
    """Make the saved model stop where it was taught to; an adapter cannot carry this, so it is said."""
    model: Any = trainer.model
    config = model.generation_config
    taught = frozenset[int]().union(*(row.end_of_turn_ids for row in data.rows))
    missing = sorted(taught - token_ids(config.eos_token_id))
    if not missing:
        return []
    config.eos_token_id = stop_ids(config.eos_token_id, taught)
    names = ", ".join(repr(tokenizer.decode([token])) for token in missing)
    return [
        f"WARNING     turns end in {names}, at which the base model's generation_config does not stop: it is "
        "added where a full model is saved, and by `lengthwise export --merge`; to serve an adapter as it is, add it "
        "to eos_token_id in the base's own file"
    ]
