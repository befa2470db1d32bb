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
from evals.math_questions import cluster as cluster
from evals.math_questions import prompt as prompt
from evals.math_questions import question_slices, questions_loader
from evals.math_questions import score as score
from evals.math_questions import score_tokens as score_tokens
from evals.sources import answer_field
from lengthwise.records import Sample

VERSION = 1
TEMPERATURE = 0.0
MAX_TOKENS = None
DATA_FILE = "math500_test.jsonl"
HUB = "HuggingFaceH4/MATH-500"


def read_target(row: Mapping[str, Any]) -> str:
    """Return the reference answer of a row.

    Raises:
        ValueError: there is none.
    """
    return answer_field(row, "target", "answer")


load = questions_loader(("problem", "question"), read_target)


def slices(sample: Sample) -> dict[str, str]:
    """Return the budget, the level and the subject."""
    return question_slices(sample, "level", "subject")
