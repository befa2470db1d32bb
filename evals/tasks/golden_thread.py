"""Long texts of many entries with events asked in some: "Spinning the Golden Thread" (arXiv 2409.02076).

Sources are the original files (Dataset_short.json, Dataset_long.json: {prompt, checks_once, checks_range,
checks_periodic, type, prefix, number}), which are not shipped, since their copy on the hub allows no derivatives.
Without data it makes tasks of the same kind (`evals.golden_thread_rows`): other scenarios, other events, any number of
entries. Numbers of the two do not compare.

`cr` is the paper's completion rate, `cr_strict` the share of entries that also have the words asked of them (left out
where a prompt asks for none, as menus do). STIC-1, STIC-2 and wAvg are pooled over all checks as in the paper; here a
rule of words says whether an entry holds an event (`lengthwise.event_words`), hence `_bound`: it misses what is told
in other words. The scorer `golden_thread_judge` asks a judge instead, and reports how far the two agree. All are 0..1,
where the paper prints percent. Details are by kind of instruction (once, range, periodic) and by fifth of the text.

The paper's text decodes greedily through the model's chat template, its code samples raw prompts at 0.95; we do as the
text says, since one sample at 0.95 adds noise to each check. A reply stops at "*** finished". The code caps it at
16,000 or 32,000 tokens; here the context is the cap, `sampling.max_tokens` sets another.

The reply goes on from the heading of the first entry, given as the opening of the assistant's turn, whose words are not
counted. `prefill: false` is for servers that cannot continue one: the model then writes the heading itself, and what
stands before its first separator is left out. An empty reply has no entry. Two checks of the short file lie beyond
the last entry: they stay in, as in the code, and `checks_beyond` is their number in a document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.base import Metric, length_slices
from evals.golden_thread_metrics import check_metrics, check_values
from evals.golden_thread_rows import SCENARIO_FILE, SCENARIO_NAMES, ScenarioName, Size, make_rows
from evals.sources import Entry, find_source, read_samples, row_sample, text_field
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.event_words import has_event
from lengthwise.golden_thread import (
    END_MARK,
    SEPARATOR,
    Check,
    Kind,
    completion_rate,
    read_checks,
    split_entries,
)
from lengthwise.lengths import count_whitespace
from lengthwise.records import LengthTarget, Message, Prompt, Sample, user
from lengthwise.row_sources import RowSource
from lengthwise.row_values import shown

VERSION = 1
METRICS = (
    Metric(name="cr", counter="-", summary="proportion"),
    Metric(name="cr_strict", counter="whitespace", summary="proportion"),
    *check_metrics("_bound"),
    Metric(name="words", counter="whitespace", higher_is_better=None),
    Metric(name="words_complete", counter="whitespace", higher_is_better=None, detail=True),
    Metric(name="checks_beyond", counter="-", higher_is_better=None, detail=True),
)
TEMPERATURE = 0.0
MAX_TOKENS = None
SAMPLING = Sampling(temperature=TEMPERATURE, max_tokens=MAX_TOKENS, stop=(END_MARK,))
DATA_FILE = "Dataset_short.json"

COMPLETE_RATE = 0.8
"""From this completion rate on a reply counts in `words_complete`, the paper's Len."""

PUBLISHED_MIN_WORDS: Mapping[tuple[str, int], int] = {
    ("Week", 52): 200,
    ("Floor", 100): 150,
    ("Block", 100): 150,
    ("Day", 365): 100,
    ("Floor", 300): 100,
    ("Block", 361): 100,
}
"""Words that the published prompts ask of an entry, by its name and the number of entries; menus ask for none."""


def load(
    source: str | None,
    *,
    draw_seed: int = 0,
    scenarios: tuple[ScenarioName, ...] = SCENARIO_NAMES,
    num_tasks: int = 40,
    num_entries: int = 50,
    min_words: int = 60,
    num_once: int = 5,
    num_range: int = 1,
    num_periodic: int = 1,
    prefill: bool = True,
) -> list[Entry]:
    """Return the rows of the original files, or tasks that are made.

    Args:
        source: data with the paper's fields, see `evals.sources.find_source`; None makes tasks.
        draw_seed: of the tasks that are made.
        scenarios: what they are about, in turn.
        num_tasks: how many are made.
        num_entries: how many entries each asks for.
        min_words: how many words it asks of an entry, at least.
        num_once: instructions for one entry each.
        num_range: instructions for each entry of an interval.
        num_periodic: instructions for every k-th entry.
        prefill: give the first heading as the opening of the reply.

    Raises:
        ConfigError: the data is not there, the whole of it is unreadable, or no task can be made so.
    """
    if source is not None:
        return read_samples(source, lambda row: _sample(row, prefill))
    if num_tasks < 1:
        raise ConfigError(f"tasks: golden_thread.num_tasks is {num_tasks}: it must be at least 1")
    if not scenarios or len(set(scenarios)) < len(scenarios):
        raise ConfigError(
            f"tasks: golden_thread.scenarios is {list(scenarios)}: name one or more of "
            f"{', '.join(SCENARIO_NAMES)}, each once"
        )
    num_of: dict[Kind, int] = {"once": num_once, "range": num_range, "periodic": num_periodic}
    try:
        size = Size(num_entries=num_entries, min_words=min_words, num_of=num_of)
    except ValueError as error:
        raise ConfigError(f"tasks: golden_thread: {error}") from None
    return [_sample(row, prefill) for row in make_rows(scenarios, num_tasks, size, draw_seed)]


