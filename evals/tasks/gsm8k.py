r"""GSM8K (arXiv 2110.14168): grade-school word problems; sources {question, answer}, the answer after `####`.

Metrics, prompt and budgets: `evals.math_questions`. A reply that ends with `#### n`, as the data does, is read as well
as a box. Asked without examples, while published scores often rest on eight, so they do not compare to a
decimal. The default is greedy and lets the model write until the context is full: a chain of thought that is cut
has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.math_questions import METRICS as METRICS
from evals.math_questions import cluster as cluster
from evals.math_questions import prompt as prompt
from evals.math_questions import question_slices, questions_loader
from evals.math_questions import score as score
from evals.math_questions import score_tokens as score_tokens
from evals.sources import answer_field
from lengthwise.answers import gsm8k_answer
from lengthwise.records import Sample

VERSION = 1
TEMPERATURE = 0.0
MAX_TOKENS = None
DATA_FILE = "gsm8k_test.jsonl"
HUB = "openai/gsm8k/main:test"


def read_target(row: Mapping[str, Any]) -> str:
    """Return the number after `####` of a solution, or the number that `target` or `answer` is.

    Raises:
        ValueError: there is none.

    Example:
        >>> read_target({"answer": "16 - 4 = 12, twice that is 24. #### 24"})
        '24'
    """
    answer = answer_field(row, "target", "answer")
    return answer if len(answer.split()) == 1 else gsm8k_answer(answer)


load = questions_loader(("question",), read_target)


def slices(sample: Sample) -> dict[str, str]:
    """Return the budget."""
    return question_slices(sample)
