"""Tests that the text of a problem shows: doctests, calls with a sign and a value, inputs with their outputs."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lengthwise.sandbox.code_tests import AssertTest, CallTest, StdioTest, Test

_SIGNS = re.compile(r"^\s*(?:==>|==|=>|->|➞|=|returns?\b|should return\b)\s*(.+)$")
"""What stands between a call and its value in the examples of a text."""
_HEADING = re.compile(
    r"^\W*(?:(?:sample|example|expected)s?\s*)?(input|output)s?(?:\s+for\s+(?:the\s+)?(?:sample|example)\s+input)?"
    r"(?:\s*(?:#|no\.?)?\s*\d+)?\s*(?::\**(?P<here>.*)|\W*)$",
    re.IGNORECASE,
)
"""A line that is or begins with the heading of an example's input or output: `-----Sample Input-----`, `Output: 4`."""
_OTHER_HEADING = re.compile(
    r"^\s*-{3,}.*-{3,}\s*$|^\W*(?:Explanation|Note|Example|EXPLANATION|NOTE|EXAMPLE)[sS]?\b[^:]{0,20}:?\W*$"
)


def examples_of(text: str, name: str) -> list[Test]:
    r"""Return the examples of a text that call a function: doctest's, and lines with a call, a sign and a value.

    Example:
        >>> found = examples_of("f(2) == 4\nfor f(3) we get 9\nf(4)  ➞ 16 # squares", "f")
        >>> [(test.args, test.expected) for test in found]
        [([2], 4), ([4], 16)]
    """
    found: dict[str, Test] = {}
    for call, value in [*_doctests(text), *_lines(text, name)]:
        test = _example(call, value, name)
        if test is not None:
            found.setdefault(call, test)
    return list(found.values())


def shown_tests(text: str, tests: Sequence[Test]) -> tuple[Test, ...]:
    r"""Return those tests of input and output that a text shows: an input under its heading, then its output.

    Words alone do not show a test: a text of numbers has most short inputs and outputs somewhere.

    Example:
        >>> text = "Print 0 for 1.\n-----Sample Input-----\n2\n-----Sample Output-----\n4\n"
        >>> shown_tests(text, [StdioTest(stdin="1", expected="0"), StdioTest(stdin="2\n", expected="4\n")])
        (StdioTest(stdin='2\n', expected='4\n'),)
    """
    shown = _inputs_with_outputs(text)
    found = []
    for test in tests:
        if isinstance(test, StdioTest):
            given, expected = test.stdin.split(), test.expected.split()
            if expected and any(i == given and o[: len(expected)] == expected for i, o in shown):
                found.append(test)
    return tuple(found)


def _inputs_with_outputs(text: str) -> list[tuple[list[str], list[str]]]:
    """Return the words under each heading of an input and under that of the output which follows it at once."""
    sections: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            sections.append((heading[1].lower(), _words_of(heading["here"] or "")))
        elif _OTHER_HEADING.match(line):
            sections.append(("", []))
        elif sections and not line.lstrip().startswith("```"):
            sections[-1][1].extend(_words_of(line))
    return [
        (one, two) for (kind, one), (after, two) in pairwise(sections) if (kind, after) == ("input", "output")
    ]


def _words_of(line: str) -> list[str]:
    return line.replace("-----", " ").split()


def _doctests(text: str) -> list[tuple[str, str]]:
    try:
        found = doctest.DocTestParser().get_examples(text)
    except ValueError:  # examples that are not indented alike
        return []
    return [(example.source.strip(), example.want.strip()) for example in found]


def _lines(text: str, name: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        if ">>>" in line or line.lstrip().startswith("def "):
            continue
        for start in (match.start() for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", line)):
            found += _call_at(line, start)
    return found


def _call_at(line: str, start: int) -> list[tuple[str, str]]:
    """Return the call that begins at a place of a line with what stands behind its sign; nothing without a sign."""
    for end in (i + 1 for i, sign in enumerate(line) if sign == ")" and i > start):
        match = _SIGNS.match(line[end:])
        if match and _parsed(line[start:end]) is not None:
            return [(line[start:end], match.group(1).strip())]
    return []


def _example(call: str, value: str, name: str) -> Test | None:
    """Return the test of a call whose value can be read; None of any other."""
    tree, expected = _parsed(call), _literal(value)
    if tree is None or expected is _NOTHING or not isinstance(tree, ast.Call):
        return None
    if not isinstance(tree.func, ast.Name) or tree.func.id != name:
        return None
    if any(isinstance(node, ast.Name) and node is not tree.func for node in ast.walk(tree)):
        return None  # f(n): what n is only the text says
    args = [_literal(ast.unparse(arg)) for arg in tree.args]
    if not tree.keywords and _NOTHING not in args and all(map(_is_json, [*args, expected])):
        return CallTest(name=name, args=args, expected=expected)
    return AssertTest(code=f"assert {call} == {expected!r}")


_NOTHING = object()


def _literal(text: str) -> Any:
    """Return the value that a text begins with; a full stop, a comment or a word may follow."""
    text = text.strip().removesuffix(".")
    for end in sorted({len(text), *(m.start() for m in re.finditer(r"[\s#;]|\.(?!\d)", text))}, reverse=True):
        value = text[:end].strip().rstrip(",;")  # "1, then": a comma ends the value and makes no tuple
        if re.match(r"\s*[-+*/%=]", text[end:]):  # 19 - 5 - 6 = 8
            continue
        try:
            return ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return _NOTHING


def _parsed(code: str) -> ast.expr | None:
    try:
        return ast.parse(code, mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _is_json(value: Any) -> bool:
    """Tell whether JSON gives a value back, a tuple as a list."""
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    return value is None or isinstance(value, bool | int | float | str)
