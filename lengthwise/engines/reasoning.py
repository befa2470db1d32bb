"""Parts a reply of a thinking model: what it thought, and its answer. Only the answer is measured.

A thinking part is marked by two tags, such as `<think>` and `</think>`. Some models write both (Qwen3); for
others the chat template writes the opening tag, so that a reply has only the closing one (DeepSeek-R1,
Qwen3-Thinking). Only a part at the very beginning counts as thinking: later tags belong to the answer, which may
be about them. A part that never ends leaves an empty answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lengthwise.records import Prompt

AUTO = "auto"
TAGS_HELP = (
    "marks of a thinking part: auto (as the chat template has them), null (none), or [open, close]; an empty open "
    "says that every reply begins inside the part. With marks, stop strings count in the answer only"
)


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """The marks around a thinking part."""

    open: str
    """Empty if every reply begins inside the part."""
    close: str


THINK = ReasoningTags("<think>", "</think>")
"""Of Qwen3, DeepSeek-R1, QwQ, SmolLM3, GLM and most others."""

KNOWN_TAGS = (
    THINK,
    ReasoningTags("[THINK]", "[/THINK]"),  # Magistral
    ReasoningTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
)


def check_tags(setting: str | list[str] | None) -> None:
    """Refuse a setting of `reasoning_tags` that is none.

    Raises:
        ValueError: naming the value and what may be given.
    """
    if setting is None or setting == AUTO:
        return
    if isinstance(setting, str) or len(setting) != 2 or not setting[1]:
        raise ValueError(
            f"reasoning_tags is {setting!r}: give auto, null, or a list such as [<think>, </think>]"
        )


def find_tags(
    setting: str | list[str] | None, template: str, vocabulary: Collection[str] = ()
) -> ReasoningTags | None:
    """Return a model's tags, None if it does not think.

    Args:
        setting: `reasoning_tags` of the engine's config.
        template: the chat template.
        vocabulary: the tokens that were added to the tokenizer.

    Example:
        >>> find_tags("auto", "{{ content.split('</think>')[-1] }}")
        ReasoningTags(open='<think>', close='</think>')
        >>> find_tags("auto", "{{ content }}") is None
        True
    """
    if setting is None:
        return None
    if not isinstance(setting, str):
        return ReasoningTags(*setting)
    return next((tags for tags in KNOWN_TAGS if tags.close in template or tags.close in vocabulary), None)


def begins_inside(tags: ReasoningTags, prompt: Prompt, rendered: str) -> bool:
    """Tell whether a reply begins inside its thinking part.

    Args:
        tags: the model's marks.
        prompt: the turns; the last may be a prefill, which opens the part if it does not close it.
        rendered: the rendered prompt, or its end.
    """
    if not tags.open:
        return True
    if prompt[-1].role == "assistant":
        prefill = prompt[-1].content
        return prefill.rfind(tags.open) > prefill.rfind(tags.close)
    return rendered.rstrip().endswith(tags.open)


def split_reasoning(
    text: str, tags: ReasoningTags | None, *, inside: bool | None = None, has_grammar: bool = False
) -> tuple[str, str | None]:
    r"""Return the answer, and the thinking part before it (None if there is none).

    Line breaks next to a tag belong to neither part, as in the models' templates.

    Args:
        text: the reply as generated.
        tags: the model's marks; None leaves the text untouched.
        inside: whether the reply begins inside the part; None if nobody knows (the template is a server's): then
            a closing tag that no opening one precedes tells.
        has_grammar: whether the reply follows a JSON schema. Mostly it does from its first token, so that without a
            closing tag all of it is the answer, wherever it begins.

    Example:
        >>> split_reasoning("<think>two and two</think>\n\nFour.", THINK)
        ('Four.', 'two and two')
        >>> split_reasoning("two and two</think>Four.", THINK, inside=True)
        ('Four.', 'two and two')
        >>> split_reasoning("<think>two and", THINK)
        ('', 'two and')
    """
    if tags is None or (has_grammar and tags.close not in text):
        return text, None
    body = text.lstrip()
    if tags.open and body.startswith(tags.open):
        thinking = body[len(tags.open) :]
    elif inside or not tags.open or (inside is None and tags.close in text and not _opens_first(text, tags)):
        thinking = text
    else:
        return text, None
    thought, _, answer = thinking.partition(tags.close)
    return answer.lstrip("\n"), thought.strip("\n")


def _opens_first(text: str, tags: ReasoningTags) -> bool:
    return tags.open in text[: text.index(tags.close)]


def count_reasoning_tokens(
    token_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    tags: ReasoningTags,
    *,
    close_id: int | None = None,
) -> int:
    """Return the number of generated tokens up to and with the closing tag; all of them if there is none.

    Args:
        token_ids: a reply that has a thinking part, shape [num_tokens].
        decode: ids to text, special tokens kept.
        tags: the model's marks.
        close_id: the closing tag's id where it is one token, which saves the decoding.
    """
    if close_id is not None and close_id in token_ids:
        return token_ids.index(close_id) + 1
    if tags.close not in decode(token_ids):
        return len(token_ids)
    # The tag may be one token or several; in a shorter beginning than the one that shows it, it is not whole.
    return bisect_left(range(len(token_ids) + 1), True, key=lambda num: tags.close in decode(token_ids[:num]))


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    ends = [text.index(string) for string in stop if string in text]
    return (text[: min(ends)], True) if ends else (text, False)
