"""LIFEBench (arXiv 2505.16234): ten lengths from 16 to 8,192, each as "equal to", "at most" and "at least".

Sources have the paper's fields {category, type, lang, task}, where `task` has the slots {word_count_type} and
{word_count}, or the fields of the shipped prompts. Each row is asked thirty times, ten lengths by three controls, which
are one cluster.

`ls` is the length score (0..100), `ld` the deviation |L - T| / T (1 is twice the length, or nothing), `refusal` the
share of replies of one word and less; all by the counter `cjk_alnum`: words, in Chinese characters. Each length is
asked equally often, so a mean over replies is the paper's mean over lengths.

Two things the released code does are had with `profile: code` only. It holds the deviation in percent when it goes into
the exponent, so that 5 % too long scores 0.0045, where the paper's own values need the fraction (90.5). And it
leaves replies of one word and less out as refusals, which raises both scores; else they count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evals.base import Metric, asked_length, length_slices
from evals.sources import Entry, own_schema, read_samples, row_sample, text_field
from lengthwise.config import ConfigError
from lengthwise.lengths import count_cjk_alnum, lifebench_length_score
from lengthwise.records import LengthTarget, Prompt, Sample, sample_id, user
from lengthwise.row_values import row_id

VERSION = 1
METRICS = (
    Metric(name="ls", counter="cjk_alnum", worst=0.0, best=100.0),
    Metric(name="ld", counter="cjk_alnum", higher_is_better=False),
    Metric(name="refusal", counter="cjk_alnum", higher_is_better=False, summary="proportion"),
)
TEMPERATURE = 0.8
MAX_TOKENS = None
DATA_FILE = "data_lite.jsonl"

MAX_REFUSAL_WORDS = 1
"""The longest reply that the paper's code takes for a refusal."""

Control = Literal["about", "at_most", "at_least"]

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""The paper's targets, in words; in Chinese, characters."""

CONTROLS: dict[Control, dict[str, str]] = {
    "about": {"en": "equal to", "zh": "等于"},
    "at_most": {"en": "at most", "zh": "至多有"},
    "at_least": {"en": "at least", "zh": "至少有"},
}
"""What the slot {word_count_type} is filled with, by language."""


def load(
    source: str | None,
    *,
    draw_seed: int = 0,
    profile: Literal["paper", "code"] = "paper",
    controls: tuple[Control, ...] = ("about", "at_most", "at_least"),
) -> list[Entry]:
    """Return for each row ten samples for each control: the row's task under every length.

    Of rows with the shipped fields it takes `instruction`, which holds no wish.

    Args:
        source: see `evals.sources.find_source`.
        draw_seed: not used.
        profile: "code" scores as the released code does.
        controls: which of the three to ask; the released command asks "about" ("equal to") only.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable, or `controls` names none or one twice.
    """
    if not controls or len(set(controls)) < len(controls):
        raise ConfigError(
            f"tasks: lifebench.controls is {list(controls)}: name one or more of {', '.join(CONTROLS)}, each once"
        )
    return read_samples(source, lambda row: _samples(row, controls, profile))


def prompt(sample: Sample) -> Prompt:
    """Return the prompt as it is: it holds the wish in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return the length score and the deviation of one reply, and whether it is a refusal.

    Example:
        A reply of 900 words to "equal to 1000" has ls 100 e^-0.5 = 60.7 and ld 0.1.
    """
    target = asked_length(sample, "lifebench")
    words = count_cjk_alnum(text)
    as_code = sample.metadata.get("profile") == "code"
    refusal = words <= MAX_REFUSAL_WORDS
    if as_code and refusal:
        return {"refusal": 1.0}
    return {
        "ls": lifebench_length_score(target, words, in_percent=as_code),
        "ld": abs(words - target.nominal) / target.nominal,
        "refusal": float(refusal),
    }


def slices(sample: Sample) -> dict[str, str]:
    """Return the control, the length, the category and the language."""
    target = asked_length(sample, "lifebench")
    found = {"control": target.relation, "length": f"{target.nominal:g}"}
    if sample.metadata.get("category"):
        found["category"] = str(sample.metadata["category"])
    return {**found, **{key: value for key, value in length_slices(sample).items() if key == "language"}}


def cluster(sample: Sample) -> str | None:
    """Return the row that the samples of all lengths and controls share."""
    return sample.metadata.get("question")


def _samples(row: Mapping[str, Any], controls: Sequence[Control], profile: str) -> tuple[Sample, ...]:
    template, language = _template(row)
    name = row_id(row.get("id")) or sample_id(user(template))
    kept = {key: row[key] for key in ("category", "type") if row.get(key) is not None}
    kept |= {"question": name, **({"profile": profile} if profile != "paper" else {})}
    unit = "characters" if language == "zh" else "words"
    return tuple(
        row_sample(
            {**kept, "id": f"{name}/{relation}/{words}", "language": language},
            template.replace("{word_count_type}", CONTROLS[relation][language]).replace(
                "{word_count}", str(words)
            ),
            LengthTarget(
                min=None if relation == "at_most" else words,
                max=None if relation == "at_least" else words,
                unit=unit,
                relation=relation,
            ),
        )
        for relation in controls
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