def source(data: str | None) -> RowSource:
    """Return the data, or the file of our scenarios that tasks are made of.

    Raises:
        ConfigError: the data is not there.
    """
    if data is not None:
        return find_source(data)
    return RowSource(name=f"made of {SCENARIO_FILE.name}", files=(SCENARIO_FILE,))


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a row asks for."""

    unit: str
    """What an entry is called, before its number."""
    prefix: str
    """The opening of the reply, up to the first entry's number."""
    num_entries: int
    min_words: int
    """Of each entry; 0: none are asked."""
    prefill: bool
    """Whether the opening was given."""
    checks: tuple[Check, ...]


def asked_of(row: Mapping[str, Any]) -> Asked:
    """Return what a row, or the metadata of its sample, asks for.

    Raises:
        ValueError: naming the field that is missing or wrong.
    """
    unit, number = text_field(row, "type").strip(), row.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"number must be the positive whole number of entries, not {shown(number)}")
    min_words = row.get("min_words")
    if min_words is None:
        min_words = PUBLISHED_MIN_WORDS.get((unit, number), 0)
    if not isinstance(min_words, int) or isinstance(min_words, bool) or min_words < 0:
        raise ValueError(f"min_words must be a whole number of words, not {shown(min_words)}")
    return Asked(
        unit=unit,
        prefix=text_field(row, "prefix").strip(),  # a space at its end would part from the next word's token
        num_entries=number,
        min_words=min_words,
        prefill=bool(row.get("prefill", True)),
        checks=read_checks(row),
    )


def prompt(sample: Sample) -> Prompt:
    """Return the request, and the first heading as the opening of the reply."""
    asked = asked_of(sample.metadata)
    opening = (Message(role="assistant", content=asked.prefix),) if asked.prefill else ()
    return (*sample.messages, *opening)


def entries_of(asked: Asked, text: str) -> dict[int, str]:
    """Return the entries of a reply by number; none of an empty one, although its first heading was given.

    Example:
        A reply "Fog. #*# Watch 2: Ice." to the opening "#*# Watch 1:" has the entries 1 (": Fog.") and 2 (": Ice.").
    """
    if not text.strip():
        return {}
    if asked.prefill:
        text = f"{asked.prefix} {text}"
    else:
        _, mark, rest = text.partition(SEPARATOR)
        text = mark + rest if mark else text
    return split_entries(text, asked.unit)


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return the rates of completion, and what the rule of words finds of the checks.

    Raises:
        ValueError: the sample's metadata are no row of this task.

    Example:
        Of 4 entries asked 2 are there, one of 3 checks lies in them and is met: cr 0.5, stic_1_bound 1,
        stic_2_bound 1/3, wavg_bound 1/6.
    """
    asked = asked_of(sample.metadata)
    entries = entries_of(asked, text)
    rate = completion_rate(entries, asked.num_entries)
    met = [has_event(entries.get(check.entry, ""), check.event) for check in asked.checks]
    words = float(count_whitespace(text.partition(END_MARK)[0]))
    found = {
        "cr": rate,
        **check_values(asked.checks, entries, met, num_entries=asked.num_entries, rate=rate, ending="_bound"),
        "words": words,
        "checks_beyond": float(sum(check.entry > asked.num_entries for check in asked.checks)),
    }
    if asked.min_words:
        found["cr_strict"] = completion_rate(entries, asked.num_entries, asked.min_words)
    return {**found, "words_complete": words} if rate >= COMPLETE_RATE else found


def read_target(row: Mapping[str, Any]) -> str:
    """Return the checks of a row of outputs, as JSON: what `lengthwise score` holds an output against.

    Raises:
        ValueError: the row has not the fields of this task.

    Example:
        >>> read_target({"type": "Bed", "prefix": "#*# Bed 1:", "number": 3, "checks_once": {"2": "moles"}})
        '[[2, "once", "moles"]]'
    """
    doc = row.get("doc")
    asked = asked_of(doc if isinstance(doc, Mapping) else row)
    return json.dumps([[c.entry, c.kind, c.event] for c in asked.checks], ensure_ascii=False)


def slices(sample: Sample) -> dict[str, str]:
    """Return the scenario (of the original files, the name of an entry), and the language where it is known."""
    found = {k: v for k, v in length_slices(sample).items() if k == "language"}
    return {"scenario": str(sample.metadata.get("scenario") or sample.metadata["type"]), **found}


def _sample(row: Mapping[str, Any], prefill: bool) -> Sample:
    asked = asked_of(row)
    # The published prompts end with the opening of the answer, which is the assistant's turn here.
    request = text_field(row, "prompt").rstrip().removesuffix(asked.prefix).rstrip()
    if not request:
        raise ValueError("prompt holds nothing but the prefix")
    words = asked.num_entries * asked.min_words
    length = LengthTarget(min=words, relation="at_least") if words else None
    known = {"type": asked.unit, "min_words": asked.min_words, "prefill": prefill}
    return row_sample({**row, **known}, user(request), length)
