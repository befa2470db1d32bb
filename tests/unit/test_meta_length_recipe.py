"""The recipe of meta length tokens: what is held out, what is computed of the replies, and how it is said."""

from __future__ import annotations

from typing import Any

from recipes.meta_length import over_seeds, own_choice, shares, split, table


def test_held_out_instructions_state_no_length_and_are_not_trained_on():
    rows = [
        *({"instruction": f"Explain {n}.", "input": "", "output": "x"} for n in "abcdefgh"),
        {"instruction": "Explain a.", "output": "y"},
        {"instruction": "Write 30 words on bees.", "input": "", "output": "x"},
        {"instruction": "Explain", "input": "this", "output": "x"},
    ]
    held_out, train = split(rows, 5)
    asked = {(row["instruction"], row["input"]) for row in held_out}
    assert len(held_out) == len(asked) == 5 and [row["id"] for row in held_out] == [*"01234"]
    assert not asked & {(row["instruction"], row.get("input", "")) for row in train}
    assert split(rows, 5) == (held_out, train)
    assert {"instruction": "Write 30 words on bees.", "input": "", "output": "x"} in train
    assert len(split(rows, 99)[0]) == 9


def row(question: str, target: str, fm: float, pm: float = 0) -> dict[str, Any]:
    return {
        "id": f"{question}/{target}",
        "cluster": question,
        "slices": {"target": target},
        "metrics": {"fm": fm, "pm": pm},
        "counts": {"regex_w": 10 * fm},
    }


def replies(*scores: float) -> list[dict[str, Any]]:
    """Four questions at two targets."""
    prompts = [(question, target) for target in ("10", "30") for question in "abcd"]
    return [row(*prompt, fm=score) for prompt, score in zip(prompts, scores, strict=True)]


def test_a_share_of_one_target_has_wilsons_interval_and_of_all_a_clustered_one():
    found = over_seeds([replies(1, 1, 1, 0, 0, 0, 1, 0)])
    assert (shares(found, "fm", "10").estimate, shares(found, "fm", "10").method) == (0.75, "wilson")
    assert shares(found, "fm", "all").estimate == 0.5
    assert "clustered (4 clusters" in shares(found, "fm", "all").method


def test_seeds_are_averaged_prompt_by_prompt():
    first, second = replies(1, 1, 1, 0, 0, 0, 1, 0), replies(0, 1, 1, 0, 0, 0, 1, 1)
    found = over_seeds([first, second[::-1]])
    assert [reply.scores["fm"] for reply in found] == [0.5, 1, 1, 0, 0, 0, 1, 0.5]


def test_the_table_holds_the_first_model_against_the_others():
    measured = {
        "mlt": over_seeds([replies(1, 1, 1, 1, 1, 0, 1, 0)]),
        "words": over_seeds([replies(1, 0, 0, 1, 0, 0, 0, 0)]),
        "untuned": over_seeds([replies(0, 0, 0, 0, 0, 0, 0, 0)]),
    }
    lines = table(measured, ["10", "30"])
    assert lines[0] == "| metric | target | n | mlt | words | untuned | mlt - words | mlt - untuned |"
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 2 * 3 + 2
    assert lines[-2:] == [
        "| median words | 10 | 4 | 10 | 5 | 0 |  |  |",
        "| median words | 30 | 4 | 5 | 0 | 0 |  |  |",
    ]
    assert lines[2].startswith(
        "| fm | 10 | 4 | 1.00 [0.51, 1.00] | 0.50 [0.15, 0.85] | 0.00 [0.00, 0.49] | +0.50 ["
    )
    assert lines[4].startswith("| fm | all | 8 | 0.75 [")


def test_own_choices_are_counted_by_token():
    rows = [
        {"slices": {"mlt": label}, "metrics": {"fm": fm}}
        for label, fm in (("150", 1.0), ("150", 0.0), ("10", 1.0), ("none", 0.0))
    ]
    (line,) = own_choice(rows)
    assert line.startswith(
        "own choice: fm 0.50 [0.15, 0.85] of 4 replies; matched by token: 10: 1 of 1, 150: 1 of 2, none"
    )
