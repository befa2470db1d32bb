r"""What the tasks of maths questions share: how they ask, how they score a reply, and L1's length budgets.

Such a task imports `METRICS`, `prompt`, `score`, `score_tokens` and `cluster` from here, and has a `read_target`, from
which `questions_loader` makes its `load`, and `slices` of its own.

A reply is asked to give its answer in `\boxed{}`; how that is read and compared, see `lengthwise.answers` and
`lengthwise.answer_equality`. Metrics: `accuracy`, the share of right answers, and `answered`, the share of replies
that state an answer at all, so that a model that is wrong and one that does not finish are told apart.

With the option `budgets` each question is asked once for each number of tokens ("Think for 512 tokens.", as L1,
arXiv 2503.04697, trains and asks). Of the generated tokens L, thoughts included, and the budget N there are then
`budget_deviation`, the mean of (L - N) / N; `budget_rmse`, the root of the mean of its square; and, for
`budget_form: max`, `within_budget`, the share with L <= N. The slice `budget` is the accuracy-length curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from evals.base import Metric, Score
from evals.sources import Entry, read_samples, row_sample, text_field
from lengthwise.answer_process import ComparisonFailed, compare_answers
from lengthwise.answers import final_answer
from lengthwise.config import ConfigError
from lengthwise.records import LengthTarget, Prompt, Sample, sample_id, user
from lengthwise.row_values import row_id

BudgetForm = Literal["exact", "max"]

METRICS = (
    Metric(name="accuracy", counter="tokens", summary="proportion", pass_at_k=True),
    Metric(name="answered", counter="tokens", summary="proportion"),
    Metric(name="budget_deviation", counter="tokens", higher_is_better=False),
    Metric(name="budget_rmse", counter="tokens", higher_is_better=False, summary="rmse"),
    Metric(name="within_budget", counter="tokens", summary="proportion"),
)
"""Those of the budgets have values where budgets were asked and the tokens are known."""


def questions_loader(
    fields: Sequence[str], read_target: Callable[[Mapping[str, Any]], str]
) -> Callable[..., list[Entry]]:
    """Return the `load` of a task.

    Args:
        fields: names the question may have, the first that is there is taken; other fields become metadata.
        read_target: returns a row's reference answer; raises ValueError where there is none.
    """

    def load(
        source: str | None,
        *,
        draw_seed: int = 0,
        budgets: list[int] | None = None,
        budget_form: BudgetForm = "exact",
        last_number: bool = False,
    ) -> list[Entry]:
        """Return the sample of each row of a source, or with `budgets` one for each of them.

        Args:
            source: see `evals.sources.find_source`.
            draw_seed: not used.
            budgets: ask each question once for each of these numbers of tokens.
            budget_form: whether a budget is to be met or not to be passed.
            last_number: read the last number of a reply that names no answer, as lenient harnesses do.

        Raises:
            ConfigError: the data is not there, the whole of it is unreadable, or budgets are wrong.
        """
        _check_budgets(budgets)

        def convert(row: Mapping[str, Any]) -> Sample | tuple[Sample, ...]:
            question, target = text_field(row, *fields), read_target(row)
            kept = {key: value for key, value in row.items() if key not in (*fields, "target")}
            kept |= {"last_number": last_number}
            if budgets is None:
                return row_sample(kept, question, None, target=target)
            question_id = row_id(row.get("id")) or sample_id(user(question))
            kept |= {"budget_form": budget_form, "question_id": question_id}
            return tuple(
                row_sample(
                    {**kept, "budget": budget, "id": f"{question_id}/{budget}"},
                    question,
                    _budget_length(budget, budget_form),
                    target=target,
                )
                for budget in budgets
            )

        return read_samples(source, convert)

    return load


def _check_budgets(budgets: Sequence[int] | None) -> None:
    if budgets is not None and (not budgets or min(budgets) < 1 or len(set(budgets)) < len(budgets)):
        raise ConfigError(
            f"budgets is {list(budgets)}: name one or more different numbers of tokens, each at least 1, "
            "for example [512, 1024, 2048, 3600]"
        )


def prompt(sample: Sample) -> Prompt:
    r"""Return the question, the form of the answer and, where there is one, the budget.

    Example:
        >>> print(prompt(Sample(id="1", messages=user("What is 2 + 2?")))[0].content)
        What is 2 + 2?
        <BLANKLINE>
        Work it out step by step, and write the final answer in \boxed{}.
    """
    text = f"{sample.instruction}\n\nWork it out step by step, and write the final answer in \\boxed{{}}."
    budget = sample.metadata.get("budget")
    if budget:
        limit = "at most " if sample.metadata.get("budget_form") == "max" else ""
        text += f" Think for {limit}{budget} tokens."
    return user(text)


def score(sample: Sample, text: str, finish_reason: str | None) -> Score:
    r"""Return whether a reply states the right answer; one that states none is wrong.

    Example:
        >>> dict(score(Sample(id="1", messages=user("2 + 2?"), target="4"), r"\boxed{4}", "stop").metrics)
        {'accuracy': 1.0, 'answered': 1.0}
    """
    if sample.target is None:
        raise ValueError(f"sample {sample.id} has no reference answer to compare with")
    answer = final_answer(text, last_number=bool(sample.metadata.get("last_number")))
    if answer is None:
        return Score(metrics={"accuracy": 0.0, "answered": 0.0})
    try:
        found = compare_answers(answer, sample.target)
    except ComparisonFailed as error:
        return Score(metrics={"answered": 1.0}, answer=answer, unscored={"accuracy": str(error)})
    notes = {} if found.note is None else {"verifier": found.note}
    return Score(metrics={"accuracy": float(found.same), "answered": 1.0}, answer=answer, notes=notes)


def score_tokens(sample: Sample, num_tokens: int | None) -> dict[str, float]:
    """Return how far the generated tokens are from the budget, in shares of it; empty without one.

    Example:
        >>> score_tokens(Sample(id="1", messages=(), metadata={"budget": 1000, "budget_form": "max"}), 750)
        {'budget_deviation': -0.25, 'budget_rmse': -0.25, 'within_budget': 1.0}
    """
    budget = sample.metadata.get("budget")
    if not budget or num_tokens is None:
        return {}
    deviation = (num_tokens - budget) / budget
    found = {"budget_deviation": deviation, "budget_rmse": deviation}
    if sample.metadata.get("budget_form") == "max":
        found["within_budget"] = float(num_tokens <= budget)
    return found


def question_slices(sample: Sample, *fields: str) -> dict[str, str]:
    """Return the budget and the named fields of the source, where there are any."""
    named = {name: sample.metadata.get(name) for name in ("budget", *fields)}
    return {name: str(value) for name, value in named.items() if value is not None and value != ""}


def cluster(sample: Sample) -> str | None:
    """Return the question that several budgets share; None where each is asked once."""
    shared = sample.metadata.get("question_id")
    return None if shared is None else str(shared)


def _budget_length(budget: int, form: BudgetForm) -> LengthTarget:
    if form == "max":
        return LengthTarget(max=budget, unit="tokens", relation="at_most")
    return LengthTarget.about(budget, "tokens")
