"""CyclePrompt: what is read back, what becomes a hint, which program is chosen; and the filter by reading back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.run import main as build_main
from evals.run import main as eval_main
from evals.tasks.cycle_prompt import nearest
from lengthwise.records import Attempt, user
from lengthwise.refinement.code_cycle import Difference, bare_program, read_difference, with_hints

MODEL = r'''
"""Writes, describes and compares by the kind in the text; a program carries its number of hints."""
import json
import re
from pathlib import Path


def reply(prompt, sampling, draw):
    asked = prompt[0].content
    with Path(__file__).with_suffix(".prompts").open("a") as file:
        file.write(asked)
    if "say what task it solves" in asked:
        program = asked.partition("```python")[2].partition("```")[0]
        kind, hints = re.search(r"KIND = '(\w+)'\nHINTS = (\d+)", program).groups()
        return f"It holds {kind} with {hints}"
    if "Compare them by meaning" in asked:
        kind, hints = re.search(r"It holds (\w+) with (\d+)", asked).groups()
        if kind == "mute":
            return "no verdict"
        done = int(hints) >= {"right": 0, "second": 1}.get(kind, 9)
        lacks = "none" if done else f"point {0 if kind == 'stuck' else hints}"
        extra = "and more" if kind == "worse" and hints != "0" else "none"
        same = "yes" if lacks == extra == "none" else "no"
        return json.dumps({"missing": lacks, "extra": extra, "contradictory": "none", "equivalent": same})
    kind, hints = re.search(r"kind: (\w+)", asked)[1], asked.count("\n- ")
    hints = 0 if kind == "same" else hints
    if kind == "broken":
        good = "KIND = 'right'\nHINTS = 0\ndef f(n):\n    return 2 * n"
        return good if hints else '"It doubles."\ndef f(n: return 2 *'
    good = kind in ("right", "mute") or (kind == "second" and hints >= 1) or (kind == "worse" and hints == 0)
    program = f"# a comment\ndef f(n):\n    return {'2 *' if good else ''} n"
    return f"KIND = '{kind}'\nHINTS = {hints}\n{program}\n```"
'''


@pytest.fixture
def engine(tmp_path, monkeypatch) -> str:
    name = f"cycler_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return json.dumps(
        {"name": "scripted", "responder": f"{name}:reply", "request_log": str(tmp_path / "log")}
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluate(
    tmp_path: Path, engine: str, *kinds: str, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = [
        {
            "id": kind,
            "prompt": f"Write f, which doubles. kind: {kind}",
            "public_tests": [{"name": "f", "args": [1], "expected": 2}],
            "tests": [{"name": "f", "args": [7], "expected": 14}],
        }
        for kind in kinds
    ]
    data, folder = tmp_path / "problems.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "name": "cycle_prompt",
        "data": str(data),
        "allow_code_execution": True,
        "max_cycles": 2,
        **options,
    }
    arguments = [f"--tasks={json.dumps([task])}", "--model=m", f"--engine={engine}", f"--output_dir={folder}"]
    assert eval_main(arguments) == 0
    found = {row["id"]: row for row in read(next(folder.glob("samples_*.jsonl")))}
    return found, json.loads(next(folder.glob("results_*.json")).read_text())


def test_each_chain_ends_where_it_should_and_the_nearest_program_is_chosen(tmp_path, engine):
    kinds = ("right", "second", "never", "worse", "stuck", "mute")
    rows, results = evaluate(tmp_path, engine, *kinds)
    drafts = {k: sum(a["kind"] == "draft" for a in row["attempts"]) for k, row in rows.items()}
    assert drafts == {"right": 1, "second": 2, "never": 3, "worse": 3, "stuck": 2, "mute": 1}
    scores = {k: [row["metrics"][m] for m in ("first", "chosen", "last")] for k, row in rows.items()}
    assert scores == {
        "right": [1, 1, 1], "second": [0, 1, 1], "never": [0, 0, 0], "worse": [1, 1, 0], "stuck": [0, 0, 0],
        "mute": [1, 1, 1],
    }  # fmt: skip
    ended = {k: row["slices"]["ended"] for k, row in rows.items()}
    assert ended == {
        "right": "equivalent", "second": "equivalent", "never": "all cycles", "worse": "all cycles",
        "stuck": "no new hint", "mute": "no verdict",
    }  # fmt: skip
    assert [k for k, row in rows.items() if row["metrics"]["ended_early"]] == ["mute"]
    # Only chains that ended in "equivalent" tell how far that can be trusted.
    told = {k for k, row in rows.items() if "passed_if_equivalent" in row["metrics"]}
    assert told == {"right", "second"}
    assert [p["value"] for p in results["rounds"]["cycle_prompt"]["passed"]["rounds"]] == [
        0.5,
        4 / 6 - 1 / 6,
        4 / 6 - 1 / 6,
    ]
    assert results["rounds"]["cycle_prompt"]["passed"]["rounds"][1]["worsened"] == 1


def test_a_chain_that_writes_the_same_again_says_how_it_ended(tmp_path, engine):
    rows, _ = evaluate(tmp_path, engine, "same")
    texts = [a["text"] for a in rows["same"]["attempts"] if a["kind"] == "draft"]
    assert len(texts) == 2 and len(set(texts)) == 1
    assert rows["same"]["slices"]["ended"] == "no new hint"


def test_tokens_and_calls_of_a_chain_are_all_counted(tmp_path, engine):
    rows, _ = evaluate(tmp_path, engine, "second")
    row = rows["second"]
    assert row["metrics"]["num_calls"] == 6  # two programs, each described and compared
    assert row["total_tokens"] == sum(attempt["num_tokens"] for attempt in row["attempts"])
    first = [attempt["num_tokens"] for attempt in row["attempts"][:3]]  # program, description, comparison
    assert row["metrics"]["tokens_round_0"] == sum(first) and all(first)
    assert row["metrics"]["tokens_round_1"] == row["metrics"]["tokens_round_2"] == row["total_tokens"]
    assert row["metrics"]["num_tokens"] == row["total_tokens"] > row["num_tokens"]


def test_a_program_that_is_none_is_not_read_back_and_gets_a_hint(tmp_path, engine):
    rows, _ = evaluate(tmp_path, engine, "broken", max_cycles=1)
    row = rows["broken"]
    assert [a["kind"] for a in row["attempts"]][:2] == ["draft", "draft"] and row["metrics"]["first"] == 0
    said = next(tmp_path.glob("cycler*.prompts")).read_text()
    assert "no valid Python" in said and "say what task it solves" not in said.partition("no valid Python")[0]


def test_a_description_that_was_cut_is_compared_with_nothing(tmp_path, engine):
    rows, _ = evaluate(tmp_path, engine, "never", max_description_tokens=2)
    notes = [a["note"] for a in rows["never"]["attempts"] if a["kind"] == "comparison"]
    assert [note["fault"] for note in notes] == ["description cut"]
    assert rows["never"]["slices"]["ended"] == "no verdict" and rows["never"]["metrics"]["ended_early"] == 1
    assert "passed_if_equivalent" not in rows["never"]["metrics"]


def test_no_test_is_in_any_prompt(tmp_path, engine):
    evaluate(tmp_path, engine, "never")
    said = next(tmp_path.glob("cycler*.prompts")).read_text()
    assert "Write f" in said and "f(7)" not in said and "should return" not in said


def test_the_reader_sees_no_comment_and_no_docstring():
    program = 'def f(n):\n    """Twice n."""\n    # doubling\n    return 2 * n'
    assert bare_program(program) == "def f(n):\n    return 2 * n"
    assert bare_program('class A:\n    "Only words."') == "class A:\n    pass"
    twice = 'def f(n):\n    """Twice n."""\n    "more"\n    return 2 * n'
    assert bare_program(twice) == "def f(n):\n    return 2 * n"


@pytest.mark.parametrize(
    "program", ['def f(n):\n    """Twice n."""\n    return 2 * (', "x = 1" + " + 1" * 5000]
)
def test_what_cannot_be_parsed_is_not_described_by_its_docstring(program: str):
    assert bare_program(program) is None


@given(st.text())
def test_no_text_breaks_the_reader(text: str):
    bare = bare_program(text)
    assert bare is None or '"""' not in bare


