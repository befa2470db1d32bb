"""What an evaluation task is, and how one completion is scored.

A task is one file in `evals/tasks`; the file's name is its name in a config. It is a module that has the
members of `Task`. Scoring needs no model: `score_completion` is a pure function of a sample and a text, used
on fresh completions and by `lengthwise score` on anybody's. What needs a judge is a scorer (`evals/scorers`),
which any task may be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lengthwise.degeneration import flags, language
from lengthwise.lengths import count_all, length_bin
from lengthwise.pooled import STATISTICS
from lengthwise.records import Attempt, LengthTarget, Prompt, Sample
from lengthwise.rows import BadRow
from lengthwise.summaries import Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number a task gives to each completion, and how it is summed up."""

    name: str
    counter: str
    """Id of the word counter it rests on: numbers of different counters do not compare."""
    higher_is_better: bool | None = True
    """None: neither is better."""
    summary: Summary = "mean"
    columns: tuple[str | None, ...] = ()
    """Of a `ratio` or `kappa`: the metrics of a row that are summed over all rows (`lengthwise.pooled`); None is 1.
    The row's own value under the metric's name is what its reader sees, and does not enter the estimate."""
    pass_at_k: bool = False
    """Of 0/1 scores, with several replies to a prompt: give pass@k beside the mean, which is avg@k. One metric of a
    task at most, since the name pass@k says nothing of it."""
    detail: bool = False
    """A part of another metric: the table shows it for all replies only, not for each slice."""
    length_delta: str | None = None
    """Of a preference over another's reply: the metric that says how much longer the reply is. The results then also
    give the win rate as it would be if both were equally long."""
    round_of: tuple[str, int] | None = None
    """Of a metric that tells how good an answer was after some round of refinement: what is followed over the rounds,
    and which round this is, 0 the first answer. The results then also give each round's gain over round 0."""
    part_of: tuple[str, int] | None = None
    """Of a metric of one part of a long text: what is followed through the text, and which part this is, from 1. The
    report draws them as one curve."""
    worst: float | None = None
    """The worst an unscored completion could have had; None: unknown, so that nothing is said of it. Intervals
    are kept within `worst` and `best`, which only the task knows; of a proportion they are 0 and 1 by default."""
    best: float | None = None

    def __post_init__(self) -> None:
        """Fill in the ends of a proportion.

        Raises:
            ValueError: what is made of sums names no columns, or what is not names some.
        """
        if (self.summary in STATISTICS) != bool(self.columns):
            raise ValueError(
                f"the metric {self.name} has summary {self.summary!r} and columns {list(self.columns)}: "
                f"{' and '.join(STATISTICS)} need columns, and nothing else has any"
            )
        if self.summary != "proportion" or self.higher_is_better is None:
            return
        if self.worst is None and self.best is None:
            object.__setattr__(self, "worst", float(not self.higher_is_better))
            object.__setattr__(self, "best", float(self.higher_is_better))


HARNESS_METRICS = (Metric(name="num_tokens", counter="tokens", higher_is_better=None),)
"""What every task measures: the generated tokens of a reply, its thinking part and all calls that led to it included.
It is what a score costs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the results need to know of a task: all metrics of its rows, and its version."""

    METRICS: tuple[Metric, ...]
    VERSION: int


