"""Target Length Generation (Ruler, arXiv 2409.18943, section 3; sources {id, Instruction, TargetLength}).

Nine targets, from 10 to "more than 800" words. `pm` is the precise match, `fm` the flexible one: the share of
replies whose words, by the counter `regex_w`, fall into the target's window (Algorithm 1; the paper prints
percent, here they are 0..1). Greedy with 2,048 new tokens as published; "more than 800" is met by any looped
text that reaches that cap, so read it beside the truncated count.

The sentence that states the target is worded by us, so the numbers compare with each other, not to a decimal
with the paper's. Its 2,000 rows are not shipped: their source states no licence.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from evals.base import Metric, asked_length, length_slices
from evals.sources import Entry, own_schema, read_samples, row_sample, text_field
from lengthwise.lengths import TLG_TARGETS, count_regex_w, tlg_level, tlg_match
from lengthwise.records import LengthTarget, Prompt, Sample, user

VERSION = 1
METRICS = (
    Metric(name="pm", counter="regex_w", summary="proportion"),
    Metric(name="fm", counter="regex_w", summary="proportion"),
)
TEMPERATURE = 0.0
MAX_TOKENS = 2048


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data with the paper's fields, or of any instructions.

    A row without `TargetLength` gets a target by a draw that depends on `draw_seed` and the number of readable
    rows before it only. Of rows with the shipped fields it takes `instruction`, which holds no wish, leaves
    their own length aside, and skips Chinese ones: `regex_w` counts a run of hanzi as one word.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    targets = draw_targets(draw_seed)

    def convert(row: Mapping[str, Any]) -> Sample | None:
        if own_schema(row) and row.get("language") == "zh":
            return None
        return _sample(row, next(targets))

    return read_samples(source, convert)


def prompt(sample: Sample) -> Prompt:
    """Return the instruction, and on a line of its own how many words the reply must have."""
    return user(f"{sample.instruction}\n{length_sentence(target_label(asked_length(sample, 'tlg')))}")


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return the precise and the flexible match of one reply, 0 or 1.

    Example:
        A reply of 170 words to the target 150 has pm 1 and fm 1; one of 200 words pm 0 and fm 1.
    """
    precise, flexible = tlg_match(target_label(asked_length(sample, "tlg")), count_regex_w(text))
    return {"pm": float(precise), "fm": float(flexible)}


def slices(sample: Sample) -> dict[str, str]:
    """Return the target, its level (0, 1, 2) and the language."""
    label = target_label(asked_length(sample, "tlg"))
    found = {"level": str(tlg_level(label)), "target": label}
    return {**found, **{k: v for k, v in length_slices(sample).items() if k == "language"}}


def draw_targets(seed: int) -> Iterator[str]:
    """Yield one of the nine targets for each row, uniform and independent.

    Example:
        >>> next(draw_targets(0)) == next(draw_targets(0))
        True
    """
    stream = random.Random(seed)
    while True:
        yield stream.choice(TLG_TARGETS)


def length_sentence(label: str) -> str:
    """Return the sentence that states a target.

    Example:
        >>> length_sentence(">800")
        'The reply must be more than 800 words long.'
    """
    wanted = f"more than {label[1:]}" if label.startswith(">") else label
    return f"The reply must be {wanted} words long."


def target_length(label: str) -> LengthTarget:
    """Return the length target of a TLG label; ">800" starts at 801.

    Raises:
        ValueError: if it is none of the nine.
    """
    tlg_level(label)
    if label.startswith(">"):
        return LengthTarget(min=int(label[1:]) + 1, relation="at_least")
    return LengthTarget.about(int(label))


def target_label(length: LengthTarget) -> str:
    """Return the TLG label of a length target: "about" one of the eight numbers, or at least 800 or 801.

    Raises:
        ValueError: if TLG has no such target.
    """
    if length.relation == "about" and length.min == length.max and str(length.min) in TLG_TARGETS:
        return str(length.min)
    if length.relation == "at_least" and length.min in (800, 801):
        return ">800"
    raise ValueError(
        f"TLG has no target {length.relation} {length.nominal:g}: it knows {', '.join(TLG_TARGETS)}. "
        "Score other lengths with longbench_write or longen"
    )


def _sample(row: Mapping[str, Any], drawn: str) -> Sample:
    instruction = text_field(row, "instruction", "Instruction", "prompt", "query", "question")
    if isinstance(row.get("input"), str) and row["input"]:
        instruction = f"{instruction}\n{row['input']}"
    label = drawn if row.get("TargetLength") is None else str(row["TargetLength"])
    kept = {k: v for k, v in row.items() if k in ("id", "language", "category")}
    return row_sample({**kept, "target_length": label}, instruction, target_length(label))
