"""The builder of long chains of thought, with a scripted teacher: every way an answer can end, and what rows hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.long_cot import Config, read_level, rewriting_fault, right_answer
from data_builders.run import main
from data_builders.thoughts import Thought, read_thought
from lengthwise.config import ConfigError
from lengthwise.records import Sample, user
from lengthwise.sandbox.code_tests import AssertTest

TEACHER = '''
"""Answers by what the question asks for."""
import re

LONG = "We add. " + " ".join(f"Step {i}." for i in range(30))


def reply(prompt, sampling, draw):
    asked = prompt[-1].content
    if "How hard" in asked:
        return "Hm. [[" + ("9" if "olympian" in asked else "3") + "]]"
    if "word for word" in asked:
        answer = asked.rpartition("Answer:")[2].strip()
        if "garble" in asked:
            answer = "Something else. Entirely \\\\boxed{4}"
        if "unmarked" in asked:
            return answer
        head, _, tail = answer.partition(". ")
        return f"<|begin_of_thought|>{head}.<|end_of_thought|><|begin_of_solution|>{tail}<|end_of_solution|>"
    kinds = re.search(r"kinds: ([a-z_, ]+)", asked)[1].strip().split(", ")
    reply.turn = getattr(reply, "turn", -1) + 1
    return {
        "right": "<think>2 and 2. Wait, yes.</think>It is \\\\boxed{4}",
        "long": f"<think>{LONG}</think>It is \\\\boxed{{4}}",
        "wrong": "<think>No.</think>It is \\\\boxed{5}",
        "silent": "<think>No.</think>I do not know",
        "plain": "Two and two. It is \\\\boxed{4}",
        "loop": "<think>" + "it is four and then it is four and so on again and " * 30 + "</think>\\\\boxed{4}",
        "open": "<think>it goes on and on",
    }[kinds[reply.turn % len(kinds)]]
'''


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a function that builds one row for each question, asked in turn."""
    monkeypatch.syspath_prepend(tmp_path)
    number = 0

    def run(*questions: str, options: dict[str, Any] | None = None, code: int = 0, **engine: Any):
        nonlocal number
        number += 1
        name = f"teacher_{tmp_path.name}_{number}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(TEACHER)
        data, folder = tmp_path / f"{name}.jsonl", tmp_path / name / "run"
        rows = [{"id": f"q{i}", "question": q, "answer": "2 + 2 = 4 #### 4"} for i, q in enumerate(questions)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        method = {"name": "long_cot", "ask": "plain", **(options or {})}
        responder = {"name": "scripted", "responder": f"{name}:reply", **engine}
        assert (
            main(
                [f"--builder={json.dumps(method)}", "--model=m", f"--engine={json.dumps(responder)}",
                 f"--data={data}", "--prompt_column=question", "--min_kept_frac=0", f"--output_dir={folder}",
                 "--max_concurrent_samples=1"]
            )
            == code
        )  # fmt: skip
        if code:
            return [], {}
        return read(folder / "data.jsonl"), {row["id"]: row for row in read(folder / "dropped.jsonl")}

    return run


def test_a_right_answer_becomes_a_row(build):
    kept, dropped = build("2 + 2? kinds: right")
    (row,) = kept
    assert not dropped and row["messages"][-1]["content"] == (
        "<think>\n2 and 2. Wait, yes.\n</think>\n\nIt is \\boxed{4}"
    )
    assert row["answer"] == "4" and row["scores"] == {"solve_rate": 1.0, "difficulty": None}
    assert row["finish_reason"] == "stop" and row["lineage"] == ["long_cot"] and len(row["calls"]) == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong", "wrong answer"),
        ("silent", "no answer"),
        ("plain", "thought: not marked"),
        ("open", "thought: never ends"),
        ("loop", "repetition"),
    ],
)
def test_what_is_no_row_says_why_and_keeps_its_text(build, kind, reason):
    kept, dropped = build(f"2 + 2? kinds: {kind}")
    assert not kept and dropped["q0"]["reason"] == reason
    assert dropped["q0"]["attempts"][0]["text"]


def test_a_cut_answer_is_never_a_row(build):
    kept, dropped = build("2 + 2? kinds: right", options={"max_tokens": 3})
    assert not kept and dropped["q0"]["reason"] == "cut"
    assert dropped["q0"]["attempts"][0]["finish_reason"] == "length"


def test_of_several_the_shortest_right_one_is_the_row_and_all_are_kept(build):
    options = {"num_answers": 4, "temperature": 1.0}
    (row,), _ = build("2 + 2? kinds: long, wrong, right, silent", options=options)
    assert "Wait, yes" in row["messages"][-1]["content"] and row["scores"]["solve_rate"] == 0.5
    assert sorted(str(a["fault"]) for a in row["attempts"]) == ["None", "None", "no answer", "wrong answer"]
    (row,), _ = build("2 + 2? kinds: long, wrong, right, silent", options={**options, "keep": "first"})
    first = next(a for a in row["attempts"] if a["fault"] is None)
    assert row["messages"][-1]["content"] == first["text"]


