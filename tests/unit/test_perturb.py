"""The builder `perturb`: rows keep their ids, lend steps to other problems only, and say what changed."""

from __future__ import annotations

import json

import pytest

from data_builders.run import main

ROWS = [
    {"id": f"r{i}", "prompt": f"Problem {i % 3}?",
     "completion": f"<think>{i}a is 12.\n\nWait, {i}b.\n\nBut {i}c.</think>So {i} it is 7."}
    for i in range(6)
]  # fmt: skip


@pytest.fixture
def perturb(tmp_path):
    def run(options: dict, rows=ROWS, name="run"):
        data, folder = tmp_path / "rows.jsonl", tmp_path / name
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = json.dumps({"name": "perturb", **options})
        assert (
            main([f"--builder={given}", f"--data={data}", f"--output_dir={folder}", "--min_kept_frac=0"]) == 0
        )
        kept = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
        return kept, [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]

    return run


def texts(rows) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


def test_rows_keep_their_ids_and_solutions(perturb):
    kept, dropped = perturb({"operation": "shuffle"})
    assert not dropped and [row["id"] for row in kept] == [f"r{i}" for i in range(6)]
    for i, text in enumerate(texts(kept)):
        assert text.endswith(f"</think>\n\nSo {i} it is 7.") and all(f"{i}{part}" in text for part in "abc")
    assert {row["perturbation"]["steps"] for row in kept} == {3}
    assert all(row["perturbation"]["changed"] >= 2 for row in kept)
    assert texts(perturb({"operation": "shuffle"}, name="again")[0]) == texts(kept)
    assert texts(perturb({"operation": "shuffle", "draw_seed": 1}, name="other")[0]) != texts(kept)


def test_steps_are_inserted_from_other_problems_only(perturb):
    kept, _ = perturb({"operation": "insert"})
    for i, text in enumerate(texts(kept)):
        thinking = text.partition("</think>")[0]
        assert not any(f"{own}{part}" in thinking for own in (i, (i + 3) % 6) for part in "abc")
    kept, dropped = perturb({"operation": "insert"}, rows=ROWS[:1], name="alone")
    assert not kept and dropped[0]["reason"] == "no step of another problem"


def test_all_steps_deleted_leave_the_solution(perturb):
    assert texts(perturb({"operation": "delete"})[0])[2] == "So 2 it is 7."


def test_digits_of_the_solution_stay_unless_asked_for(perturb):
    kept, _ = perturb({"operation": "digits"})
    assert all(text.endswith(f"So {i} it is 7.") for i, text in enumerate(texts(kept)))
    kept, _ = perturb({"operation": "digits", "scope": "all"}, name="all")
    assert not all(text.endswith("it is 7.") for text in texts(kept))


def test_reflections_go(perturb):
    assert texts(perturb({"operation": "reflections"})[0])[1].startswith("<think>\n1a is 12.\n</think>")


def test_a_row_without_a_thought_is_refused(perturb):
    kept, dropped = perturb(
        {"operation": "delete"}, rows=[*ROWS[:2], {"id": "x", "prompt": "a", "completion": "b"}]
    )
    assert len(kept) == 2 and dropped[0]["reason"] == "no thought"
