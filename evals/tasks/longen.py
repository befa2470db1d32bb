"""LonGen's length score (Self-Lengthen, arXiv 2410.23933).

Sources have the paper's fields {language, range, type, constraint, query} or those of the shipped prompts.

Four kinds of wish (about, range, above, below), each with an interval that scores 1 and slopes beside it;
0..1, overall and by kind, counter `cjk_ws`. An empty reply scores 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evals.base import Metric, asked_length, length_slices
from evals.sources import Entry, own_sample, own_schema, read_samples, row_sample, text_field
from lengthwise.lengths import count_cjk_ws, longen_score
from lengthwise.records import LengthTarget, Prompt, Relation, Sample
from lengthwise.row_values import shown

VERSION = 1
METRICS = (Metric(name="length_score", counter="cjk_ws", worst=0.0, best=1.0),)
TEMPERATURE = 0.5
MAX_TOKENS = None
DATA_FILE = "longen.jsonl"

RELATIONS: dict[str, Relation] = {
    "about": "about",
    "range": "range",
    "above": "at_least",
    "below": "at_most",
}
"""The source's names of the four kinds of wish."""


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data with the paper's fields, or of data with the shipped fields.

    `draw_seed` is not used.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, _sample)


def prompt(sample: Sample) -> Prompt:
    """Return the query as it is: it holds the wish in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return the length score of one reply.

    Example:
        A reply of 1200 words to "about 2000" has a = 1600 and scores 2 * 1200 / 1600 - 1 = 0.5.
    """
    target = asked_length(sample, "longen")
    return {"length_score": longen_score(target, count_cjk_ws(text))}


def slices(sample: Sample) -> dict[str, str]:
    """Return the kind of wish, the bin of the asked length and the language."""
    found = length_slices(sample)
    if sample.length is not None:
        found["relation"] = sample.length.relation
    if sample.metadata.get("range"):
        found["range"] = str(sample.metadata["range"])
    return found


def _sample(row: Mapping[str, Any]) -> Sample:
    if own_schema(row):
        sample = own_sample(row)
        asked_length(sample, "longen")
        return sample
    return row_sample(row, text_field(row, "query"), _target(row))


def _target(row: Mapping[str, Any]) -> LengthTarget:
    """Read a constraint such as "4000-6000 words" or "大于2000字", whose kind the field `type` names."""
    relation = RELATIONS.get(str(row.get("type")))
    numbers = [int(number) for number in re.findall(r"\d+", str(row.get("constraint", "")))]
    if relation is None or len(numbers) != (2 if relation == "range" else 1):
        raise ValueError(
            f"type {shown(row.get('type'))} with constraint {shown(row.get('constraint'))} gives no length: "
            f"type must be one of {', '.join(RELATIONS)}, with two numbers for a range and one otherwise"
        )
    return LengthTarget(
        min=None if relation == "at_most" else numbers[0],
        max=None if relation == "at_least" else numbers[-1],
        relation=relation,
    )
