"""The tests of a row of data, in the forms that data sets have them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lengthwise.sandbox.code_tests import AssertTest, CallTest, StdioTest, Test


def read_tests(value: Any) -> list[Test]:
    """Return the tests that a column holds.

    Args:
        value: a text of code with assertions (HumanEval's `test`, which is to call `check`, included); a list of such
            (MBPP's `test_list`); a list of maps {stdin, expected}, {name, args, expected} or {code}; a map of inputs
            and outputs, with fn_name where these are calls (APPS); or one of these as text, in JSON or as Python
            writes it.

    Raises:
        ValueError: it is none of these, or empty, or code that asserts and calls nothing.

    Example:
        >>> read_tests(["assert add(1, 2) == 3"])
        [AssertTest(code='assert add(1, 2) == 3')]
        >>> read_tests({"inputs": ["1 2"], "outputs": ["3"]})
        [StdioTest(stdin='1 2', expected='3')]
    """
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, str) and value.strip():
        return [_assertion(value)]
    if isinstance(value, Mapping):
        return _inputs_and_outputs(value) if "inputs" in value else [_single(value)]
    if isinstance(value, list) and value:
        return [_assertion(item) if isinstance(item, str) else _single(item) for item in value]
    raise ValueError(
        f"its tests are {str(value)[:80]!r}: write code with assertions, or maps with stdin and expected, or with "
        "name, args and expected"
    )


def _decoded(text: str) -> Any:
    """Return what a text stands for: a list or map in JSON or as Python writes it, else the text."""
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return _as_json(value)


def _as_json(value: Any) -> Any:
    """Return a Python value as JSON has it: tuples as lists.

    Raises:
        ValueError: JSON has nothing like it.
    """
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _as_json(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"its tests hold {str(value)[:80]!r}, which JSON has not: write such a test as an assertion"
    )


def _single(value: Any) -> Test:
    if isinstance(value, Mapping):
        keys = {key for key, item in value.items() if item is not None or key == "expected"}
        if "code" in keys and keys <= {"code", "expected"}:
            return _assertion(str(value["code"]))
        if keys == {"stdin", "expected"}:
            return StdioTest(stdin=_text(value["stdin"]), expected=_text(value["expected"]))
        if keys == {"name", "args", "expected"}:
            return _call(value["name"], value["args"], value["expected"])
    raise ValueError(
        f"a test is {str(value)[:80]!r}: it needs code, or stdin and expected, or name, args and expected"
    )


def _inputs_and_outputs(value: Mapping[str, Any]) -> list[Test]:
    inputs, outputs, name = value["inputs"], value.get("outputs"), value.get("fn_name")
    if (
        not isinstance(inputs, list)
        or not isinstance(outputs, list)
        or len(inputs) != len(outputs)
        or not inputs
    ):
        raise ValueError("its inputs and outputs are not two lists of one length")
    if name is None:
        return [StdioTest(stdin=_text(i), expected=_text(o)) for i, o in zip(inputs, outputs, strict=True)]
    return [_call(name, i, o, may_be_wrapped=True) for i, o in zip(inputs, outputs, strict=True)]


def _call(name: Any, args: Any, expected: Any, *, may_be_wrapped: bool = False) -> CallTest:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"a test calls {name!r}, which is no name of a function")
    if not isinstance(args, list):
        raise ValueError(f"a test's args are {str(args)[:80]!r}: write a list, one item for each argument")
    return CallTest(name=name, args=args, expected=expected, may_be_wrapped=may_be_wrapped)


def _assertion(code: str) -> AssertTest:
    try:
        tree = ast.parse(code)
        compile(tree, "test", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"a test is no Python: {error}: {code[:80]!r}") from None
    if all(map(_says_nothing, tree.body)):
        raise ValueError(f"a test asserts nothing, so that every program passes it: {code[:80]!r}")
    return AssertTest(code=code)


_BESIDE = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.Pass,
)


def _says_nothing(statement: ast.stmt) -> bool:
    """Tell whether a statement is no test by itself: a definition, a value that nobody looks at, a print."""
    if not isinstance(statement, ast.Expr):
        return isinstance(statement, _BESIDE)
    call = statement.value
    return not isinstance(call, ast.Call) or (isinstance(call.func, ast.Name) and call.func.id == "print")


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
