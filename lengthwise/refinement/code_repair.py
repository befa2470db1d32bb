"""One step of refinement with feedback from execution (CYCLE, arXiv 2403.18746, section 3).

A request shows the problem, the latest faulty program and what its execution said, each line of both as a comment,
and asks for the whole program anew. Earlier attempts are not shown. Models that were trained on the request and models
that were not are asked alike, in training and in evaluation; it is worded by us, so that numbers compare with each
other and not to a decimal with the paper's.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from lengthwise.records import Message, Prompt
from lengthwise.refinement.code_problems import CodeProblem, describe_test
from lengthwise.sandbox.code_tests import Test
from lengthwise.sandbox.outcomes import Result
from lengthwise.templates import load_prompt

OPENING = "```python\n"
"""What a reply is made to begin with where the engine can: a program, not talk of one."""

_BAD, _FAILURE, _GOOD = "### Bad solution:", "### Execution failure:", "### Good solution:"
_MAX_FEEDBACK = 400
"""Characters of a test, and of what an execution said of it."""
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+>")
"""Where an object lies: another place in each run, while a chain that goes on asks as it did."""
_FENCED = re.compile(
    r"^[ \t]*(```|~~~)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|(?=^[ \t]*\1\w)|\Z)", re.DOTALL | re.MULTILINE
)


def request(problem: CodeProblem, program: str | None = None, feedback: str = "") -> Prompt:
    """Return the request for a program, or with a faulty `program` that for a better one."""
    asked = load_prompt("lengthwise.refinement", "code_task").render(task=problem.text.rstrip())
    if program is None:
        return (Message(role="user", content=asked),)
    parts = [f"{asked}\n", _BAD, commented(program), _FAILURE, commented(feedback), _GOOD]
    return (Message(role="user", content="\n".join(parts)),)


def commented(text: str) -> str:
    r"""Return a text with each line as a comment of Python.

    Example:
        >>> commented("def f():\n    return 1")
        '# def f():\n#     return 1'
    """
    return "\n".join(f"# {line}".rstrip() for line in text.strip("\n").splitlines())


def program_of(reply: str, *, opened: bool, names: Sequence[str] = ()) -> str | None:
    r"""Return the program of a reply, None without one.

    Args:
        reply: what the model wrote.
        opened: whether it goes on from `OPENING`.
        names: functions that the program should define, where they are known.

    Returns:
        The first fenced block that defines one of the names, else the first one; it need not close. Where there is no
        fence, a reply that is Python itself.

    Example:
        >>> program_of("x = 1\n```\nThis sets x.", opened=True), program_of("Sure!\n```py\nx = 2\n```", opened=False)
        ('x = 1', 'x = 2')
    """
    text = reply.replace("\r\n", "\n")
    if opened and not text.lstrip().startswith("```"):
        text = OPENING + text
    blocks = [textwrap.dedent(block).rstrip("\n") for _, block in _FENCED.findall(text)]
    if blocks:
        defined = [
            b for b in blocks if any(re.search(rf"\b(?:def|class) {re.escape(n)}\b", b) for n in names)
        ]
        found = (defined or blocks)[0]
        return found if found.strip() else None
    return text if is_python(text) and ("def " in text or "print" in text) else None


def is_python(text: str) -> bool:
    """Tell whether a text parses as a program.

    Example:
        >>> is_python("x = 1"), is_python("def f(:")
        (True, False)
    """
    try:
        compile(text, "reply", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return False
    return True


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
                "timeout": "it ran out of time",
                "memory": "it took more memory than allowed",
                "output_limit": "it wrote more output than allowed",
            }.get(result.outcome, result.detail or result.outcome)
            if result.outcome == "failed" and result.actual is not None:
                said = f"the output was {result.actual!r}"
            said = _ADDRESS.sub("at 0x...>", said)
            return f"{shortened(describe_test(test))}\n{said[:_MAX_FEEDBACK]}"
    return None


def shortened(text: str, length: int = _MAX_FEEDBACK) -> str:
    """Return a text of at most `length` characters, with its middle left out where it is longer.

    Example:
        >>> shortened("a long story without an end", 15)
        'a lon ... n end'
    """
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[: length - 5 - half].rstrip()} ... {text[-half:].lstrip()}"
