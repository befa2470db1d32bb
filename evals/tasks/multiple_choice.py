r"""Questions with lettered options (ARC, MMLU, MMLU-Pro and data of that form); the answer is a letter.

Sources have {question, choices, answer}: the options under `choices` or `options`, as a list or as ARC's {text,
label}; the answer under `answer` or `answerKey`, as a letter or label, an index from 0, or the right option's text.
Without data it reads ARC-Challenge.

The options are shuffled, for each question by a seed of its own from `draw_seed` and its content, so that a model
that likes one letter gains nothing and a second run asks the same; `order` in the row says how. `accuracy` is the
share of right letters, `answered` that of replies that choose one (see `lengthwise.answers.choice_letter`).

The default is greedy and lets the model write until the context is full, since it may think before it chooses.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from evals.base import Metric, Score
from evals.sources import Entry, answer_field, read_samples, row_sample, text_field
from lengthwise.answers import choice_letter, choice_of_text, last_box
from lengthwise.records import Prompt, Sample, digest, user
from lengthwise.row_values import shown

VERSION = 1
METRICS = (
    Metric(name="accuracy", counter="tokens", summary="proportion", pass_at_k=True),
    Metric(name="answered", counter="tokens", summary="proportion"),
)
TEMPERATURE = 0.0
MAX_TOKENS = None
PROMPTS = "multiple_choice.jsonl"

MAX_CHOICES = len(ascii_uppercase)


def load(source: str | None, *, draw_seed: int = 0, shuffle: bool = True) -> list[Entry]:
    """Return the questions with their options in the order in which they are asked.

    Args:
        source: see `evals.sources.find_source`.
        draw_seed: seed of the shuffling.
        shuffle: ask the options in an order drawn for each question, not in the source's.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return read_samples(source, lambda row: _sample(row, draw_seed if shuffle else None))


def read_target(row: Mapping[str, Any]) -> str:
    """Return the right letter of a row whose options are not at hand, as `lengthwise score` reads it.

    Raises:
        ValueError: there is none, or it is no letter.
    """
    answer = answer_field(row, "target", "answer", "answerKey").strip("()").upper()
    if len(answer) != 1 or answer not in ascii_uppercase:
        raise ValueError(
            f"the answer is {shown(answer)}: give the letter that was right in the prompt, in target"
        )
    return answer


def prompt(sample: Sample) -> Prompt:
    r"""Return the question, its options with their letters, and how to answer.

    Example:
        >>> question = Sample(id="1", messages=user("Which is even?"), metadata={"choices": ["3", "4"]})
        >>> print(prompt(question)[0].content)
        Which is even?
        <BLANKLINE>
        A. 3
        B. 4
        <BLANKLINE>
        Choose one option, and write its letter in \boxed{}.
    """
    options = zip(ascii_uppercase, sample.metadata["choices"], strict=False)
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in options)
    return user(
        f"{sample.instruction}\n\n{listed}\n\nChoose one option, and write its letter in \\boxed{{}}."
    )


def score(sample: Sample, text: str, finish_reason: str | None) -> Score:
    r"""Return whether a reply chooses the right letter; one that chooses none is wrong.

    A box that holds an option's text in place of its letter counts as that letter.

    Example:
        >>> question = Sample(id="1", messages=(), target="B", metadata={"choices": ["3", "4"]})
        >>> score(question, r"\boxed{B}", "stop").metrics["accuracy"], score(question, "A guess.", "stop").answer
        (1.0, None)
    """
    choices = [str(choice) for choice in sample.metadata.get("choices") or ()]
    boxed = last_box(text)
    letter = (choice_of_text(boxed, choices) if boxed else None) or choice_letter(text, len(choices) or 10)
    right = letter is not None and letter == sample.target
    return Score(metrics={"accuracy": float(right), "answered": float(letter is not None)}, answer=letter)


def slices(sample: Sample) -> dict[str, str]:
    """Return the subject or category, and how many options there are."""
    found = {"num_choices": str(len(sample.metadata.get("choices") or ()))}
    for name in ("subject", "category"):
        if sample.metadata.get(name):
            found[name] = str(sample.metadata[name])
    return {kind: value for kind, value in found.items() if value != "0"}


def _sample(row: Mapping[str, Any], seed: int | None) -> Sample:
    question = text_field(row, "question")
    choices, labels = _choices(row)
    right = _right_choice(row, choices, labels)
    order = list(range(len(choices)))
    if seed is not None:
        random.Random(f"{seed} {digest([question, choices])}").shuffle(order)
    left_out = ("question", "choices", "options", "answer", "answerKey", "answer_index")
    kept = {key: value for key, value in row.items() if key not in left_out}
    own = {"choices": [choices[index] for index in order], "order": order, "draw_seed": seed}
    return row_sample({**kept, **own}, question, None, target=ascii_uppercase[order.index(right)])


def _choices(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the options of a row and their labels in the source."""
    given = row.get("choices") if row.get("choices") is not None else row.get("options")
    texts, labels = given, None
    if isinstance(given, Mapping):
        texts, labels = given.get("text"), given.get("label")
    if not isinstance(texts, list) or not all(isinstance(text, str | int | float) for text in texts):
        raise ValueError(
            f"choices is {shown(given)}: give a list of texts, or {{text, label}} with two lists"
        )
    if not 2 <= len(texts) <= MAX_CHOICES:
        raise ValueError(f"it has {len(texts)} choices: from 2 to {MAX_CHOICES} can be asked")
    names = (
        [str(label) for label in labels] if isinstance(labels, list) else list(ascii_uppercase[: len(texts)])
    )
    if len(names) != len(texts):
        raise ValueError(f"it has {len(texts)} choices and {len(names)} labels")
    return [str(text) for text in texts], names


def _right_choice(row: Mapping[str, Any], choices: list[str], labels: list[str]) -> int:
    """Return the index of the right option: a label, else an index, else an option's text."""
    answer = row.get("answer") if row.get("answer") is not None else row.get("answerKey")
    if isinstance(answer, int) and not isinstance(answer, bool) and str(answer) not in labels:
        if 0 <= answer < len(choices):
            return answer
        raise ValueError(f"the answer is {answer}, and the {len(choices)} choices have the indices from 0")
    for names in (labels, choices):
        if answer is not None and names.count(str(answer).strip()) == 1:
            return names.index(str(answer).strip())
    raise ValueError(f"the answer {shown(answer)} is no label, index or text of the choices {shown(choices)}")
