"""The rows of a finished data set that are fit to train on: anybody's JSONL, or a build of ours. No model is asked.

    lengthwise build --config configs/data/gate.yaml --data rows.jsonl

Each row passes the gates of its own text first (`gates.py`), so that an unfit row is never the one of several that is
kept. Of those that pass, in the order of the data:

- rows that hold a prompt of an evaluation set, verbatim or in half of its runs of 13 words, are refused;
- of rows with nearly the same prompt the first `max_per_prompt` stay;
- of rows with nearly the same answer the first stays.

A kept row is the row as it came, with its conversation as `messages` and what each gate said of it in `filters`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.gates import GatedText, TextGates, stated_length_score, verdicts
from data_builders.rows import length_entry, scores_of, turns
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.contamination import OverlapIndex
from lengthwise.degeneration import language
from lengthwise.length_wishes import parse_length_wish
from lengthwise.near_duplicates import NearDuplicates
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample
from lengthwise.row_files import read_rows
from lengthwise.row_sources import RowSource, find_rows
from lengthwise.row_values import prompt_turns
from lengthwise.rows import BadRow
from lengthwise.run_dir import InputFile

ROLES: tuple[str, ...] = ()
WITH_ANSWERS = True

PROMPT_COLUMNS = ("prompt", "question", "problem", "query", "instruction", "messages", "text")
"""Where evaluation sets have their prompts; the first one that a row has."""


@dataclass(kw_only=True)
class EvalSet:
    """Prompts that must not be trained on."""

    path: str = option(help="file, folder, or hub id")
    column: str | None = option(
        None, help="where a row has its prompt; default: the first of " + ", ".join(PROMPT_COLUMNS)
    )
    split: str = option("test", help="split of a hub data set")
    subset: str | None = option(None, help="configuration of a hub data set")

    def found(self) -> RowSource:
        """Return the rows' source.

        Raises:
            ConfigError: there is none.
        """
        return find_rows(self.path, field="builder.decontaminate", split=self.split, subset=self.subset)

    def prompts(self) -> Iterator[tuple[str, str]]:
        """Yield a name and the text of each prompt.

        Raises:
            ConfigError: a row that cannot be read, or has no prompt.
        """
        for number, row in enumerate(read_rows(self.found(), field="builder.decontaminate")):
            if isinstance(row, BadRow):
                raise ConfigError(f"builder.decontaminate: {row}")
            columns = [self.column] if self.column else PROMPT_COLUMNS
            column = next((name for name in columns if row.values.get(name) is not None), None)
            if column is None:
                raise ConfigError(
                    f"builder.decontaminate: {row.place} has none of {', '.join(columns)}: name its column"
                )
            try:
                turns = prompt_turns(row.values[column])
            except ValueError as error:
                raise ConfigError(f"builder.decontaminate: {row.place}: column {column!r} {error}") from None
            text = "\n".join(turn.content for turn in turns if turn.role == "user")
            if not text.strip():
                raise ConfigError(
                    f"builder.decontaminate: {row.place} has an empty prompt in {column!r}: name its column"
                )
            yield f"{self.path} {number}", text


@dataclass(kw_only=True)
class Config(TextGates):
    """Options of the gate."""

    decontaminate: list[EvalSet] = option(
        default_factory=list,
        help="evaluation sets whose prompts no row may hold: maps with path, column, split, subset",
    )
    max_per_prompt: int | None = option(1, help="rows with nearly the same prompt that stay; null: all")
    prompt_likeness: float = option(
        0.8, help="likeness (Jaccard, of runs of 3 words) from which prompts are the same; 1: equal ones only"
    )
    answer_likeness: float | None = option(
        0.8, help="likeness (of runs of 5 words) from which answers are the same; null: they are not compared"
    )

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        super().__post_init__()
        for name in ("prompt_likeness", "answer_likeness"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"{name} is {value}: it must be above 0 and at most 1")
        if self.max_per_prompt is not None and self.max_per_prompt < 1:
            raise ConfigError(f"max_per_prompt is {self.max_per_prompt}: it must be at least 1, or null")


def inputs(config: Config) -> list[InputFile]:
    """Return the files that decide about rows beside the data."""
    return [file for entry in config.decontaminate for file in entry.found().inputs()]


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows that do not pass, by id, with the reason.

    Raises:
        ConfigError: an evaluation set that cannot be read.
    """
    from tqdm import tqdm

    gate = _Gate(config)
    judged = ((sample.id, gate.refusal(sample)) for sample in tqdm(samples, desc="gate", unit="row"))
    return {key: refusal for key, refusal in judged if refusal is not None}


