"""Open requests for long texts, with what a judge is to look for: rows for the scorers `checklist` and `criteria`.

Sources have the shipped fields {prompt, language, category, checklist, criteria}, HelloBench's {instruction,
checklists, category} (arXiv 2409.16191; its published weights stand apart from its rows, so that all items weigh the
same here) or WritingBench's {query, checklist, lang, domain1} (2503.05244; what it calls checklist are criteria). A row
may have a checklist, criteria, both or neither: the scorers leave out what a row lacks.

Without a judge there is only `words`, how long the replies are, by `cjk_ws`; the scorers `position` and `degeneration`
need no judge either. The shipped requests are ours: they show how such rows look, and are too few to be a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.base import Metric, length_slices
from evals.sources import Entry, read_samples, row_sample, text_field
from lengthwise.checklist import read_checklist
from lengthwise.criteria import read_criteria
from lengthwise.lengths import COUNTERS
from lengthwise.records import Prompt, Sample
from lengthwise.row_values import prompt_turns

VERSION = 1
METRICS = (Metric(name="words", counter="cjk_ws", higher_is_better=None),)
TEMPERATURE = 0.7
MAX_TOKENS = None
PROMPTS = "writing.jsonl"


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data in one of the three forms. `draw_seed` is not used.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, _sample)


def prompt(sample: Sample) -> Prompt:
    """Return the request as it is."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return how many words and Chinese characters one reply has.

    Example:
        "Dear Ada, 你好" has words 4.
    """
    return {"words": float(COUNTERS["cjk_ws"](text))}


def slices(sample: Sample) -> dict[str, str]:
    """Return the language, and the source's category or first domain."""
    found = length_slices(sample)
    category = sample.metadata.get("category") or sample.metadata.get("domain1")
    return found | ({"category": str(category)} if category else {})


def _sample(row: Mapping[str, Any]) -> Sample:
    turns = prompt_turns(row["prompt"]) if isinstance(row.get("prompt"), list) else ()
    request = turns or text_field(row, "prompt", "instruction", "query")
    checklist, criteria = row.get("checklist", row.get("checklists")), row.get("criteria")
    if criteria is None and _are_criteria(checklist):
        checklist, criteria = None, checklist
    taken = ("prompt", "instruction", "query", "checklist", "checklists", "criteria", "lang", "id")
    kept = {key: value for key, value in row.items() if key not in taken}
    kept["id"] = row.get("id", row.get("index"))
    if row.get("lang") or row.get("language"):
        kept["language"] = row.get("language") or row["lang"]
    if checklist is not None:
        kept["checklist"] = [item.to_dict() for item in read_checklist(checklist)]
    if criteria is not None:
        kept["criteria"] = [criterion.to_dict() for criterion in read_criteria(criteria)]
    return row_sample(kept, request, None)


def _are_criteria(value: Any) -> bool:
    """Tell WritingBench's checklist, whose entries are named, from one of items."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "name" in value[0]