def measured(task: Task, *more: Metric) -> Measured:
    """Return what a task's rows are measured by: its own metrics, those of scorers, and what every task has."""
    return Measured(METRICS=(*task.METRICS, *more, *HARNESS_METRICS), VERSION=task.VERSION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What one completion got, where there is more to say than its metrics."""

    metrics: Mapping[str, float]
    """The fault of the model (empty, cut, no answer) is a value here: the metric's floor."""
    answer: str | None = None
    """What was read from the reply and compared, lm-eval's `filtered_resps`; None: nothing could be read."""
    unscored: Mapping[str, str] = field(default_factory=dict)
    """Metrics that the harness failed on (judge, verifier), with the reason: counted apart, never 0."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What a reader of the row should know: a verifier's time-out, a judge's reply."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Groups that only the reply decides, beside those of the sample."""


class Task(Protocol):
    """The members of a task module.

    Optional further members:

    * `DATA_FILE`, the published file's name, which is looked for in the run's `data_dir`; `HUB`, the hub id that is
      read where no data is named, or `PROMPTS`, a file of `evals/prompts` that is (with neither, `load` gets None);
      `source(data)`, for a task that has its rows
      from elsewhere: what the manifest is to say of them.
    * `SAMPLING`, a whole `Sampling` in place of `TEMPERATURE` and `MAX_TOKENS`: a task with stop strings.
    * `REQUIRES`, the capabilities that an engine must have; `async ask(sample, caller, sampling)`, which returns the
      completions to score, for a task that has more to ask than one prompt; `NUM_FEWSHOT`, examples in a prompt.
    * `configured(**options)`, for a task whose metrics depend on its options. It returns the task: an object
      with the members of this class, and `LABEL`, its name. Its parameters are the options then, and the module
      needs no member beside it but an empty `METRICS`.
    * `score_attempts(sample, text, finish_reason, attempts)`, in place of `score` where a reply has `attempts`.
    * `cluster(sample) -> str | None`, which names what different prompts share that makes their scores depend on
      each other (one question asked for nine lengths): without it, only equal prompts are a cluster.
    * `score_tokens(sample, num_tokens) -> dict[str, float]`, for metrics that rest on the generated tokens, those of
      the thinking part included (None: unknown), beside those of `score`.
    * `read_target(row) -> str`, the reference answer of a row: `lengthwise score` then asks a row for that, and
      not for a length.
    """

    VERSION: int
    """Goes up with every change that moves a score."""
    METRICS: tuple[Metric, ...]
    TEMPERATURE: float
    MAX_TOKENS: int | None
    """None: what is left of the context."""

    def load(
        self, source: str | None, *, draw_seed: int
    ) -> list[Sample | tuple[Sample, ...] | BadRow | None]:
        """Return each row of some data: its sample or samples, what is wrong, or None if it is not for this task.

        None as `source` means the shipped prompts. `evals.sources.read_samples` does it all. Further keywords
        of `load` are the task's options: an entry of `tasks` sets them by name, their annotations are checked.
        What `prompt` and `score` must know of an option, `load` writes into the sample's metadata.
        """
        ...

    def prompt(self, sample: Sample) -> Prompt:
        """Return what the model is asked."""
        ...

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> dict[str, float] | Score:
        """Return the metrics of one completion; a metric that leaves it out is absent."""
        ...

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return the groups, by kind, in whose tables the sample counts; a limited run is stratified by the first."""
        ...


def score_completion(
    task: Task,
    sample: Sample,
    text: str,
    finish_reason: str | None,
    num_tokens: int | None,
    num_reasoning_tokens: int = 0,
    attempts: Sequence[Attempt] = (),
    total_tokens: int | None = None,
) -> dict[str, Any]:
    """Return all that is known of one completion: counts by every counter, flags, metrics and slices.

    Pure: the same text gets the same scores on every machine. Each count is kept, so that a later question
    needs no second generation.

    Args:
        task: the task module.
        sample: the sample that was asked, with its length target.
        text: the reply without its thinking part.
        finish_reason: why it ended; None where nobody recorded it, which counts as unknown, not as fine.
        num_tokens: generated tokens, None if unknown.
        num_reasoning_tokens: those of them that are no answer; the count `tokens` leaves them out.
        attempts: what led to the reply.
        total_tokens: generated tokens of all calls that it took; None: its own. It is what the score costs.

    Raises:
        ValueError: if the task has no score for such a length target.
    """
    of_attempts = getattr(task, "score_attempts", None) if attempts else None
    given = (
        task.score(sample, text, finish_reason)
        if of_attempts is None
        else of_attempts(sample, text, finish_reason, attempts)
    )
    score = given if isinstance(given, Score) else Score(metrics=given, answer=text)
    score_tokens = getattr(task, "score_tokens", None)
    of_tokens = {} if score_tokens is None else score_tokens(sample, num_tokens)
    found: dict[str, Any] = {**flags(text, finish_reason)}
    if finish_reason is None:
        found["truncated"] = None  # how a text ends only hints at it
    cost = num_tokens if total_tokens is None else total_tokens
    cluster = task_cluster(task, sample)
    # The cap was hit inside the thinking part: there is no answer, which is the metric's floor, not a short one.
    found["unfinished_thinking"] = (
        finish_reason == "length" and num_reasoning_tokens > 0 and bool(found["empty"])
    )
    return {
        **({} if cluster is None else {"cluster": cluster}),
        "requested": None if sample.length is None else sample.length.to_dict(),
        "finish_reason": finish_reason,
        "num_tokens": num_tokens,
        "num_reasoning_tokens": num_reasoning_tokens,
        "counts": {
            **count_all(text),
            "tokens": None if num_tokens is None else num_tokens - num_reasoning_tokens,
        },
        "filtered_resps": [score.answer],
        "metrics": {
            **score.metrics,
            **of_tokens,
            **({} if cost is None else {"num_tokens": cost}),
        },
        "unscored": dict(score.unscored),
        "notes": dict(score.notes),
        "flags": found,
        "slices": {**task.slices(sample), **score.slices},
    }


def task_cluster(task: Task, sample: Sample) -> str | None:
    """Return the name of the group whose scores depend on each other; None where the prompt alone decides."""
    named = getattr(task, "cluster", None)
    return None if named is None else named(sample)


def asked_length(sample: Sample, task: str) -> LengthTarget:
    """Return the sample's length target in words; characters are words where the text is Chinese.

    A task calls it when it loads a row, so that a target it cannot score is a bad row, not a run that fails
    after the model has written.

    Raises:
        ValueError: if there is none, or it is in tokens, or in characters of a language that writes words.
    """
    if sample.length is None:
        raise ValueError(f"{task} needs the length that was asked, and sample {sample.id} has none")
    unit = sample.length.unit
    if unit == "tokens":
        raise ValueError(f"{task} counts words, and sample {sample.id} asks for tokens: ask for words")
    if unit == "characters" and not _is_chinese(sample):
        raise ValueError(
            f"{task} counts words, and sample {sample.id} asks for characters, which are words in Chinese only: "
            'ask for words, or give the row "language": "zh"'
        )
    return sample.length


def _is_chinese(sample: Sample) -> bool:
    """Tell by what the source says, else by the prompt, whether a character is what counters call a word."""
    stated = sample.metadata.get("language")
    return (str(stated) if stated else language(sample.instruction)) == "zh"


def length_slices(sample: Sample) -> dict[str, str]:
    """Return the slices every task has: the bin of the asked length, and the language where it is known."""
    found = {"length_bin": length_bin(sample.length.nominal)} if sample.length else {}
    if sample.metadata.get("language"):
        found["language"] = str(sample.metadata["language"])
    return found