def test_a_yes_beside_a_named_difference_is_no():
    verdict = {"missing": "None.", "extra": "none", "contradictory": "", "equivalent": "yes"}
    assert read_difference(verdict) == Difference(equivalent=True, hints=())
    assert read_difference({**verdict, "missing": "the empty list"}).equivalent is False
    vague = read_difference({**verdict, "equivalent": "no"})
    assert (vague.equivalent, vague.hints, vague.size) == (False, (), 1)


def test_hints_stand_behind_the_request():
    (turn,) = with_hints(user("Write f."), ["It lacks x", "It has y"])
    assert turn.content.startswith("Write f.") and turn.content.endswith("- It lacks x\n- It has y")
    assert with_hints(user("Write f."), []) == user("Write f.")


NO_PROGRAM = -1


def test_the_nearest_is_the_first_of_equals_and_never_one_that_was_not_compared_or_is_no_program():
    def drafts(*sizes: int | None) -> list[Attempt]:
        notes = [{"size": None if s == NO_PROGRAM else s, "readable": s != NO_PROGRAM} for s in sizes]
        return [Attempt(kind="draft", text="", finish_reason="stop", num_tokens=1, note=n) for n in notes]

    assert [nearest(drafts(*s)) for s in ((2, 1, 1), (None, 3), (None, None), (1, 0, 2))] == [1, 1, 0, 1]
    assert [nearest(drafts(*s)) for s in ((NO_PROGRAM, None), (None, NO_PROGRAM), (NO_PROGRAM, 9))] == [
        1,
        0,
        1,
    ]


