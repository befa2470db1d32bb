"""One step of refinement with feedback from execution (CYCLE, arXiv 2403.18746, section 3).

A request shows the problem, the latest faulty program and what its execution said, each line of both as a comment,
and asks for the whole program anew. Earlier attempts are not shown. Models that were trained on the request and models
that were not are asked alike, in training and in evaluation; it is worded by us, so that numbers compare with each
other and not to a decimal with the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.records import Message, Prompt
from lengthwise.refinement.code_problems import CodeProblem, describe_test
from lengthwise.sandbox.code_tests import Test
from lengthwise.sandbox.outcomes import Result
from lengthwise.templates import load_prompt

OPENING = "```python\n"
"""What a reply is made to begin with where the engine can: a program, not talk of one."""

_BAD, _FAILURE, _GOOD = "### Bad solution:", "### Execution failure:", "### Good solution:"
_MAX_FEEDBACK = 400
"""Characters of what an execution said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request for a program."""

    prompt: Prompt
    past: tuple[int, int] | None = None
    """Where the last turn has the faulty program, its feedback and their headings, in characters; None without."""


def request(problem: CodeProblem, program: str | None = None, feedback: str = "") -> Request:
    """Return the request for a program, or with a faulty `program` that for a better one."""
    asked = load_prompt("lengthwise.refinement", "code_task").render(task=problem.text.rstrip())
    if program is None:
        return Request(prompt=(Message(role="user", content=asked),))
    block = "\n".join([_BAD, commented(program), _FAILURE, commented(feedback)])
    text = f"{asked}\n\n{block}\n{_GOOD}"
    start = len(asked) + 2
    return Request(prompt=(Message(role="user", content=text),), past=(start, start + len(block)))


def commented(text: str) -> str:
    r"""Return a text with each line as a comment of Python.

    Example:
        >>> commented("def f():\n    return 1")
        '# def f():\n#     return 1'
    """
    return "\n".join(f"# {line}".rstrip() for line in text.strip("\n").splitlines())


def program_of(reply: str, *, opened: bool) -> str | None:
    r"""Return the program of a reply, None without one.

    Args:
        reply: what the model wrote.
        opened: whether it goes on from `OPENING`.

    Returns:
        The first fenced block, also one that does not close; where there is no fence, a reply that is Python itself.

    Example:
        >>> program_of("x = 1\n```\nThis sets x.", opened=True), program_of("Sure!\n```py\nx = 2\n```", opened=False)
        ('x = 1', 'x = 2')
    """
    if opened and not reply.lstrip().startswith("```"):
        text = reply.partition("\n```")[0]
        return text if text.strip() else None
    fenced = re.search(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*\n(.*?)(?:\n```|\Z)", reply, re.DOTALL)
    if fenced:
        return fenced.group(1) if fenced.group(1).strip() else None
    try:
        compile(reply, "reply", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return reply if "def " in reply or "print" in reply else None


def feedback_of(tests: Sequence[Test], results: Sequence[Result]) -> str | None:
    r"""Return what an execution said of the first test that did not pass; None where all passed or none was run.

    Example:
        >>> from lengthwise.sandbox.code_tests import CallTest
        >>> test = CallTest(name="f", args=[2], expected=4)
        >>> feedback_of([test], [Result(outcome="failed", isolation="process", detail="expected 4, found 5")])
        'f(2) should return 4\nexpected 4, found 5'
    """
    for test, result in zip(tests, results, strict=False):
        if result.passed is False:
            said = {
                "no_code": "no program was found in the reply",
                "timeout": f"it ran longer than {result.seconds:.0f} seconds",
                "memory": "it took more memory than allowed",
                "output_limit": "it wrote more output than allowed",
            }.get(result.outcome, result.detail or result.outcome)
            if result.outcome == "failed" and result.actual is not None:
                said = f"the output was {result.actual!r}"
            return f"{describe_test(test)}\n{said}"[:_MAX_FEEDBACK]
    return None
