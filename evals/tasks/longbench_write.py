"""LongBench-Write's length score S_l (LongWriter, arXiv 2408.07055, section 2).

Sources have the paper's fields {prompt, type, length} or those of the shipped prompts. `s_l` is the paper's
score, 0..100, overall and by bin of the asked length. `log_ratio_abs` is ours: the median of
|ln(actual / requested)|, which unlike S_l treats twice and half alike and does not saturate at 0. Both use
the paper's counter `cjk_alpha`. An empty reply scores S_l 0 (the released code divides by zero); it has no
ratio, so it is left out of `log_ratio_abs`, whose n says so. The paper's second score, of a judge, is not
here.

S_l knows one asked number: of a range it takes the middle, of "at least" and "at most" the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.base import Metric, asked_length, length_slices
from evals.sources import Entry, own_sample, own_schema, read_samples, row_sample, text_field
from lengthwise.lengths import count_cjk_alpha, log_length_ratio, longbench_length_score
from lengthwise.records import LengthTarget, Prompt, Sample
from lengthwise.row_values import shown

VERSION = 1
METRICS = (
    Metric(name="s_l", counter="cjk_alpha", worst=0.0, best=100.0),
    Metric(name="log_ratio_abs", counter="cjk_alpha", higher_is_better=False, summary="median"),
)
TEMPERATURE = 0.5
MAX_TOKENS = None
DATA_FILE = "longbench_write.jsonl"


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data with the paper's fields, or with those of the shipped prompts.

    Of rows with the shipped fields only those that ask for "about" a length are taken: a right answer to "at
    least 500 words" can be far from 500. `draw_seed` is not used.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, _sample)


def prompt(sample: Sample) -> Prompt:
    """Return the prompt as it is: it holds the wish in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return S_l and |ln(actual / requested)| of one reply.

    Example:
        A reply of 750 words to a wish for 500 scores S_l = 100 (1 - 0.5/3) = 83.33.
    """
    requested = asked_length(sample, "longbench_write").nominal
    actual = count_cjk_alpha(text)
    metrics = {"s_l": longbench_length_score(requested, actual)}
    ratio = log_length_ratio(actual, requested)
    if ratio is not None:
        metrics["log_ratio_abs"] = abs(ratio)
    return metrics


def slices(sample: Sample) -> dict[str, str]:
    """Return the bin of the asked length, the language and the source's type of text."""
    found = length_slices(sample)
    if sample.metadata.get("type"):
        found["type"] = str(sample.metadata["type"])
    return found


def _sample(row: Mapping[str, Any]) -> Sample | None:
    if own_schema(row):
        if (row["length"].get("relation") or "about") != "about":
            return None
        sample = own_sample(row)
        asked_length(sample, "longbench_write")
        return sample
    length = row.get("length")
    if not isinstance(length, int) or isinstance(length, bool) or length <= 0:
        raise ValueError(f"length must be a positive whole number of words, not {shown(length)}")
    return row_sample(row, text_field(row, "prompt"), LengthTarget.about(length))
