"""The reward `code_tests`: what a program is worth, and when none is run."""

from __future__ import annotations

import json

import pytest

from lengthwise.config import ConfigError
from lengthwise.sandbox.code_tests import AssertTest, CallTest, StdioTest
from lengthwise.sandbox.outcomes import Result
from lengthwise.sandbox.row_tests import read_tests
from posttrain.rewarded import Rewarded, trl_reward
from posttrain.rewards import code_tests

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
RIGHT = "Here:\n```python\ndef add(a, b):\n    return a + b\n```"
HALF = RIGHT.replace("a + b", "3")


def worth(text: str, *, is_cut: bool = False, tests=TESTS, **options) -> float | None:
    config = code_tests.Config(allow_code_execution=True, **options)
    return code_tests.score(Rewarded(text=text, num_tokens=9, is_cut=is_cut, row={"tests": tests}), config)


@pytest.mark.parametrize(
    ("text", "known", "value"),
    [
        (RIGHT, {}, 1.0),
        (HALF, {}, 0.0),
        (HALF, {"all_or_nothing": False}, 0.5),
        ("no program", {}, 0.0),
        (RIGHT, {"is_cut": True}, 0.0),
        (f"<think>{RIGHT}</think>None.", {}, 0.0),
        (f"<think>{HALF}</think>{RIGHT}", {}, 1.0),
        (HALF, {"tests": TESTS[:1] * 30, "max_tests": 3}, 1.0),
    ],
)
def test_what_a_program_is_worth(text, known, value):
    assert worth(text, **known) == value


def test_a_fault_of_the_sandbox_is_no_zero(monkeypatch):
    found = [
        Result(outcome="passed", isolation="process"),
        Result(outcome="sandbox_error", isolation="process"),
    ]
    monkeypatch.setattr(code_tests.Sandbox, "run_many", lambda *a, **k: [found])
    assert worth(RIGHT) is None and worth(RIGHT, all_or_nothing=False) is None
    found.append(Result(outcome="failed", isolation="process"))
    assert worth(RIGHT) == 0.0 and worth(RIGHT, all_or_nothing=False) is None


def test_the_completions_of_a_step_are_scored_at_once():
    config = code_tests.Config(allow_code_execution=True)
    given = [Rewarded(text=text, num_tokens=9, row={"tests": TESTS}) for text in (RIGHT, HALF, "none", RIGHT)]
    assert code_tests.scores(given, config) == [1.0, 0.0, 0.0, 1.0]
    reward = trl_reward("code_tests", code_tests, config, stop_ids=[3])
    columns = {"tests": [TESTS] * 3}
    texts = [RIGHT, HALF, RIGHT]
    assert reward(prompts=texts, completions=texts, completion_ids=[[3], [3], [4]], **columns) == [
        1.0,
        0.0,
        0.0,
    ]


def test_no_program_is_run_until_somebody_allows_it():
    with pytest.raises(ConfigError, match="allow_code_execution: true"):
        code_tests.Config()


def test_a_row_without_tests_is_named():
    config = code_tests.Config(allow_code_execution=True)
    with pytest.raises(ValueError, match="a row has no 'tests'"):
        code_tests.score(Rewarded(text=RIGHT, num_tokens=9), config)


@pytest.mark.parametrize(
    ("value", "tests"),
    [
        ("assert f(1)", [AssertTest(code="assert f(1)")]),
        (["assert f(1)", "assert f(2)"], [AssertTest(code="assert f(1)"), AssertTest(code="assert f(2)")]),
        (json.dumps(["assert f(1)"]), [AssertTest(code="assert f(1)")]),
        ([{"stdin": "1", "expected": "2"}], [StdioTest(stdin="1", expected="2")]),
        ([{"name": "f", "args": [1], "expected": 2}], [CallTest(name="f", args=[1], expected=2)]),
        ({"inputs": ["1"], "outputs": [["2", "3"]]}, [StdioTest(stdin="1", expected="2\n3")]),
        (
            {"inputs": [[1]], "outputs": [2], "fn_name": "f"},
            [CallTest(name="f", args=[1], expected=2, may_be_wrapped=True)],
        ),
        ([{"stdin": "1", "expected": "2", "code": None}], [StdioTest(stdin="1", expected="2")]),
        ("['assert f(1) == {2}']", [AssertTest(code="assert f(1) == {2}")]),  # as Python writes a list
        (
            "[{'name': 'f', 'args': (1, 2), 'expected': (3,)}]",
            [CallTest(name="f", args=[1, 2], expected=[3])],
        ),
        ("f(10**6)", [AssertTest(code="f(10**6)")]),
        ("if f(1) != 2: quit()", [AssertTest(code="if f(1) != 2: quit()")]),
        ("{'inputs': ['1'], 'outputs': ['2']}", [StdioTest(stdin="1", expected="2")]),
        (
            "def check(f):\n    assert f(1)\n\ncheck(f)",
            [AssertTest(code="def check(f):\n    assert f(1)\n\ncheck(f)")],
        ),
    ],
)
def test_forms_of_tests(value, tests):
    assert read_tests(value) == tests


@pytest.mark.parametrize("value",
    ["", [], None, 3, [{"stdin": "1"}], {"inputs": ["1"], "outputs": []}, "assert f(", [{"code": "x ="}],
     [{"name": "f", "args": None, "expected": 1}], {"inputs": [5], "outputs": [1], "fn_name": "f"},
     [{"name": "a b", "args": [], "expected": 1}], "f(1) == 2", "[f(1)] == [2]", ["print(f(1))"], "{'a': 1}",
     "is_prime(7) == True", ["import math"], "{[1]: 2}", "[{'name': 'f', 'args': [{1}], 'expected': {1: 2}}]"],
)  # fmt: skip
def test_what_is_no_test_is_refused(value):
    with pytest.raises(ValueError, match="test|inputs"):
        read_tests(value)
