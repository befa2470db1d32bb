"""Target Length Generation (Ruler, arXiv 2409.18943, section 3; sources {id, Instruction, TargetLength}).

Nine targets, from 10 to "more than 800" words, all counted by `regex_w`. `pm` is the precise match, `fm` the
flexible one: the share of replies whose words fall into the target's window (Algorithm 1; the paper prints
percent, here they are 0..1). `elm` is the share with exactly the asked words, `rmse` the root mean square of
words - target; both leave ">800" out, which asks for no number. Greedy with 2,048 new tokens as published;
">800" is met by any looped text that reaches that cap, so read it beside the truncated count.

The sentence that states the target is worded by us, so the numbers compare with each other, not to a decimal
with the paper's. Its 2,000 rows are not shipped: their source states no licence. `stream: paper` rebuilds them
from OpenHermes-2.5, and does with any other instructions what was done there.

`targets: all` is the paper's Multi-MLT: each instruction under all nine targets, one cluster; a list of some, as
`targets: ["10", "30"]`, asks for these alone. `mlt` is for
models with meta length tokens: "given" puts the target's token where the reply begins, in place of the sentence;
"self" asks for no length, and scores a reply against the token that opens it (none: a miss). Both need a model
trained with these tokens: any other takes "given" for text to go on from, and meets "self" never. The tokens must be
plain ones for the tokenizer (special=False), since engines leave special tokens out of a reply. Ruler also stops
at any MLT: `sampling.stop` can hold them for "given", but not for "self", whose reply opens with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from evals.base import Metric, Score, asked_length, length_slices
from evals.sources import Entry, own_schema, read_samples, text_field
from evals.target_draws import draw_targets, paper_stream
from lengthwise.config import ConfigError
from lengthwise.lengths import TLG_TARGETS, count_regex_w, tlg_level, tlg_match
from lengthwise.meta_length import (
    MLT_FORMAT,
    check_mlt_format,
    mlt_text,
    split_mlt,
    target_length,
    with_length_sentence,
)
from lengthwise.records import LengthTarget, Message, Prompt, Sample, sample_id, user
from lengthwise.row_values import row_id, shown

VERSION = 1
METRICS = (
    Metric(name="pm", counter="regex_w", summary="proportion"),
    Metric(name="fm", counter="regex_w", summary="proportion"),
    Metric(name="elm", counter="regex_w", summary="proportion"),
    Metric(name="rmse", counter="regex_w", summary="rmse", higher_is_better=False),
)
TEMPERATURE = 0.0
MAX_TOKENS = 2048

PAPER_ROWS = {"one": 2000, "all": 200}
"""How many instructions the paper takes, by `targets`: for the benchmark, and for Multi-MLT."""


def load(
    source: str | None,
    *,
    draw_seed: int = 0,
    stream: Literal["drawn", "paper"] = "drawn",
    targets: Literal["one", "all"] | list[str] = "one",
    mlt: Literal["none", "given", "self"] = "none",
    mlt_format: str = MLT_FORMAT,
    profile: Literal["code", "paper"] = "code",
) -> list[Entry]:
    """Return the rows of data with the paper's fields, or of any instructions.

    Of rows with the shipped fields it takes `instruction`, which holds no wish, leaves their own length aside,
    and skips Chinese ones: `regex_w` counts a run of hanzi as one word. Of `conversations` it takes the first turn
    where there are two, and skips others, as the paper did.

    Args:
        source: see `evals.sources.find_source`.
        draw_seed: of the targets of rows without `TargetLength`; each depends on it and on the number of
            readable rows before it only.
        stream: "paper" shuffles the instructions and draws the targets as the paper did (`paper_stream`), and
            takes the first 2,000, of `targets: all` the first 200. `draw_seed` then plays no part.
        targets: "all" asks each instruction for all nine targets, a list for those in it.
        mlt: whether a meta length token is given, expected of the model, or neither.
        mlt_format: what the tokens are called, with the slot {target}.
        profile: the window's edges, "code" (lo, hi] or "paper" [lo, hi), see `lengthwise.lengths.tlg_match`.

    Raises:
        ConfigError: the data is not there, the whole of it is unreadable, or the options do not go together.
    """
    _check_options(stream, targets, mlt, mlt_format)
    options = {"mlt": mlt, "mlt_format": mlt_format, "profile": profile}
    defaults = {"mlt": "none", "mlt_format": MLT_FORMAT, "profile": "code"}
    known = {key: value for key, value in options.items() if value != defaults[key]}
    if stream == "paper":
        questions = read_samples(source, lambda row: _without_target(_question(row)))
        return _as_the_paper_drew(questions, targets, known)
    drawn = draw_targets(draw_seed)

    def convert(row: Mapping[str, Any]) -> Sample | tuple[Sample, ...] | None:
        if _is_skipped(row):
            return None
        label = next(drawn)
        question = _question(row)
        return question and _asked(question, targets, question.metadata.get("target_length", label), known)

    return read_samples(source, convert)


def prompt(sample: Sample) -> Prompt:
    """Return the instruction with its target: a sentence on a line of its own, or a token that opens the reply."""
    mode = sample.metadata.get("mlt", "none")
    if mode == "self":
        return user(sample.instruction)
    label = target_label(asked_length(sample, "tlg"))
    if mode == "given":
        return (
            *user(sample.instruction),
            Message(role="assistant", content=mlt_text(label, _mlt_format(sample))),
        )
    return user(with_length_sentence(sample.instruction, label))


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float] | Score:
    """Return the matches of one reply, 0 or 1, and its distance from the target in words.

    Example:
        A reply of 170 words to the target 150 has pm 1, fm 1, elm 0 and rmse 20; one of 200 words pm 0 and fm 1.
    """
    mode = sample.metadata.get("mlt", "none")
    if mode == "none":
        return _metrics(sample, target_label(asked_length(sample, "tlg")), text)
    emitted, answer = split_mlt(text, _mlt_format(sample))
    if mode == "given":
        metrics = _metrics(sample, target_label(asked_length(sample, "tlg")), answer)
        return Score(metrics=metrics, answer=answer)
    if emitted is None:
        return Score(metrics={"pm": 0.0, "fm": 0.0, "elm": 0.0}, slices={"mlt": "none"})
    return Score(metrics=_metrics(sample, emitted, answer), answer=answer, slices={"mlt": emitted})


def slices(sample: Sample) -> dict[str, str]:
    """Return the target and its level (0, 1, 2), where one is asked, and the language."""
    language = {k: v for k, v in length_slices(sample).items() if k == "language"}
    if sample.metadata.get("mlt") == "self":
        return language
    label = target_label(asked_length(sample, "tlg"))
    return {"level": str(tlg_level(label)), "target": label, **language}


def cluster(sample: Sample) -> str | None:
    """Return the question that nine prompts share."""
    return sample.metadata.get("question")


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


def _metrics(sample: Sample, label: str, text: str) -> dict[str, float]:
    words = count_regex_w(text)
    precise, flexible = tlg_match(label, words, sample.metadata.get("profile", "code"))
    found = {"pm": float(precise), "fm": float(flexible)}
    if not label.startswith(">"):
        found |= {"elm": float(words == int(label)), "rmse": float(words - int(label))}
    return found


def _mlt_format(sample: Sample) -> str:
    return sample.metadata.get("mlt_format", MLT_FORMAT)


def _check_options(stream: str, targets: str | list[str], mlt: str, mlt_format: str) -> None:
    try:
        check_mlt_format(mlt_format)
    except ValueError as error:
        raise ConfigError(f"tasks: tlg.mlt_format {error}") from None
    unknown = [label for label in targets if label not in TLG_TARGETS] if isinstance(targets, list) else []
    if unknown or not targets:
        raise ConfigError(
            f"tasks: tlg.targets is {targets}: name some of {', '.join(TLG_TARGETS)}, or all, or one"
        )
    if mlt == "self" and (targets, stream) != ("one", "drawn"):
        raise ConfigError(
            f"tasks: tlg.mlt is 'self', which asks for no target, but targets is {targets!r} and stream {stream!r}: "
            "leave out both, or set mlt to 'given'"
        )


def _as_the_paper_drew(
    questions: Sequence[Entry], targets: str | list[str], known: Mapping[str, Any]
) -> list[Entry]:
    """Return the first shuffled questions with their targets; the rest is left aside, bad rows stay."""
    usable = [entry for entry in questions if isinstance(entry, Sample)]
    positions, labels = paper_stream(len(usable), PAPER_ROWS["one" if targets == "one" else "all"])
    asked: list[Entry] = [
        _asked(usable[position], targets, label, known)
        for position, label in zip(positions, labels, strict=True)
    ]
    others = [entry for entry in questions if not isinstance(entry, Sample)]
    return [*asked, *[None] * (len(usable) - len(asked)), *others]


def _asked(
    question: Sample, targets: str | list[str], label: str, known: Mapping[str, Any]
) -> Sample | tuple[Sample, ...]:
    """Return a question with its target, with several, or with none where the model is to choose."""
    if known.get("mlt") == "self":
        return replace(question, metadata={**question.metadata, **known})
    if targets == "one":
        metadata = {**question.metadata, "target_length": label, **known}
        return replace(question, length=target_length(label), metadata=metadata)
    return tuple(
        replace(
            question,
            id=f"{question.id}/{each}",
            length=target_length(each),
            metadata={**question.metadata, "target_length": each, "question": question.id, **known},
        )
        for each in (TLG_TARGETS if isinstance(targets, str) else dict.fromkeys(targets))
    )


def _is_skipped(row: Mapping[str, Any]) -> bool:
    turns = row.get("conversations")
    return (own_schema(row) and row.get("language") == "zh") or (isinstance(turns, list) and len(turns) != 2)


def _question(row: Mapping[str, Any]) -> Sample | None:
    """Return a row's instruction as a sample that asks for no length yet; its stated target is in the metadata."""
    if _is_skipped(row):
        return None
    instruction = _instruction(row)
    if isinstance(row.get("input"), str) and row["input"]:
        instruction = f"{instruction}\n{row['input']}"
    kept = {k: v for k, v in row.items() if k in ("language", "category")}
    if row.get("TargetLength") is not None:
        kept["target_length"] = str(row["TargetLength"])
    return Sample(
        id=row_id(row.get("id")) or sample_id(user(instruction)), messages=user(instruction), metadata=kept
    )


def _instruction(row: Mapping[str, Any]) -> str:
    """Return the text of an instruction field, or the first turn of a conversation (OpenHermes, Arena-Hard)."""
    for name in ("conversations", "turns"):
        turns = row.get(name)
        if isinstance(turns, list) and turns:
            if not isinstance(turns[0], Mapping):
                raise ValueError(f"the first turn of {name} is {shown(turns[0])}, expected a map with a text")
            return text_field(turns[0], "content", "value")
    return text_field(row, "instruction", "Instruction", "prompt", "query", "question")


def _without_target(question: Sample | None) -> Sample | None:
    if question is not None and "target_length" in question.metadata:
        raise ValueError("it states TargetLength, which stream: paper would draw anew: leave stream out")
    return question
