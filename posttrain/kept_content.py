"""Whether a chat template shows all that a conversation says, and begins as the model's texts did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lengthwise.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def left_out(messages: Sequence[Message], full: str, spans: Mapping[int, tuple[int, int]]) -> int | None:
    """Return the first turn of which the rendered conversation does not show all, or None.

    Some templates drop a system turn, many the thoughts of an answer. White space may change. An assistant turn
    without loss may be shown in part: so the model meets it when it generates.

    Args:
        messages: the conversation.
        full: as the template renders it.
        spans: start and end in it, in characters, of the assistant turns that carry loss, by their indices.

    Example:
        >>> turns = [Message(role="user", content="2+2?"), Message(role="assistant", content="<think>.</think>4")]
        >>> left_out(turns, "[2+2?][<think> . </think> 4]", {1: (7, 27)}), left_out(turns, "[2+2?][4]", {1: (7, 8)})
        (None, 1)
    """
    whole = _without_space(full)
    for number, message in enumerate(messages):
        if message.role == "assistant" and number not in spans:
            continue
        start, end = spans.get(number, (0, len(full)))
        said = _without_space(message.content)
        shown = whole if end == len(full) else _without_space(full[:end])
        # A generation prompt may have written the first characters of the turn, as <think>; its end lies in the span.
        at = shown.rfind(said)
        if at < 0 or (said and at + len(said) <= len(_without_space(full[:start]))):
            return number
    return None


def _without_space(text: str) -> str:
    return "".join(text.split())


def bos_lines(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]] | Sequence[Any]
) -> Iterator[str]:
    """Warn of rows that do not begin with exactly one BOS token, where the tokenizer puts one before a text.

    Training and the engines render with the template alone, so both see the same tokens; but the model was trained
    on texts behind one BOS.

    Args:
        tokenizer: the model's, with the chat template of the training.
        rows: token ids of each row.
    """
    bos = tokenizer.bos_token_id
    alone = tokenizer.encode("a")
    if bos is None or not alone or alone[0] != bos:
        return
    num_none = sum(len(ids) > 0 and ids[0] != bos for ids in rows)
    num_two = sum(len(ids) > 1 and ids[0] == bos == ids[1] for ids in rows)
    for number, how in ((num_none, "without a BOS token"), (num_two, "with two BOS tokens")):
        if number:
            yield (
                f"WARNING     {number:,} rows begin {how}, and the tokenizer puts one before a text: see what the chat "
                "template writes first"
            )
