"""From a task to a program, back to a description, and what the two say differently (CyclePrompt).

CyclePrompt, by which GPT-4 went from 80.5 to 87.2 % on HumanEval, needs neither tests nor an execution: a program is
described by a model that sees nothing else, the description is compared with the task, and each difference becomes a
hint for the next program. Only its abstract was at hand: prompts, the number of cycles and the stop rule are ours.
Comments and docstrings, which would tell the task, are removed before a program is described; names are not. What is no
Python cannot be described.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.caller import Caller
from lengthwise.engines.base import Sampling
from lengthwise.judge import Judge, JudgeSettings, Unscored, judge_id
from lengthwise.records import Completion, Prompt, digest, user
from lengthwise.templates import load_prompt
from lengthwise.verdicts import Form

PACKAGE = "lengthwise.refinement"
FORM: Form = {"missing": None, "extra": None, "contradictory": None, "equivalent": ("yes", "no")}
_NOTHING = re.compile(
    r"(?:none|nothing|n/?a|no)?"
    r"|(?:none|nothing)(?: is| was)?(?: missing| extra| added| found| contradict\w*)"
    r"|no (?:differences?|contradictions?|missing \w+|extra \w+)"
)
"""What a judge writes where there is no difference; "No check for 0" and "Nothing is returned" are ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How a description differs from the task."""

    equivalent: bool
    hints: tuple[str, ...]
    """What is missing, too much or contradictory, in words; empty where both say the same."""

    @property
    def size(self) -> int:
        """How far apart the two are: 0, or the number of hints, 1 at least."""
        return 0 if self.equivalent else max(1, len(self.hints))


def bare_program(program: str) -> str | None:
    r"""Return a program without comments, docstrings and other texts that stand alone; None of what is no Python.

    Example:
        >>> print(bare_program('def f(n):\n    "Twice n."\n    return 2 * n  # easy'))
        def f(n):
            return 2 * n
    """
    try:
        tree = ast.parse(program)
        for node in ast.walk(tree):
            for name in ("body", "orelse", "finalbody"):
                body = getattr(node, name, None)
                if isinstance(body, list) and body:
                    kept = [statement for statement in body if not _is_text(statement)]
                    setattr(node, name, kept or ([ast.Pass()] if name == "body" else []))
        return ast.unparse(ast.fix_missing_locations(tree))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _is_text(statement: ast.AST) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def with_hints(prompt: Prompt, hints: Sequence[str]) -> Prompt:
    """Return a request with what an earlier program got wrong; without hints the request itself."""
    if not hints:
        return prompt
    text = load_prompt(PACKAGE, "code_hints").render(
        request=prompt[-1].content, hints="\n".join(f"- {hint}" for hint in hints)
    )
    return (*prompt[:-1], *user(text))


async def described(
    program: str, caller: Caller, *, number: int, attempt: int = 0, max_tokens: int = 512
) -> Completion:
    """Return what a model says a program does, greedily; it sees the bare program only.

    Raises:
        ValueError: the program is no Python.
        EngineError: the engine has no answer.
    """
    bare = bare_program(program)
    if bare is None:
        raise ValueError("the program is no Python")
    asked = user(load_prompt(PACKAGE, "code_describe").render(program=bare))
    sampling = caller.with_room(asked, Sampling(temperature=0.0, max_tokens=max_tokens))
    (reply,) = await caller(asked, sampling, step=f"describe_{number}", attempt=attempt)
    return reply


async def compared(
    task: str,
    description: Completion,
    caller: Caller,
    *,
    number: int,
    attempts: int = 3,
    chain: int = 0,
    max_tokens: int = 512,
) -> tuple[Difference | None, dict[str, Any]]:
    """Return how a description differs from a task by a model's verdict, and a note on it.

    There is none (None) where the judge gives none, and of a description that is empty or was cut. `max_tokens` are
    those of a verdict, a thinking part included.
    """
    if description.finish_reason != "stop" or not description.text.strip():
        is_cut = description.finish_reason != "stop"
        return None, {"verdict": None, "fault": "description cut" if is_cut else "description empty"}
    template = load_prompt(PACKAGE, "code_compare")
    settings = JudgeSettings(model=caller.model, name="judge", max_attempts=attempts, max_tokens=max_tokens)
    judge = Judge(id=judge_id("judge", [template]), settings=settings, caller=caller)
    mark = digest([task, description.text])[:8]
    asked = template.render(task=task, description=description.text.strip(), mark=mark)
    verdict = await judge.ask(user(asked), FORM, step=f"compare_{chain}_{number}")
    if isinstance(verdict, Unscored):
        return None, {"verdict": None, "fault": verdict.reason}
    found = read_difference(verdict.values)
    return found, {"equivalent": found.equivalent, "hints": list(found.hints)}


def read_difference(values: Any) -> Difference:
    """Return a verdict as a difference; "yes" beside named differences is no.

    Example:
        >>> read_difference({"missing": "None.", "extra": "it sorts", "contradictory": "", "equivalent": "yes"})
        Difference(equivalent=False, hints=('It does what was not asked: it sorts',))
    """
    titles = {
        "missing": "It lacks what was asked",
        "extra": "It does what was not asked",
        "contradictory": "It does something else than asked",
    }
    hints = tuple(
        f"{title}: {values[key].strip()}"
        for key, title in titles.items()
        if not _NOTHING.fullmatch(values[key].strip("\"'`*.() \n").lower())
    )
    return Difference(equivalent=values["equivalent"] == "yes" and not hints, hints=hints)
