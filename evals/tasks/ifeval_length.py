"""IFEval's length instructions (arXiv 2311.07911): words, sentences and paragraphs, checked by a program.

Sources have IFEval's fields {key, prompt, instruction_id_list, kwargs} or those of the shipped prompts, of which
the wishes for "at least" and "at most" words are taken. Three of the four kinds of IFEval's group
`length_constraints` are lengths:

- `number_words`, by `regex_w`: "less than" N is strict, "at least" N takes N;
- `number_sentences`, with the same relations;
- `number_paragraphs`: exactly N parts between dividers ***; an empty part within is a miss, at an end it is no part.

The fourth, `nth_paragraph_first_word`, asks for a word, and is left aside as all other kinds are, and so is a row
without a length. A row's score says nothing of the other instructions it holds: these are not IFEval's numbers
but those of its length kinds.

`prompt_strict` is the share of prompts whose length instructions are all met, `instruction_strict` the share met
of each prompt's length instructions, averaged over prompts (IFEval pools the instructions; the two agree where each
prompt has one). The loose metrics take an instruction as met if any of eight forms of the reply meets it: as it is,
without its first line, its last or both, each with and without asterisks. An empty reply meets nothing.

Deviation: IFEval counts sentences with NLTK's punkt, a trained model that has to be downloaded. Here the rule of
`lengthwise.sentences` counts, which needs no data; near a bound the two can differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.base import Metric, length_slices
from evals.sources import Entry, own_sample, own_schema, read_samples, text_field
from lengthwise.degeneration import language
from lengthwise.lengths import count_regex_w
from lengthwise.records import LengthTarget, Prompt, Sample, sample_id, user
from lengthwise.row_values import row_id, shown
from lengthwise.sentences import count_sentences

VERSION = 1
METRICS = (
    Metric(name="prompt_strict", counter="regex_w", summary="proportion"),
    Metric(name="prompt_loose", counter="regex_w", summary="proportion"),
    Metric(name="instruction_strict", counter="regex_w", worst=0.0, best=1.0),
    Metric(name="instruction_loose", counter="regex_w", worst=0.0, best=1.0),
)
TEMPERATURE = 0.0
MAX_TOKENS = None
DATA_FILE = "input_data.jsonl"

_GROUP = "length_constraints:"
KINDS = {"number_words": "words", "number_sentences": "sentences", "number_paragraphs": "paragraphs"}
"""IFEval's kinds of length, and what each counts."""
RELATIONS = ("less than", "at least")


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data with IFEval's fields that hold a length instruction, or of the shipped prompts.

    Of rows with the shipped fields Chinese ones are skipped: `regex_w` counts a run of hanzi as one word.
    `draw_seed` is not used.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, _sample)


def prompt(sample: Sample) -> Prompt:
    """Return the prompt as it is: it holds the instructions in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return which of a reply's length instructions are met, by both readings.

    Example:
        A reply of 100 words to "less than 100 words" and "at least 2 sentences", of which it has three, has
        prompt_strict 0 and instruction_strict 0.5.
    """
    wishes = _wishes(sample)
    strict = [_is_met(wish, text) for wish in wishes]
    forms = list(_loose_forms(text))
    loose = [any(_is_met(wish, form) for form in forms) for wish in wishes]
    return {
        "prompt_strict": float(all(strict)),
        "prompt_loose": float(all(loose)),
        "instruction_strict": sum(strict) / len(strict),
        "instruction_loose": sum(loose) / len(loose),
    }


def slices(sample: Sample) -> dict[str, str]:
    """Return what the instructions count (several: joined by a plus), and the bin of the asked words."""
    kinds = dict.fromkeys(wish["kind"] for wish in _wishes(sample))
    found = {"kind": "+".join(kinds)}
    if sample.length is not None:
        found["relation"] = sample.length.relation
    return {**found, **length_slices(sample)}


def count_paragraphs(text: str) -> int | None:
    r"""Return the number of parts between dividers ***, None where a part within is empty.

    Example:
        >>> count_paragraphs("one\n***\ntwo\n***"), count_paragraphs("one *** *** two")
        (2, None)
    """
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    if not all(parts[1:-1]):
        return None
    return len(parts) - (not parts[0]) - (len(parts) > 1 and not parts[-1])