def test_rewriting_marks_what_the_teacher_did_not(build):
    (row,), _ = build("2 + 2? kinds: plain", options={"thinking": "rewritten", "marks": "sky_t1"})
    text = row["messages"][-1]["content"]
    assert read_thought(text) == Thought("Two and two.", "It is \\boxed{4}") and text.startswith("<|begin")
    assert row["attempts"][0]["rewritten"] and [c["step"] for c in row["calls"]] == ["answer", "rewrite"]
    assert row["messages"][0]["role"] == "system" and "begin_of_thought" in row["messages"][0]["content"]


@pytest.mark.parametrize(
    ("word", "reason"), [("garble", "rewriting: other words"), ("unmarked", "rewriting: not marked")]
)
def test_a_rewriting_that_changes_the_text_is_no_row(build, word, reason):
    kept, dropped = build(f"{word} 2 + 2? kinds: plain", options={"thinking": "rewritten"})
    assert not kept and dropped["q0"]["reason"] == reason


def test_a_rewriting_keeps_words_and_answer():
    config, before = Config(), "Two and two makes four, as anyone can see. It is \\boxed{4}"
    assert (
        rewriting_fault(
            before, Thought("Two and two makes four, as anyone can see.", "It is \\boxed{4}"), config
        )
        is None
    )
    assert rewriting_fault(before, Thought("Two", "It is \\boxed{4}"), config) == "rewriting: other words"
    changed = Thought("Two and two makes four, as anyone can see.", "It is \\boxed{5}")
    assert rewriting_fault(before, changed, Config(min_overlap=0.5)) == "rewriting: another answer"


def test_without_thinking_an_answer_is_its_solution(build):
    (row,), _ = build("2 + 2? kinds: plain", options={"thinking": "none"})
    assert row["messages"][-1]["content"] == "Two and two. It is \\boxed{4}"


def test_problems_out_of_range_are_not_asked(build):
    options = {"difficulty": [2, 5]}
    kept, dropped = build("2 + 2? kinds: right", "an olympian 2 + 2? kinds: right", options=options)
    assert [row["id"] for row in kept] == ["q0"] and kept[0]["scores"]["difficulty"] == 3
    assert dropped["q1"]["reason"] == "difficulty: out of range" and len(dropped["q1"]["calls"]) == 1


def test_the_boxed_question_is_what_the_row_asks(build):
    (row,), _ = build("2 + 2? kinds: right", options={"ask": "boxed"})
    assert "\\boxed{}" in row["messages"][0]["content"] and row["messages"][0]["content"].startswith("2 + 2?")


def test_programs_are_rows_if_they_pass_their_tests(build, monkeypatch):
    options = {"tests_column": "answer", "thinking": "none"}
    build("2 + 2? kinds: plain", options=options, code=2)
    options["allow_code_execution"] = True
    program = "def four():\n    return {}\n"
    monkeypatch.setattr("data_builders.long_cot.last_code_block", lambda text: program.format(4))
    monkeypatch.setattr(
        "data_builders.long_cot.read_tests", lambda value: [AssertTest(code="assert four() == 4")]
    )
    (row,), _ = build("2 + 2? kinds: plain", options=options)
    assert row["attempts"][0]["answer"].startswith("1 tests passed")
    monkeypatch.setattr("data_builders.long_cot.last_code_block", lambda text: program.format(5))
    kept, dropped = build("2 + 2? kinds: plain", options=options)
    assert not kept and dropped["q0"]["attempts"][0]["answer"] == "failed: assertion in line 1 of the test: "


def test_an_engine_that_fails_is_no_fault_of_the_problem(build):
    kept, dropped = build(*(f"{i} 2 + 2? kinds: right" for i in range(12)), options={}, faults={"error": 0.4})
    assert (
        kept and {row["outcome"] for row in dropped.values()} == {"failed"} and len(kept) + len(dropped) == 12
    )


def test_a_row_without_an_answer_is_refused(build, tmp_path):
    kept, dropped = build("2 + 2? kinds: right", options={"answer_column": "gold"})
    assert not kept and dropped["q0"]["reason"] == "input: no answer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_answers": 0}, "num_answers is 0"),
        ({"num_answers": 2}, "temperature is 0, at which all answers"),
        ({"difficulty": [5]}, "difficulty is"),
        ({"difficulty": [5, 2]}, "difficulty is"),
        ({"min_overlap": 2}, "min_overlap is 2"),
    ],
)
def test_what_cannot_give_a_row_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(**options)


def test_levels():
    assert [read_level(t) for t in ("x [[3]] y [[4.5]]", "[7]", "[[0]]", "[[x]]")] == [4.5, 7.0, None, None]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("2 + 2 = 4 #### 4", "4"),
        ("nothing ####", None),
        ("So it is \\boxed{\\frac{1}{2}}, as we saw.", "\\frac{1}{2}"),
        ("4", "4"),
        (4, "4"),
        ("  ", None),
        (None, None),
    ],
)
def test_the_right_answer_of_a_row(value, answer):
    sample = Sample(id="a", messages=user("?"), metadata={"answer": value})
    assert right_answer(sample, Config()) == answer


def test_a_row_without_a_question_is_refused(build):
    kept, dropped = build(" ")
    assert not kept and dropped["q0"]["reason"] == "input: no question"
