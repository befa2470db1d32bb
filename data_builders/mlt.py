"""Rows for meta length tokens from any finished conversations: Ruler (arXiv 2409.18943, section 3). No model is asked.

    lengthwise build --config configs/data/mlt.yaml --data rows.jsonl

Each answer is counted (`regex_w`) and gets the token of the window it falls into; rows outside every window are
refused, and so are rows above the quota of their token, in the order of the data: name the best source first. `mlt`
puts the token where the answer begins, with nothing between; train with `added_tokens: {mlt_format: ...}`. `words`
makes the control of the same rows: no token, and the sentence in the prompt that `tlg` asks with.

Beyond the paper: rows whose prompt states a length are refused, since it may say another one than the token; so are
conversations of several answers, of which one token could open only the last; and Chinese answers, of which `regex_w`
counts a run of hanzi as one word. Rows that evaluations hold are for the builder `gate` to take out before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_builders.gates import length_score
from data_builders.rows import length_entry, scores_of, turns
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.length_wishes import parse_length_wish
from lengthwise.lengths import TLG_TARGETS, count_regex_w
from lengthwise.meta_length import (
    MLT_FORMAT,
    check_mlt_format,
    mlt_text,
    split_mlt,
    target_length,
    with_length_sentence,
)
from lengthwise.meta_length_windows import Windows, mlt_of
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample

ROLES: tuple[str, ...] = ()
WITH_ANSWERS = True
COUNTED_BY = "mlt"


@dataclass(kw_only=True)
class Config:
    """Options of rows for meta length tokens."""

    form: Literal["mlt", "words"] = option(
        "mlt",
        help="mlt: the token opens the answer; words: the same rows with a sentence in the prompt instead",
    )
    mlt_format: str = option(MLT_FORMAT, help="what the tokens are called, with the slot {target}")
    windows: Windows = option(
        "code",
        help="of Ruler's released code, of its paper (150: above 145), or the wide ones of the flexible match",
    )
    max_per_mlt: int | None = option(20_000, help="most rows of one token, the first ones; null: all")
    targets: list[str] = option(
        default_factory=lambda: list(TLG_TARGETS), help=f"which of {', '.join(TLG_TARGETS)}; default: all"
    )

    def __post_init__(self) -> None:
        """Refuse what makes no row."""
        try:
            check_mlt_format(self.mlt_format)
        except ValueError as error:
            raise ConfigError(f"mlt_format {error}") from None
        if self.max_per_mlt is not None and self.max_per_mlt < 1:
            raise ConfigError(f"max_per_mlt is {self.max_per_mlt}: it must be at least 1, or null")
        unknown = [label for label in self.targets if label not in TLG_TARGETS]
        if unknown or not self.targets:
            raise ConfigError(f"targets is {self.targets}: name some of {', '.join(TLG_TARGETS)}")


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows that no token is taught by, and those above its quota; the same for both forms."""
    found: dict[str, Refusal] = {}
    taken: Counter[str] = Counter()
    for sample in samples:
        label = label_of(sample, config)
        refusal = unfit(sample, config)
        if refusal is None and (label is None or label not in config.targets):
            detail = f"{count_regex_w(sample.completion or '')} words"
            refusal = (
                Refusal("outside every window", detail)
                if label is None
                else Refusal("of a token that is not in targets", f"{label}: {detail}")
            )
        if refusal is None and config.max_per_mlt is not None and taken[str(label)] >= config.max_per_mlt:
            refusal = Refusal("above the quota of its token", f"{label}: {config.max_per_mlt:,} rows")
        if refusal is None:
            taken[str(label)] += 1
        else:
            found[sample.id] = refusal
    return found


def label_of(sample: Sample, config: Config) -> str | None:
    """Return the target that an answer teaches, None where it falls into no window."""
    return mlt_of(count_regex_w(sample.completion or ""), config.windows)


def unfit(sample: Sample, config: Config) -> Refusal | None:
    """Return why a row teaches no token whatever its length, None where it may."""
    answer = sample.completion or ""
    if not sample.instruction.strip():
        return Refusal("input: no question", "")
    if any(message.role == "assistant" for message in sample.messages):
        return Refusal("several answers", "")
    if language(answer) == "zh":
        return Refusal("not counted in words", "Chinese")
    opened_by, without = split_mlt(answer, config.mlt_format)
    if opened_by is not None or without != answer.strip():
        return Refusal("holds a meta length token", config.mlt_format)
    wish = parse_length_wish(sample.instruction)
    return (
        None
        if wish is None
        else Refusal("states a length already", f"{wish.relation} {wish.nominal:g} {wish.unit}")
    )


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return the row with its token, or its sentence."""
    answer = (sample.completion or "").strip()
    label = label_of(sample, config)
    assert label is not None, sample.id  # the others are refused
    target = target_length(label)
    entry = length_entry(answer, requested=target, tokens=None)
    return Kept(
        {
            **sample.metadata,
            "id": sample.id,
            "builder": sample.metadata.get("builder") or "mlt",
            "messages": turns(_labelled(sample, answer, label, config)),
            "mlt": label,
            "language": language(answer),
            "length": {**entry, "words_regex_w": count_regex_w(answer)},
            "scores": {**scores_of(sample), "s_l": round(length_score(target, entry["words_longbench"]), 3)},
            "lineage": [*sample.lineage, "mlt"],
        }
    )


def _labelled(sample: Sample, answer: str, label: str, config: Config) -> Sample:
    """Return a sample whose answer begins with its token, or whose last question states its length."""
    if config.form == "mlt":
        return replace(sample, completion=mlt_text(label, config.mlt_format) + answer)
    last = max(i for i, turn in enumerate(sample.messages) if turn.role == "user")
    asked = [
        replace(turn, content=with_length_sentence(turn.content, label)) if i == last else turn
        for i, turn in enumerate(sample.messages)
    ]
    return replace(sample, messages=tuple(asked), completion=answer)
