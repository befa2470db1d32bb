r"""MATH-500: the test questions of MATH (arXiv 2103.03874) that PRM800K (2305.20050) held out.

Sources have the published fields {problem, solution, answer, subject, level, unique_id}. Metrics, prompt and budgets:
`evals.math_questions`; slices are level (1 to 5) and subject. The default is greedy and lets the model write until
the context is full: a chain of thought that is cut has no answer. 500 questions tell two models apart from
about 4 points on; with several replies to each (`num_samples`, a temperature) pass@k is given too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.math_questions import METRICS as METRICS
from evals.math_questions import BudgetForm, load_questions, question_slices
from evals.math_questions import cluster as cluster
from evals.math_questions import prompt as prompt
from evals.math_questions import score as score
from evals.math_questions import score_tokens as score_tokens
from evals.sources import Entry, answer_field
from lengthwise.records import Sample

VERSION = 1
TEMPERATURE = 0.0
MAX_TOKENS = None
DATA_FILE = "math500_test.jsonl"
HUB = "HuggingFaceH4/MATH-500"


def load(
    source: str | None,
    *,
    draw_seed: int = 0,
    budgets: list[int] | None = None,
    budget_form: BudgetForm = "exact",
    last_number: bool = False,
) -> list[Entry]:
    """Return the questions.

    Args:
        source: see `evals.sources.find_source`.
        draw_seed: not used.
        budgets: ask each question once for each of these numbers of tokens.
        budget_form: whether a budget is to be met or not to be passed.
        last_number: read the last number of a reply that names no answer, as lenient harnesses do.

    Raises:
        ConfigError: the data is not there, the whole of it is unreadable, or budgets are wrong.
    """
    return load_questions(
        source,
        ("problem", "question"),
        read_target,
        budgets=budgets,
        budget_form=budget_form,
        last_number=last_number,
    )


def read_target(row: Mapping[str, Any]) -> str:
    """Return the reference answer of a row.

    Raises:
        ValueError: there is none.
    """
    return answer_field(row, "target", "answer")


def slices(sample: Sample) -> dict[str, str]:
    """Return the budget, the level and the subject."""
    return question_slices(sample, "level", "subject")
