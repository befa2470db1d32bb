"""Meta length tokens (MLTs): one token that says how long the reply is to be (Ruler, arXiv 2409.18943).

Ruler puts such a token right after the assistant's header, in training and in use. What a token is called is up
to the model; a format holds the slot {target}, which is filled with one of the nine targets of Target Length
Generation ("10" to ">800").
"""

from __future__ import annotations

from lengthwise.lengths import TLG_TARGETS, tlg_level
from lengthwise.records import LengthTarget

MLT_FORMAT = "[MLT:{target}]"
"""The names that are taken unless others are given."""


def check_mlt_format(template: str) -> None:
    """Refuse a format that names no target.

    Raises:
        ValueError: it has not exactly one slot {target}, or nothing beside it (each number would be a token).
    """
    if template.count("{target}") != 1 or not template.replace("{target}", "").strip():
        raise ValueError(f"{template!r} must hold {{target}} once and marks around it, as in {MLT_FORMAT!r}")


def mlt_text(target: str, template: str = MLT_FORMAT) -> str:
    """Return the token of a target.

    Example:
        >>> mlt_text(">800")
        '[MLT:>800]'
    """
    return template.replace("{target}", target)


def split_mlt(text: str, template: str = MLT_FORMAT) -> tuple[str | None, str]:
    """Return the target whose token opens `text`, None if none does, and the text without any MLT.

    Ruler's released cleaner strips the tokens of numbers only, so that a reply to ">800" keeps two words too
    many; here every token goes, and goes before words are counted. White space may stand before the first.

    Example:
        >>> split_mlt("[MLT:>800] Once upon a time [MLT:30]")
        ('>800', 'Once upon a time')
    """
    tokens = {mlt_text(target, template): target for target in TLG_TARGETS}
    opening = text.lstrip()
    found = max((token for token in tokens if opening.startswith(token)), key=len, default=None)
    for token in sorted(tokens, key=len, reverse=True):  # a bare "80" is a part of ">800"
        text = text.replace(token, "")
    return (None if found is None else tokens[found]), text.strip()


def length_sentence(label: str) -> str:
    """Return the sentence that states a target.

    Example:
        >>> length_sentence(">800")
        'The reply must be more than 800 words long.'
    """
    wanted = f"more than {label[1:]}" if label.startswith(">") else label
    return f"The reply must be {wanted} words long."


def with_length_sentence(instruction: str, label: str) -> str:
    r"""Return an instruction with its target in words, on a line of its own: what a model without MLTs is told.

    Example:
        >>> with_length_sentence("Describe a bee.", "30")
        'Describe a bee.\nThe reply must be 30 words long.'
    """
    return f"{instruction}\n{length_sentence(label)}"


def target_length(label: str) -> LengthTarget:
    """Return the length target of a TLG label; ">800" starts at 801.

    Raises:
        ValueError: if it is none of the nine.
    """
    tlg_level(label)
    if label.startswith(">"):
        return LengthTarget(min=int(label[1:]) + 1, relation="at_least")
    return LengthTarget.about(int(label))
