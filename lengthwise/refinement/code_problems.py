"""Programming problems as benchmarks have them: what is asked, tests that a solver may see, tests that decide.

A solver sees the public tests: the examples in the texts of HumanEval and APPS, MBPP's first test, and what a row
calls public. The verdict is by all tests of the benchmark, the public ones mostly among them. CYCLE (arXiv 2403.18746)
has the tests of the benchmark decide which programs are refined and with what feedback, so that what is measured is
partly told; who wants that asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lengthwise.refinement.code_examples import examples_of, shown_tests
from lengthwise.sandbox.code_tests import CallTest, StdioTest, Test
from lengthwise.sandbox.row_tests import read_tests


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeProblem:
    """A problem to be solved by a program."""

    text: str
    """What is asked, as a solver sees it."""
    preamble: str = ""
    """Code that the program may rely on: imports and functions that the text has before the one to write."""
    public: tuple[Test, ...] = ()
    """Tests that a solver may see."""
    hidden: tuple[Test, ...]
    """All tests that decide; no solver sees those of them that are not public."""
    solutions: tuple[str, ...] = ()
    """Right programs, where they are known."""
    name: str | None = None
    """The function to write, where the row says it."""

    @property
    def names(self) -> list[str]:
        """Return the functions that the program has to define, as far as that is known."""
        called = [test.name for test in (*self.public, *self.hidden) if isinstance(test, CallTest)]
        return list(dict.fromkeys([self.name, *called] if self.name else called))

    def whole(self, program: str) -> str:
        """Return a program with what it may rely on before it."""
        return f"{self.preamble.rstrip()}\n\n{program}" if self.preamble.strip() else program


def read_problem(row: Mapping[str, Any]) -> CodeProblem:
    """Return the problem of a row.

    Args:
        row: HumanEval's {prompt, entry_point, test}; MBPP's {prompt or text, test_list}; APPS' {question,
            input_output}; CodeContests' {description, public_tests, private_tests}; or ours, {prompt, tests} with
            `public_tests` and `solutions` where there are some, tests in any form of `lengthwise.sandbox.row_tests`.

    Raises:
        ValueError: saying what the row lacks.
    """
    if row.get("entry_point") and isinstance(row.get("test"), str):
        return _humaneval(row)
    if row.get("test_list"):
        return _mbpp(row)
    if row.get("input_output"):
        return _apps(row)
    if isinstance(row.get("public_tests"), Mapping) and "input" in row["public_tests"]:
        return _code_contests(row)
    if row.get("tests"):
        return CodeProblem(
            text=_text(row, "prompt"),
            public=tuple(read_tests(row["public_tests"])) if row.get("public_tests") else (),
            hidden=tuple(read_tests(row["tests"])),
            solutions=_programs(row.get("solutions")),
        )
    raise ValueError(
        "it is no programming problem: give prompt and tests, or the fields of HumanEval, MBPP, APPS or CodeContests"
    )


def describe_test(test: Test) -> str:
    """Return a test as a line that a reader understands.

    Example:
        >>> describe_test(CallTest(name="f", args=[2, "a"], expected=[4]))
        "f(2, 'a') should return [4]"
    """
    if isinstance(test, CallTest):
        return f"{test.name}({', '.join(map(repr, test.args))}) should return {test.expected!r}"
    if isinstance(test, StdioTest):
        return f"for the input {test.stdin!r} the output should be {test.expected!r}"
    return test.code


def _humaneval(row: Mapping[str, Any]) -> CodeProblem:
    prompt, name = _text(row, "prompt"), str(row["entry_point"])
    start = prompt.rfind(f"def {name}(")
    if start < 0:
        raise ValueError(f"its prompt does not define {name!r}, its entry_point")
    canonical = row.get("canonical_solution")
    return CodeProblem(
        text=prompt,
        preamble=prompt[:start],
        public=tuple(examples_of(prompt[start:], name)),
        hidden=tuple(read_tests(f"{row['test']}\n\ncheck({name})")),
        solutions=(f"{prompt}{canonical}",) if canonical else (),
        name=name,
    )


def _mbpp(row: Mapping[str, Any]) -> CodeProblem:
    listed = row["test_list"]
    if not isinstance(listed, list):
        raise ValueError(f"its test_list is {str(listed)[:80]!r}: write a list of assertions")
    tests = [str(test) for test in listed]
    imports = row.get("test_imports") or row.get("test_setup_code") or []
    code = "\n".join([imports] if isinstance(imports, str) else imports)
    tests = [f"{code}\n{test}" if code.strip() else test for test in tests]
    return CodeProblem(
        text=f"{_text(row, 'prompt', 'text')}\nThe program must pass this test:\n{listed[0]}",
        public=tuple(read_tests(tests[:1])),
        hidden=tuple(read_tests(tests)),
        solutions=(str(row["code"]),) if row.get("code") else (),
    )


def _apps(row: Mapping[str, Any]) -> CodeProblem:
    tests = read_tests(row["input_output"])
    starter = row.get("starter_code") or ""
    text = _text(row, "question", "prompt")
    called = next((test.name for test in tests if isinstance(test, CallTest)), None)
    return CodeProblem(
        text=f"{text}\n\nThe program begins so:\n{starter}" if str(starter).strip() else text,
        public=shown_tests(text, tests) or tuple(examples_of(text, called) if called else ()),
        hidden=tuple(tests),
        solutions=_programs(row.get("solutions")),
    )


def _programs(value: Any) -> tuple[str, ...]:
    """Return the programs of a cell: none, one, a list, or a list as JSON text.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, str):
        value = [value]
    if value and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ValueError(f"its solutions are {str(value)[:80]!r}: write a list of programs")
    return tuple(program for program in value or () if program.strip())


def _code_contests(row: Mapping[str, Any]) -> CodeProblem:
    public, hidden = (
        tuple(StdioTest(stdin=i, expected=o) for name in names for i, o in _pairs(row.get(name)))
        for names in (("public_tests",), ("public_tests", "private_tests", "generated_tests"))
    )
    if not hidden:
        raise ValueError("it has no tests")
    known = row.get("solutions") or {}
    if isinstance(known, Mapping):
        programs = zip(known.get("language", ()), known.get("solution", ()), strict=True)
        solutions = tuple(program for language, program in programs if language == PYTHON3)
    else:
        solutions = _programs(known)
    return CodeProblem(
        text=_text(row, "description", "prompt"),
        public=public,
        hidden=hidden,
        solutions=solutions,
    )


PYTHON3 = 3
"""CodeContests' number of the language."""


def _pairs(value: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if value:
        yield from zip(value["input"], value["output"], strict=True)


def _text(row: Mapping[str, Any], *names: str) -> str:
    for name in names:
        if isinstance(row.get(name), str) and row[name].strip():
            return row[name]
    raise ValueError(f"no text in {' or '.join(names)}")
