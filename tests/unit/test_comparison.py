"""Item by item: what is paired, what the difference is called, what was won and lost."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from report_runs import STAMP, write_evaluation, write_runs, write_scores

from evals.compare import contrast_all
from evals.compare_text import show
from lengthwise.report.collect import collect
from lengthwise.report.comparison import Comparison, by_slice, compare, compare_all, flips, verdict_of
from lengthwise.report.findings import headline
from lengthwise.report.page import render
from lengthwise.report.prompt_tables import slice_tables
from lengthwise.report.settings import setting_differences


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_runs(tmp_path_factory.mktemp("outputs"))


def only(base: Path, other: Path) -> Comparison:
    first, second = collect([base, other])
    (found,) = compare_all(first, [second])
    return found


def test_the_verdict_follows_the_interval(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(10)})
    up = write_scores(tmp_path / "up", {str(i): i + 2 + i % 2 / 10 for i in range(10)})
    down = write_scores(tmp_path / "down", {str(i): i - 2 - i % 2 / 10 for i in range(10)})
    same = write_scores(tmp_path / "same", {str(i): i + (-1.0) ** i for i in range(10)})
    for path, verdict, words in [
        (up, "better", "up is better than base on t"),
        (down, "worse", "down is worse than base on t"),
        (same, "unclear", "No clear difference between base and same on t"),
    ]:
        found = collect([base, path])
        (comparison,) = compare(found[0], found[1])
        lead = headline(found, [comparison])
        assert (comparison.verdict, lead.opening) == (verdict, words)
        assert comparison.n == 10
    assert "m 4.5 → 6.5" in headline(collect([base, up]), compare(*collect([base, up]))).figures


def test_several_runs_share_one_sentence(tmp_path: Path) -> None:
    paths = [
        write_scores(tmp_path / name, {str(i): i + shift + i % 2 / 10 * (shift > 0) for i in range(10)})
        for name, shift in (("base", 0.0), ("mid", 1.0), ("last", 2.0))
    ]
    found = collect(paths)
    lead = headline(found, compare_all(found[0], found[1:]))
    assert lead.opening == "mid and last are better than base on t"
    assert [f"{c.other.name} {c.difference:.2f}" for c in lead.leads] == ["mid 1.05", "last 2.05"]
    worse = write_scores(tmp_path / "worse", {str(i): i - 3 - i % 3 / 10 for i in range(10)})
    found = collect([*paths, worse])
    lead = headline(found, compare_all(found[0], found[1:]))
    assert lead.opening == "mid and last are better than base on t; worse is worse than base on t"
    assert lead.figures == ""


def test_a_fall_is_better_where_lower_is_better(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(6)}, better=False)
    less = write_scores(tmp_path / "less", {str(i): i - 1 - i / 100 for i in range(6)}, better=False)
    assert compare(*collect([base, less]))[0].verdict == "better"


def test_a_metric_without_direction_is_neither_better_nor_worse(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(6)}, better=None)
    more = write_scores(tmp_path / "more", {str(i): i + 1 + i / 100 for i in range(6)}, better=None)
    assert compare(*collect([base, more]))[0].verdict == "changed"


def test_only_shared_scored_items_with_the_same_prompt_are_paired(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 2.0, "c": None, "d": 4.0})
    other = write_scores(tmp_path / "other", {"a": 2.0, "b": 3.0, "c": 9.0, "e": 9.0})
    (comparison,) = compare(*collect([base, other]))
    assert (comparison.n, comparison.before, comparison.after, comparison.difference) == (2, 1.5, 2.5, 1.0)
    assert comparison.notes == [
        "1 item(s) only in base",
        "1 item(s) only in other",
        "1 item(s) in both left out: m unscored in one of the runs",
    ]
    changed = write_scores(tmp_path / "changed", {"a": 2.0, "b": 3.0}, prompt_hash="other")
    assert compare(*collect([base, changed])) == []


def test_an_item_asked_with_another_prompt_is_named(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 2.0})
    other = write_scores(tmp_path / "other", {"a": 2.0, "b": 4.0})
    file = other / f"samples_t_{STAMP}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["prompt_hash"] = "changed"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert only(base, other).notes == ["1 item(s) in both left out: asked with another prompt (b)"]


def test_one_shared_item_gives_no_verdict(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0})
    other = write_scores(tmp_path / "other", {"a": 2.0})
    found = collect([base, other])
    lead = headline(found, compare(*found))
    assert lead.opening == "Too few shared items to tell base and other apart on t"


@pytest.mark.parametrize("summary", ["mean", "median"])
@pytest.mark.parametrize(
    ("num_items", "noise", "verdict"),
    [(2, 0.0, "too few"), (3, 0.0, "too few"), (3, 1.0, "too few"), (5, 1.0, "too few"), (6, 1.0, "better")],
)
def test_a_few_items_that_all_rise_are_no_gain_yet(
    tmp_path: Path, summary: str, num_items: int, noise: float, verdict: str
) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(num_items)}, summary=summary)
    other = write_scores(
        tmp_path / "other", {str(i): 50 + i + noise * i * i for i in range(num_items)}, summary=summary
    )
    found = only(base, other)
    assert found.verdict == verdict
    assert (found.low is None) == (noise == 0)
    assert render(collect([base, other]))


def test_a_verdict_needs_the_test_and_the_interval() -> None:
    assert verdict_of(2.0, (-0.1, 4.1), 0.04, 9, True) == "unclear"
    assert verdict_of(2.0, (0.1, 3.9), 0.06, 9, True) == "unclear"
    assert verdict_of(2.0, (0.1, 3.9), 0.04, 9, False) == "worse"
    # Nine items that differ by the same have no interval, but nine equal signs.
    assert verdict_of(2.0, (None, None), 2 / 2**9, 9, True) == "better"


@pytest.mark.parametrize(("summary", "expected"), [("mean", 8.0), ("median", 2.0), (None, 8.0)])
def test_an_unfinished_run_is_summed_up_as_its_metric_is(
    tmp_path: Path, summary: str | None, expected: float
) -> None:
    scores = {"a": 1.0, "b": 2.0, "c": 21.0}
    row = {} if summary is None else {"summaries": {"m": summary}}
    path = write_scores(tmp_path / "run", scores, slices={"kind": "x"}, **row)
    file = path / f"samples_t_{STAMP}.jsonl"
    first = file.read_text().splitlines()[0]
    file.write_text(file.read_text() + first + "\n")  # a second reply to "a"
    (path / f"results_{STAMP}.json").unlink()
    (run,) = collect([path])
    assert run.evaluation is not None
    task = run.evaluation.tasks["t"]
    score = task.scores["m"]
    assert (score.estimate, score.n, score.summary) == (expected, 3, summary or "mean")
    other = replace(task.outputs[0], slices={"kind": "y"})
    split = replace(task, outputs=[*task.outputs, other])
    (table,) = slice_tables("t", [(run, 0)], [split], [])
    cell = next(line for line in table.lines if line.value == "x").cells[0]
    assert cell is not None
    assert (cell.value, cell.n) == (f"{expected:.1f}", "3")


def test_slices_get_their_verdict_as_the_whole_does(tmp_path: Path) -> None:
    paths = [
        write_scores(tmp_path / name, {str(i): i * (1.0 + rise) + 50 * rise for i in range(12)})
        for name, rise in (("base", 0), ("other", 1))
    ]
    for path in paths:
        file = path / f"samples_t_{STAMP}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        cut = [row | {"slices": {"kind": "few" if i < 3 else "many"}} for i, row in enumerate(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in cut))
    runs = [(run, 0) for run in collect(paths)]
    tasks = [run.evaluation.tasks["t"] for run, _ in runs if run.evaluation]
    (table,) = slice_tables("t", runs, tasks, [only(*paths)])
    verdicts = {line.value: change.verdict for line in table.lines for change in line.changes if change}
    assert verdicts == {"few": "too few", "many": "better"}


def test_several_replies_to_a_prompt_count_as_one_item(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 2.0})
    other = write_scores(tmp_path / "other", {"a": 2.0, "b": 3.0})
    file = other / f"samples_t_{STAMP}.jsonl"
    again = json.loads(file.read_text().splitlines()[0]) | {"metrics": {"m": 4.0}}
    file.write_text(file.read_text() + json.dumps(again) + "\n")
    (comparison,) = compare(*collect([base, other]))
    assert (comparison.n, comparison.after) == (2, 3.0)


def test_one_evaluation_states_its_score_and_what_is_missing(runs: dict[str, Path]) -> None:
    lead = headline(collect([runs["base"]]), [])
    assert lead.opening == "base on longbench_write"
    assert lead.figures.startswith("S_l ")
    assert "name a second evaluation" in lead.asides[0]


def test_no_evaluation_says_so(runs: dict[str, Path]) -> None:
    lead = headline(collect([runs["build"]]), [])
    assert lead.opening == "No evaluation yet"


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", random.Random(1), num_samples=2, skill=0.5)
    warm = write_evaluation(tmp_path / "warm", random.Random(1), num_samples=2, skill=0.5, temperature=0.7)
    found = collect([base, warm])
    assert setting_differences(*found) == ["sampling.temperature: 0.0 in base, 0.7 in warm"]
    assert "was not measured as the base was" in render(found)
    assert found[1].evaluation is not None
    tasks = found[1].evaluation.tasks
    tasks["another"] = tasks.pop(next(iter(tasks)))
    assert setting_differences(*found) == []


def test_items_with_the_same_prompt_are_one_cluster(tmp_path: Path) -> None:
    scores = {"a": (1.0, 2.0), "b": (1.0, 2.2), "c": (5.0, 5.1)}
    base = write_scores(tmp_path / "base", {k: v for k, (v, _) in scores.items()}, prompt_hash="same")
    other = write_scores(tmp_path / "other", {k: v for k, (_, v) in scores.items()}, prompt_hash="same")
    found = only(base, other)
    assert (found.n, found.p_value, found.verdict) == (3, None, "too few")


def test_items_of_a_cluster_that_the_task_names_are_one_whatever_their_prompts(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 1.0, "c": 5.0})
    other = write_scores(tmp_path / "other", {"a": 2.0, "b": 2.2, "c": 5.1})
    assert only(base, other).p_value is not None
    for path in (base, other):
        file = path / f"samples_t_{STAMP}.jsonl"
        rows = [json.loads(line) | {"cluster": "q"} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = only(base, other)
    assert (found.n, found.p_value, found.verdict) == (3, None, "too few")


def test_won_and_lost_have_no_exact_test_where_items_share_a_prompt(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): 0.0 for i in range(8)})
    other = write_scores(tmp_path / "other", {str(i): 1.0 for i in range(8)})
    flipped = flips(only(base, other))
    assert flipped is not None and flipped.p_value == 2 / 2**8
    for path in (base, other):
        file = path / f"samples_t_{STAMP}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [row | {"prompt_hash": str(i // 2)} for i, row in enumerate(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = flips(only(base, other))
    assert shared is not None and shared.p_value is None
    assert shared.sentence == flipped.sentence
    contrast = contrast_all(collect([base, other]))[0]
    assert (
        "flips (right: m ≥ 1): 8 won, 0 lost, 0 both right, 0 both wrong; no test, as items share a prompt"
        in show(contrast, num_shown=0, width=120)
    )


def test_yes_or_no_metrics_are_tested_exactly_and_flip(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i >= 8) for i in range(10)})
    other = write_scores(tmp_path / "other", {str(i): float(i < 9 and i != 7) for i in range(10)})
    found = only(base, other)
    flipped = flips(found)
    assert flipped is not None
    assert (flipped.rule, flipped.sentence) == ("m ≥ 1", "7 won, 1 lost, 1 both right, 1 both wrong")
    assert [p.id for p in flipped.lost] == ["9"]
    # 7 against 1: 2 (1 + 8) / 2^8
    assert found.p_value == flipped.p_value == pytest.approx(18 / 256)
    assert found.verdict == "unclear"


def test_s_l_is_right_from_80_and_other_scores_need_a_rule(tmp_path: Path) -> None:
    scores = {"base": [79.9, 80.0, 10.0, 90.0], "other": [80.0, 79.0, 20.0, 95.0]}
    made = {
        metric: [
            write_scores(tmp_path / metric / name, {str(i): v for i, v in enumerate(values)}, metric=metric)
            for name, values in scores.items()
        ]
        for metric in ("s_l", "other_score")
    }
    flipped = flips(only(*made["s_l"]))
    assert flipped is not None
    assert [[p.id for p in group] for group in (flipped.won, flipped.lost, flipped.both_wrong)] == [
        ["0"],
        ["1"],
        ["2"],
    ]
    assert flips(only(*made["other_score"])) is None
    ruled = flips(only(*made["other_score"]), {"other_score": 15.0})
    assert ruled is not None
    assert len(ruled.won) == 1


def test_where_lower_is_better_right_is_below(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 0.5, "b": 0.1}, better=False)
    other = write_scores(tmp_path / "other", {"a": 0.1, "b": 0.5}, better=False)
    found = only(base, other)
    flipped = flips(found, {"m": 0.2})
    assert flipped is not None
    assert (flipped.rule, [p.id for p in flipped.won]) == ("m ≤ 0.2", ["a"])
    assert [p.id for p in found.by_change()] == ["b", "a"]


def test_a_median_metric_compares_medians(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(9)}, summary="median")
    other = write_scores(
        tmp_path / "other", {str(i): i + (100.0 if i == 8 else 2.0) for i in range(9)}, summary="median"
    )
    found = only(base, other)
    assert (found.before, found.after, found.difference) == (4.0, 6.0, 2.0)
    assert found.method.startswith("paired bootstrap")


def test_a_metric_of_errors_compares_their_rmse(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": -7.0}, summary="rmse", better=False)
    other = write_scores(tmp_path / "other", {"a": -1.0, "b": 1.0}, summary="rmse", better=False)
    found = only(base, other)
    assert (found.before, found.after, found.difference) == (5.0, 1.0, -4.0)
    assert found.method.startswith("paired bootstrap BCa")
    assert [p.id for p in found.by_change()] == ["a", "b"]  # the size of an error counts, not its sign


def test_slices_are_compared_on_their_own_items(runs: dict[str, Path]) -> None:
    base, tuned = collect([runs["base"], runs["tuned"]])[:2]
    found = by_slice(compare(base, tuned)[0])
    assert [(kind, value, d.n) for kind, value, d in found] == [
        ("length_bin", "[0,500)", 10),
        ("length_bin", "[500,2000)", 10),
        ("length_bin", "[2000,4000]", 10),
        ("language", "en", 29),
        ("language", "zh", 1),
    ]


def test_p_values_are_corrected_over_all_that_is_shown(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(9)})
    others = [
        write_scores(tmp_path / name, {str(i): i + shift + i % 3 for i in range(9)})
        for name, shift in (("a", 0.0), ("b", 4.0))
    ]
    found = collect([base, *others])
    small, large = compare_all(found[0], found[1:])
    assert small.p_value is not None and large.p_value is not None
    # Holm: the smallest p counts twice, the other once.
    assert (large.p_holm, small.p_holm) == pytest.approx((2 * large.p_value, small.p_value))
    assert small.survives and large.survives


def test_cut_replies_are_told_of_a_lone_run_too(runs: dict[str, Path]) -> None:
    (tuned,) = [run for run in collect([runs["tuned"]]) if run.evaluation]
    assert headline([tuned], []).cautions == [
        "tuned, of 30 replies: 4 cut at the token cap, so that their lengths are the cap's."
    ]


def test_a_gain_that_comes_with_cut_replies_says_so(runs: dict[str, Path]) -> None:
    base, tuned = collect([runs["base"], runs["tuned"]])[:2]
    lead = headline([base, tuned], compare_all(base, [tuned]))
    assert lead.cautions == [
        "tuned, of 30 replies: 4 cut at the token cap, so that their lengths are the cap's (base: 0), "
        "2 repetitive (base: 0)."
    ]