@pytest.mark.parametrize(
    "said", ["", "None.", '"none"', "Nothing is missing.", "No differences", "N/A", "(none)"]
)
def test_no_difference_in_other_words(said: str):
    values = {"missing": said, "extra": "none", "contradictory": "no", "equivalent": "yes"}
    assert read_difference(values).equivalent


@pytest.mark.parametrize(
    "said",
    [
        "No check for 0",
        "Nothing is returned for an empty list",
        "None of the cases",
        "None, but 0 is missing",
    ],
)
def test_differences_that_begin_like_none(said: str):
    values = {"missing": said, "extra": "none", "contradictory": "none", "equivalent": "yes"}
    assert not read_difference(values).equivalent


def test_the_filter_keeps_what_reads_as_asked(tmp_path, engine):
    data, folder = tmp_path / "rows.jsonl", tmp_path / "kept"
    rows = [
        {
            "id": kind,
            "messages": [
                {"role": "user", "content": "Write f."},
                {"role": "assistant", "content": f"```python\nKIND = '{kind}'\nHINTS = 0\n```"},
            ],
        }
        for kind in ("right", "never", "mute")
    ]
    turns = [rows[0]["messages"][0], {"role": "assistant", "content": "```python\ndef f(:\n```"}]
    rows.append({"id": "broken", "messages": turns})
    rows.append(
        {"id": "prose", "messages": [rows[0]["messages"][0], {"role": "assistant", "content": "No."}]}
    )
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--builder.name=consistent_code", "--model=m", f"--engine={engine}", f"--data={data}"]
    assert build_main([*arguments, "--min_kept_frac=0", f"--output_dir={folder}"]) == 0
    (kept,) = read(folder / "data.jsonl")
    assert (
        kept["id"] == "right" and kept["messages"] == rows[0]["messages"] and kept["read_back"]["equivalent"]
    )
    reasons = {row["id"]: row["reason"] for row in read(folder / "dropped.jsonl")}
    assert reasons == {
        "never": "reads otherwise", "mute": "judge: no verdict", "prose": "input: no program",
        "broken": "input: no Python",
    }  # fmt: skip
