"""Preference pairs for shorter reasoning: which two answers of a problem pair, and which problems have no pair."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_builders.run import main
from data_builders.shorter_pairs import Answer, Config, NoPair, make_pair

RIGHT, WRONG = "<think>{}</think>It is \\boxed{{4}}", "It is \\boxed{5}"
THOUGHT = "2 and 2.\n\nWait, the answer is 4.\n\nBut let me count: yes.\n\nHmm, once more: \\boxed{4}."


def answers(*given: tuple[int, bool]) -> list[Answer]:
    return [Answer(f"{tokens} {correct}", tokens, correct) for tokens, correct in given]


@pytest.mark.parametrize(
    ("kind", "given", "pair"),
    [
        ("long_short", [(9, True), (5, True), (7, True), (2, False)], (5, 9)),
        ("silc", [(9, True), (7, True), (5, False), (8, False)], (7, 5)),
        ("silc", [(3, True), (9, True), (5, False)], (9, 5)),
    ],
)
def test_which_two_pair(kind, given, pair):
    found = make_pair(answers(*given), "4", Config(kind=kind))
    assert (found.chosen.tokens, found.rejected.tokens) == pair


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("long_short", [(9, True), (5, False)], "fewer than two right answers"),
        ("long_short", [(5, True), (5, True)], "equally long"),
        ("silc", [(5, True)], "no wrong answer"),
        ("silc", [(5, True), (5, False)], "no right answer is longer"),
        ("silc", [(5, False)], "no right answer is longer"),
        ("first_correct", [(5, False)], "no right answer"),
        ("first_correct", [(5, True)], "no thought: not marked"),
    ],
)
def test_what_makes_no_pair(kind, given, reason):
    with pytest.raises(NoPair, match=reason):
        make_pair(answers(*given), "4", Config(kind=kind))


def test_the_gap_is_a_share_of_the_longer():
    given = answers((100, True), (91, True))
    assert make_pair(given, "4", Config(min_gap=0.09)).chosen.tokens == 91
    with pytest.raises(NoPair, match="too close"):
        make_pair(given, "4", Config(min_gap=0.1))


@pytest.mark.parametrize(
    ("kind", "end"), [("first_correct", "answer is 4."), ("first_correct_plus_1", "count: yes.")]
)
def test_a_thought_is_cut_behind_its_first_right_answer(kind, end):
    text = RIGHT.format(THOUGHT)
    given = [Answer(text, 40, True), Answer(RIGHT.format(THOUGHT * 3), 120, True)]
    pair = make_pair(given, "4", Config(kind=kind))
    assert pair.chosen.text.endswith("</think>\n\nIt is \\boxed{4}")
    assert pair.chosen.text.partition("\n</think>")[0].endswith(end)
    assert pair.rejected is given[1] and pair.chosen.tokens < 40


def row(key: str, *attempts: tuple[str, int, bool]) -> dict[str, Any]:
    return {
        "id": key,
        "messages": [{"role": "user", "content": f"{key}?"}, {"role": "assistant", "content": "x"}],
        "answer": "4",
        "attempts": [
            {"text": text, "tokens": n, "correct": right, "fault": None if right else "wrong answer"}
            for text, n, right in attempts
        ],
    }


def test_a_build_of_pairs_is_what_dpo_reads(tmp_path):
    import pyarrow.parquet

    from lengthwise.rows import Place, Row
    from posttrain.pair_formats import read_pair

    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows = [
        row("a", ("short", 2, True), ("longer", 5, True)),
        row("b", ("short", 2, True)),
        {"id": "c", "messages": row("c")["messages"]},
    ]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert (
        main(["--builder.name=shorter_pairs", f"--data={data}", f"--output_dir={run}", "--min_kept_frac=0"])
        == 0
    )
    (kept,) = [json.loads(line) for line in (run / "data.jsonl").read_text().splitlines()]
    dropped = {
        r["id"]: r["reason"] for r in map(json.loads, (run / "dropped.jsonl").read_text().splitlines())
    }
    assert dropped == {"b": "fewer than two right answers", "c": "no attempts"}
    (stored,) = pyarrow.parquet.read_table(run / "data.parquet").to_pylist()
    assert "messages" not in stored and stored["chosen"] == kept["chosen"]
    for values in (kept, stored):
        pair = read_pair(Row(Place("x", 1), values))
        assert [m.content for m in (*pair.prompt, *pair.chosen, *pair.rejected)] == ["a?", "short", "longer"]
