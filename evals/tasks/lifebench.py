"""LIFEBench (arXiv 2505.16234): ten lengths from 16 to 8,192, each as "equal to", "at most" and "at least".

Sources have the paper's fields {category, type, lang, task}, where `task` has the slots {word_count_type} and
{word_count}, or the fields of the shipped prompts. Each row is asked thirty times, ten lengths by three controls.

`ls` is the length score (0..100), `ld` the deviation |L - T| / T (1 is twice the length, or nothing), both by the
counter `cjk_alnum`: words, in Chinese characters. Each length is asked equally often, so a mean over replies is the
paper's mean over lengths. The paper leaves replies of one word and less out as refusals; here they count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.base import Metric, asked_length, length_slices
from evals.sources import Entry, own_schema, read_samples, row_sample, text_field
from lengthwise.lengths import count_cjk_alnum, lifebench_length_score
from lengthwise.records import LengthTarget, Prompt, Relation, Sample, sample_id, user

VERSION = 1
METRICS = (
    Metric(name="ls", counter="cjk_alnum", worst=0.0, best=100.0),
    Metric(name="ld", counter="cjk_alnum", higher_is_better=False),
)
TEMPERATURE = 0.8
MAX_TOKENS = None

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""The paper's targets, in words; in Chinese, characters."""

CONTROLS: dict[Relation, dict[str, str]] = {
    "about": {"en": "equal to", "zh": "等于"},
    "at_most": {"en": "at most", "zh": "至多有"},
    "at_least": {"en": "at least", "zh": "至少有"},
}
"""What the slot {word_count_type} is filled with, by language."""


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return for each row thirty samples: the row's task under every length and control. `draw_seed` is not used.

    Of rows with the shipped fields it takes `instruction`, which holds no wish.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, _samples)


def prompt(sample: Sample) -> Prompt:
    """Return the prompt as it is: it holds the wish in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return the length score and the deviation of one reply.

    Example:
        A reply of 900 words to "equal to 1000" has ls 100 e^-0.5 = 60.7 and ld 0.1.
    """
    target = asked_length(sample, "lifebench")
    words = count_cjk_alnum(text)
    return {
        "ls": lifebench_length_score(target, words),
        "ld": abs(words - target.nominal) / target.nominal,
    }


def slices(sample: Sample) -> dict[str, str]:
    """Return the control, the length, the category and the language."""
    target = asked_length(sample, "lifebench")
    found = {"control": target.relation, "length": f"{target.nominal:g}"}
    if sample.metadata.get("category"):
        found["category"] = str(sample.metadata["category"])
    return {**found, **{key: value for key, value in length_slices(sample).items() if key == "language"}}


def _samples(row: Mapping[str, Any]) -> tuple[Sample, ...]:
    template, language = _template(row)
    name = row.get("id") or sample_id(user(template))
    kept = {key: row[key] for key in ("category", "type") if row.get(key) is not None}
    unit = "characters" if language == "zh" else "words"
    return tuple(
        row_sample(
            {**kept, "id": f"{name}/{relation}/{words}", "language": language},
            template.replace("{word_count_type}", control[language]).replace("{word_count}", str(words)),
            LengthTarget(
                min=None if relation == "at_most" else words,
                max=None if relation == "at_least" else words,
                unit=unit,
                relation=relation,
            ),
        )
        for relation, control in CONTROLS.items()
        for words in LENGTHS
    )


def _template(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return a row's task with its two slots, and its language."""
    if own_schema(row):
        language = "zh" if row.get("language") == "zh" else "en"
        wish = {
            "en": "The length must be {word_count_type} {word_count} words.",
            "zh": "字数须{word_count_type}{word_count}字。",
        }[language]
        return f"{text_field(row, 'instruction')}\n{wish}", language
    task = text_field(row, "task")
    for slot in ("{word_count_type}", "{word_count}"):
        if slot not in task:
            raise ValueError(f"task has no {slot}, which the length is filled into")
    language = {"en": "en", "cn": "zh", "zh": "zh"}.get(str(row.get("lang")))
    if language is None:
        raise ValueError(f"lang is {row.get('lang')!r}: it must be en or cn")
    return task, language
