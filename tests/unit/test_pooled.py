"""Metrics made of sums: ratios over all documents, products of them, kappa of single labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import STAMP, write_jsonl, write_manifest

from evals.base import Measured, Metric
from evals.judged import bounds_of
from evals.results import Tally, results_document, summarise
from lengthwise.agreement import cohen_kappa
from lengthwise.pooled import pooled_difference, pooled_interval, pooled_value
from lengthwise.report.collect import collect
from lengthwise.report.comparison import by_slice, compare
from lengthwise.report.evaluations import estimate_of
from lengthwise.summaries import as_summary

SHARE = Metric(name="share", counter="-", summary="ratio", columns=("met", "all"), higher_is_better=True)


def row(index: int, met: float, whole: float, **more: object) -> dict:
    found = {"met": met, "all": whole, **({"share": met / whole} if whole else {})}
    flags = {"empty": False, "truncated": False, "repetition": 0.0}
    return {"id": str(index), "metrics": found, "flags": flags, "slices": {}, "unscored": {}, **more}


def summary(*rows: dict) -> dict:
    tally = Tally()
    for one in rows:
        tally.add(one)
    return summarise(Measured(METRICS=(SHARE,), VERSION=1), tally)


def test_the_share_of_all_checks_is_no_mean_of_shares():
    found = summary(row(0, 3, 4), row(1, 1, 2), row(2, 5, 5), row(3, 0, 3))["overall"]["share"]
    assert found["value"] == pytest.approx(9 / 14)
    assert found["n"] == 4 and found["method"].startswith("bootstrap BCa")
    assert 0 <= found["ci"][0] < 9 / 14 < found["ci"][1] <= 1


def test_a_document_without_checks_adds_nothing_and_is_counted():
    found = summary(row(0, 3, 4), row(1, 0, 0), row(2, 1, 4))["overall"]["share"]
    assert (found["value"], found["n"]) == (0.5, 3)


def test_a_share_of_no_checks_is_left_out_and_never_0():
    assert "share" not in summary(row(0, 0, 0), row(1, 0, 0))["overall"]
    assert pooled_interval([], "ratio") is None


def test_an_unscored_row_lacks_its_column_and_is_in_no_sum():
    bad = row(1, 0, 4, unscored={"share": "malformed"})
    del bad["metrics"]["met"], bad["metrics"]["share"]
    found = summary(row(0, 3, 4), bad, row(2, 1, 4))
    assert (found["overall"]["share"]["value"], found["overall"]["share"]["n"]) == (0.5, 2)
    assert found["unscored"]["share"]["num"] == 1
    assert bounds_of(SHARE, [bad], 0, 0) is None


def test_several_replies_to_a_prompt_count_as_their_mean():
    found = pooled_interval([("a", "a", (4, 4)), ("a", "a", (0, 4)), ("b", "b", (2, 2))], "ratio")
    assert found is not None
    assert (found.estimate, found.n) == (4 / 6, 2)


def test_equal_prompts_are_one_cluster():
    replies = [(i, i // 2, (i % 3, 3)) for i in range(12)]
    clustered = pooled_interval(replies, "ratio")
    assert clustered is not None and clustered.method.endswith(", clustered (6 clusters)")


def test_a_product_of_ratios():
    assert pooled_value([(1, 1, 3, 4), (0.5, 1, 1, 4)], "ratio") == 0.75 * 0.5


def test_kappa_of_cells_is_that_of_the_labels():
    cells = {(True, True): 7, (True, False): 2, (False, True): 4, (False, False): 9}
    labels = [pair for pair, number in cells.items() for _ in range(number)]
    expected = cohen_kappa([a for a, _ in labels], [b for _, b in labels]).estimate
    one, two = (3, 1, 4, 0), (4, 1, 0, 9)  # the same checks in two documents
    assert pooled_value([one, two], "kappa") == pytest.approx(expected)
    assert pooled_value([(5, 0, 0, 0)], "kappa") is None


def test_the_difference_of_two_models_on_the_same_documents():
    old, new = [(1, 4), (1, 2), (0, 3), (2, 5)], [(3, 4), (2, 2), (2, 3), (5, 5)]
    found = pooled_difference(new, old, "ratio")
    assert found is not None
    assert found.estimate == pytest.approx(12 / 14 - 4 / 14)
    assert found.num_clusters == 4 and found.low is not None and found.low > 0
    assert pooled_difference([(0, 0)], [(1, 1)], "ratio") is None


def test_the_results_file_says_what_is_summed():
    document = results_document(
        {"t": Measured(METRICS=(SHARE,), VERSION=1)}, {"t": summary(row(0, 1, 2), row(1, 2, 2))}
    )
    assert document["columns"] == {"t": {"share": ["met", "all"]}}
    assert as_summary(document["summaries"]["t"]["share"]) == "ratio"


def test_a_metric_of_sums_names_its_columns():
    with pytest.raises(ValueError, match="ratio and kappa need columns"):
        Metric(name="share", counter="-", summary="ratio")
    with pytest.raises(ValueError, match="nothing else has any"):
        Metric(name="share", counter="-", columns=("met", "all"))


def evaluation(path: Path, rows: list[dict]) -> Path:
    """Write what a finished evaluation of one task holds."""
    path.mkdir()
    lines = [
        {**one, "doc": {"prompt": one["id"]}, "resps": ["word"], "finish_reason": "stop"} for one in rows
    ]
    write_jsonl(path / f"samples_t_{STAMP}.jsonl", lines)
    document = results_document({"t": Measured(METRICS=(SHARE,), VERSION=1)}, {"t": summary(*rows)})
    (path / f"results_{STAMP}.json").write_text(json.dumps(document), encoding="utf-8")
    return write_manifest(path, "eval")


def test_two_runs_are_compared_by_their_sums(tmp_path):
    half = {"slices": {"half": "a"}}, {"slices": {"half": "b"}}
    sizes = (4, 2, 3, 5, 1, 6)
    old = [row(i, whole // 3, whole, **half[i % 2]) for i, whole in enumerate(sizes)]
    new = [row(i, whole - i % 2, whole, **half[i % 2]) for i, whole in enumerate(sizes)]
    (found,) = compare(*collect([evaluation(tmp_path / "old", old), evaluation(tmp_path / "new", new)]))
    assert (found.before, found.after) == (pytest.approx(5 / 21), pytest.approx(18 / 21))
    assert found.difference == pytest.approx(13 / 21)
    assert found.n == 6 and found.method.startswith("paired bootstrap BCa")
    assert {value: d.estimate for _, value, d in by_slice(found)} == {
        "a": pytest.approx(8 / 8 - 2 / 8),
        "b": pytest.approx(10 / 13 - 3 / 13),
    }


def test_an_estimate_from_rows_is_the_results_files(tmp_path):
    rows = [row(0, 3, 4), row(1, 1, 2), row(2, 5, 5), row(3, 0, 3)]
    (run,) = collect([evaluation(tmp_path / "run", rows)])
    assert run.evaluation is not None
    task = run.evaluation.tasks["t"]
    score = task.scores["share"]
    found = estimate_of(task.outputs, "share", score.summary, score.columns)
    assert found is not None
    assert (found.estimate, found.low, found.high) == (score.estimate, score.low, score.high)
