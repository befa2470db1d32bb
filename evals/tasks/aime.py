r"""AIME and AMC questions, whose answers are whole numbers; sources {problem or question, answer or solution}.

Without data it reads the 30 questions of AIME 2024. Other years and AMC have the same fields: name them as `data`, with
a label. Metrics, prompt and budgets: `evals.math_questions`; the slice is the year, where it is known.

Thirty questions asked once cannot rank models: eleven checkpoints of one training run ranged from 26.7 to 40.0
(arXiv 2502.07374). Ask each several times (`num_samples: 16`, `sampling: {temperature: 0.6, top_p: 0.95}`), which gives
avg@k with its interval, and pass@k. The default is greedy and lets the model write until the context is full.
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
from lengthwise.answers import last_box
from lengthwise.records import Sample

VERSION = 1
TEMPERATURE = 0.0
MAX_TOKENS = None
DATA_FILE = "aime24_test.jsonl"
HUB = "HuggingFaceH4/aime_2024"


def read_target(row: Mapping[str, Any]) -> str:
    r"""Return the reference answer of a row; where it has none, the last box of its solution.

    Raises:
        ValueError: there is neither.

    Example:
        >>> read_target({"answer": 73}), read_target({"solution": r"So it is \boxed{204}."})
        ('73', '204')
    """
    solution = row.get("solution")
    boxed = last_box(solution) if isinstance(solution, str) else None
    return answer_field({**row, "solution": boxed}, "target", "answer", "Answer", "solution")


load = questions_loader(("problem", "question", "Problem"), read_target)


def slices(sample: Sample) -> dict[str, str]:
    """Return the budget and the year."""
    return question_slices(sample, "year")