class _Gate:
    """What has passed so far, which decides about the rows that follow."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._evals = OverlapIndex()
        for entry in config.decontaminate:
            for name, text in entry.prompts():
                self._evals.add_prompt(name, [text])
        self._prompts = NearDuplicates(threshold=config.prompt_likeness, n=3)
        self._answers = NearDuplicates(threshold=config.answer_likeness or 1.0)
        self._passed: Counter[Any] = Counter()

    def refusal(self, sample: Sample) -> Refusal | None:
        """Return why a row does not pass; None where it does."""
        unfit = [verdict for verdict in verdicts(gated_text(sample), self._config) if not verdict.passed]
        if unfit:
            return Refusal(unfit[0].name, "; ".join(f"{verdict.name}: {verdict.value}" for verdict in unfit))
        texts = [message.content for message in sample.messages]
        copied = sorted(map(str, self._evals.prompts_in([*texts, sample.completion])))
        if copied:
            return Refusal("evaluation prompt", ", ".join(copied[:3]))
        prompt = self._same_prompt(sample)
        if self._config.max_per_prompt is not None and self._passed[prompt] >= self._config.max_per_prompt:
            return Refusal("duplicate prompt", f"as {prompt}")
        if self._config.answer_likeness is not None:
            alike = self._answers.find_or_add(sample.id, sample.completion or "")
            if alike is not None:
                return Refusal("duplicate answer", f"likeness {alike[1]:.2f} to that of {alike[0]}")
        self._passed[prompt] += 1
        return None

    def _same_prompt(self, sample: Sample) -> Any:
        """Return the id of the first row with nearly the same prompt; other numbers make another prompt.

        "Write 300 words on bees" and "Write 900 words on bees" are two prompts, and so are two sums.
        """
        text = "\n".join(message.content for message in sample.messages if message.role != "system")
        numbers = " ".join(re.findall(r"\d+", text))
        found = self._prompts.find_or_add(sample.id, text, kind=numbers)
        return sample.id if found is None else found[0]


def gated_text(sample: Sample) -> GatedText:
    """Return what the gates of a text look at."""
    finish_reason = sample.metadata.get("finish_reason")
    tokens = sample.metadata.get("num_tokens")
    return GatedText(
        prompt=sample.instruction,
        answer=sample.completion or "",
        target=sample.length or parse_length_wish(sample.instruction),
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        num_tokens=tokens if isinstance(tokens, int) else None,
    )


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return a row that passed."""
    text = gated_text(sample)
    earlier_filters = sample.metadata.get("filters")
    return Kept(
        {
            **sample.metadata,
            "id": sample.id,
            "builder": sample.metadata.get("builder") or "gate",
            "messages": turns(sample),
            "language": language(text.answer),
            "length": length_entry(text.answer, requested=text.target, tokens=text.num_tokens),
            "scores": {
                **scores_of(sample),
                "s_l": stated_length_score(text),
            },
            "filters": [
                *(earlier_filters if isinstance(earlier_filters, list) else []),
                *(verdict.to_dict() for verdict in verdicts(text, config)),
            ],
            "lineage": [*sample.lineage, "gate"],
        }
    )