def _is_met(wish: Mapping[str, Any], text: str) -> bool:
    if not text.strip():
        return False
    if wish["kind"] == "paragraphs":
        return count_paragraphs(text) == wish["number"]
    count = count_regex_w(text) if wish["kind"] == "words" else count_sentences(text)
    return count < wish["number"] if wish["relation"] == "less than" else count >= wish["number"]


def _loose_forms(text: str) -> Iterator[str]:
    """Yield the eight forms; a model's opening or closing line, or its bold marks, should not decide."""
    lines = text.split("\n")
    for part in (lines, lines[1:], lines[:-1], lines[1:-1]):
        form = "\n".join(part)
        yield form
        yield form.replace("*", "")


def _wishes(sample: Sample) -> Sequence[Mapping[str, Any]]:
    """Return a sample's length instructions; of one that comes without (`lengthwise score`), by its length.

    Raises:
        ValueError: its length is none that IFEval knows.
    """
    stated = sample.metadata.get("length_instructions")
    if stated:
        return stated
    if sample.length is None or sample.length.unit != "words":
        raise ValueError(f"ifeval_length needs a number of words, and sample {sample.id} asks for none")
    if sample.length.relation == "at_least":
        return [_words_wish("at least", sample.length.min or 0)]
    if sample.length.relation == "at_most":
        return [_words_wish("less than", (sample.length.max or 0) + 1)]
    raise ValueError(
        f"IFEval knows at least and at most a number of words, and sample {sample.id} asks {sample.length.relation} "
        f"{sample.length.nominal:g}: score it with longbench_write or longen"
    )


def _words_wish(relation: str, number: int) -> dict[str, Any]:
    return {"kind": "words", "relation": relation, "number": number}


def _sample(row: Mapping[str, Any]) -> Sample | None:
    if own_schema(row):
        sample = own_sample(row)
        stated = sample.metadata.get("language") or language(sample.instruction)
        if stated == "zh" or sample.length is None or sample.length.relation not in ("at_least", "at_most"):
            return None
        return replace(sample, metadata={**sample.metadata, "length_instructions": _wishes(sample)})
    wishes = _stated_wishes(row)
    if not wishes:
        return None
    text = text_field(row, "prompt")
    return Sample(
        id=row_id(row.get("key")) or row_id(row.get("id")) or sample_id(user(text)),
        messages=user(text),
        length=_length(wishes),
        metadata={"length_instructions": wishes},
    )


def _stated_wishes(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the length instructions of a row of IFEval.

    Raises:
        ValueError: saying what is wrong with the lists of instructions and their arguments.
    """
    ids, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments):
        raise ValueError("instruction_id_list and kwargs must be lists of one length")
    wishes = []
    for name, given in zip(ids, arguments, strict=True):
        kind = KINDS.get(str(name).removeprefix(_GROUP)) if str(name).startswith(_GROUP) else None
        if kind is None:
            continue
        given = given if isinstance(given, Mapping) else {}
        number, relation = given.get(f"num_{kind}"), given.get("relation")
        if isinstance(number, float) and number.is_integer():
            number = int(number)  # a table's column with gaps holds floats
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}: num_{kind} must be a whole number from 1, not {shown(number)}")
        if kind != "paragraphs" and relation not in RELATIONS:
            raise ValueError(f"{name}: relation must be {' or '.join(RELATIONS)}, not {shown(relation)}")
        wishes.append(
            {"kind": kind, "relation": relation if kind != "paragraphs" else "exactly", "number": number}
        )
    return wishes


def _length(wishes: Sequence[Mapping[str, Any]]) -> LengthTarget | None:
    """Return the one bound on words as a length target; None where there is none, or several."""
    words = [wish for wish in wishes if wish["kind"] == "words"]
    if len(words) != 1:
        return None
    number = words[0]["number"]
    if words[0]["relation"] == "at least":
        return LengthTarget(min=number, relation="at_least")
    return LengthTarget(max=number - 1, relation="at_most") if number > 1 else None
