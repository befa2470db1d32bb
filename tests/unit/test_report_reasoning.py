"""The report on what replies cost, on checkpoints by step, and on all that stands beside a score."""

from __future__ import annotations

import json
import random

import pytest
from report_reasoning import JUDGED, TASK, write_reasoning
from report_runs import write_build, write_jsonl, write_scores, write_training

from lengthwise.report.by_step import courses, logged_charts
from lengthwise.report.collect import checkpoint_of, collect
from lengthwise.report.comparison import compare_all
from lengthwise.report.evaluations import read_evaluation
from lengthwise.report.findings import headline
from lengthwise.report.page import render
from lengthwise.report.tables import score_tables
from lengthwise.report.tradeoff import points_of, trade_offs

PUBLISHED = {
    "published": {
        TASK: [
            {
                "model": "Big-72B",
                "metrics": {"correct": 0.81, JUDGED: 4.2},
                "source": "arXiv 2503.04697, table 2",
                "differs": ["temperature 0.6, here 0"],
            },
            {"model": "Small-1.5B", "metrics": {"correct": 0.41}, "source": "the same"},
        ]
    },
    "warnings": [
        "3 of 24 prompts occur in the training data <b>",
        "3 of 24 prompts occur in the training data <b>",
    ],
}


def coloured(*folders):
    return [(run, colour) for colour, run in enumerate(collect(folders))]


def page(*folders):
    return render(collect(folders))


def section(html, name):
    return html.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_runs_that_another_beats_at_their_cost_are_told_apart(tmp_path):
    small = write_reasoning(tmp_path / "small", skill=0.4, tokens=200)
    worse = write_reasoning(tmp_path / "worse", skill=0.1, tokens=900)
    large = write_reasoning(tmp_path / "large", skill=0.9, tokens=2000)
    (one,) = trade_offs(coloured(small, worse, large))
    assert (one.task, one.metric) == (TASK, "correct")
    assert [(number, run.label, best) for number, run, _, best in one.legend] == [
        (1, "small", True),
        (2, "worse", False),
        (3, "large", True),
    ]
    assert one.svg.count("at least as good for no more tokens") == 1
    shown = section(page(small, worse, large), "cost")
    assert shown.count('class="beaten"') == 1 and "mean tokens of a reply" in shown


def test_a_run_alone_or_without_tokens_has_no_such_chart(tmp_path):
    assert trade_offs(coloured(write_reasoning(tmp_path / "one", skill=0.4, tokens=200))) == []
    old = [write_scores(tmp_path / name, {"a": 1.0, "b": 0.0}) for name in ("x", "y")]
    assert trade_offs(coloured(*old)) == []


def test_budgets_become_a_curve(tmp_path):
    run = write_reasoning(tmp_path / "l1", skill=0.6, tokens=0, budgets=(512, 1024, 3600), num_items=30)
    ((found, colour),) = coloured(run)
    points = points_of(found, colour, 1, found.evaluation.tasks[TASK], "correct")
    assert [p.budget for p in points] == ["512", "1024", "3600"]
    assert [p.tokens for p in points] == sorted(p.tokens for p in points) and 300 < points[0].tokens < 700
    (one,) = trade_offs([(found, colour)])
    assert one.has_budgets and "budget 1024" in one.svg


def test_checkpoints_stand_by_step_with_their_base_at_0(tmp_path):
    training = write_training(
        tmp_path / "sft" / "x", random.Random(1), parents=[write_build(tmp_path / "b", random.Random(1))]
    )
    base = write_reasoning(tmp_path / "base", skill=0.2, tokens=200, model="embedded:smollm2-135m")
    marks = [
        write_reasoning(tmp_path / f"at-{s}", skill=0.5, tokens=300, model=f"{training}/checkpoint-{s}")
        for s in (16, 8)
    ]
    found = collect(marks)  # with the training and its data, though no manifest of theirs names them
    assert [checkpoint_of(run) for run in found[:2]] == [(str(training), 16), (str(training), 8)]
    assert [run.path for run in found[2:]] == [training, tmp_path / "b"]
    assert found[0].parents == [found[2]]
    (course,) = courses(collect([base, *marks, training]))
    assert (course.steps, course.has_base) == ([0, 8, 16], True)
    assert course.charts[0].title == f"correct on {TASK}"
    assert f"num_tokens on {TASK}" in [chart.title for chart in course.charts]
    assert "step 8: " in course.charts[0].svg
    assert "at step 0" in section(page(base, *marks, training), "steps")
    assert courses(collect([marks[0]])) == [] and courses(collect([base])) == []


def test_a_trainings_own_log_of_its_checkpoints_is_drawn(tmp_path):
    curve = [
        {"step": 2, "loss": 1.0},
        *({"step": s, "eval_t/s_l": 10.0 * s, "eval_loss": 2.0} for s in (2, 4)),
    ]
    (chart,) = logged_charts(curve, "c")
    assert chart.title == "S_l on t" and "40.0 at step 4" in chart.svg
    folder = write_training(tmp_path / "x", random.Random(1), parents=[])
    assert "Its checkpoints" not in page(folder)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": 10, "eval_t/s_l": 10.0}) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["length_evals"] = {"failed": [{"step": 20, "reason": "ended with exit code 1"}]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    shown = section(page(folder), "training")
    assert "S_l on t" in shown and "Step 20: ended with exit code 1" in shown


def test_published_rows_stand_beside_ours_with_what_differs(tmp_path):
    run = write_reasoning(tmp_path / "mine", skill=0.5, tokens=200, results=PUBLISHED)
    shown = section(page(run), "scores")
    assert "Published, for orientation" in shown
    big = shown.partition("Big-72B")[2].partition("</tr>")[0]
    assert "0.810" in big and "4.2" in big and '<span class="bad">temperature 0.6, here 0</span>' in big
    assert "no difference is known" in shown.partition("Small-1.5B")[2].partition("</tr>")[0]
    none = write_reasoning(tmp_path / "none", skill=0.5, tokens=200)
    assert "Published, for orientation" not in page(none)


def test_warnings_of_an_evaluation_stand_above_its_scores_once(tmp_path):
    run = write_reasoning(tmp_path / "mine", skill=0.5, tokens=200, results=PUBLISHED)
    shown = section(page(run), "scores")
    assert shown.count("3 of 24 prompts occur in the training data &lt;b&gt;") == 1
    assert shown.index("3 of 24 prompts") < shown.index("<h3>")


def test_what_stands_beside_a_judged_score(tmp_path):
    run = write_reasoning(tmp_path / "mine", skill=0.5, tokens=200)
    task = read_evaluation(run, []).tasks[TASK]
    assert list(task.scores) == ["pass@4", "correct", JUDGED, "num_tokens"]
    assert task.primary == "correct" and task.scores["pass@4"].higher_is_better is True
    assert task.scores["correct"].beside.mdd == 0.21
    assert task.scores[JUDGED].beside.notes == [
        "2 replies unscored: 2 malformed",
        "rank correlation with length +0.42 [0.10, 0.66], n = 22",
    ]
    shown = section(page(run), "scores")
    assert 'S_q <span class="sub">by <span class="path">qwen3-8b.1f2e3d</span>' in shown
    assert "so few items would show a difference of 0.210" in shown
    assert "3.1 to 3.4 with all unscored as worst or best" in shown


def test_samples_show_the_answer_that_was_read_the_reference_and_notes(tmp_path):
    run = write_reasoning(tmp_path / "mine", skill=1.0, tokens=200)
    outputs = read_evaluation(run, []).tasks[TASK].outputs
    assert (outputs[1].answer, outputs[1].target) == ("2", "2")
    assert outputs[0].answer == "nothing could be read"
    shown = section(page(run), "samples")
    assert "<dt>judge reply</dt><dd>Clear, but short.</dd>" in shown
    assert "<dt>read as answer</dt><dd>2</dd>" in shown and "<dt>reference</dt><dd>2</dd>" in shown


@pytest.mark.parametrize("filtered", [["word " * 9], [["word " * 9]], [], None])
def test_an_answer_that_is_the_reply_is_not_repeated(tmp_path, filtered):
    run = write_scores(tmp_path / "x", {"a": 1.0}, filtered_resps=filtered)
    assert read_evaluation(run, []).tasks["t"].outputs[0].answer is None


def test_a_metric_without_direction_neither_leads_nor_weighs_on_others(tmp_path):
    base = write_reasoning(tmp_path / "base", skill=0.3, tokens=200, seed=1)
    other = write_reasoning(tmp_path / "other", skill=0.9, tokens=900, seed=2)
    runs = collect([base, other])
    found = {c.metric: c for c in compare_all(*runs[:1], runs[1:])}
    tokens, correct = found["num_tokens"], found["correct"]
    assert tokens.verdict == "changed" and tokens.p_holm is None and tokens.survives
    assert correct.p_holm == min(1.0, 2 * correct.p_value)  # of two, the judge's score is the other one
    (lead,) = headline(runs, [tokens, *found.values()]).leads
    assert lead.metric == "correct"
    assert "for the 2 comparisons on this page" in page(base, other)


def test_many_runs_leave_out_the_changes_by_kind_of_prompt(tmp_path):
    folders = [
        write_reasoning(tmp_path / f"r{i}", skill=0.5, tokens=0, budgets=(512, 1024), seed=i)
        for i in range(7)
    ]
    assert "r6, change" in page(folders[0], folders[6])
    assert "r6, change" not in page(*folders)


def test_a_reply_of_which_only_the_tokens_are_known_is_unscored(tmp_path):
    run = write_scores(tmp_path / "x", {"a": 1.0, "b": None})
    file = next(run.glob("samples_*.jsonl"))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [{**row, "metrics": {**row["metrics"], "num_tokens": 9.0}} for row in rows]
    write_jsonl(file, rows)
    ((account,),) = [table.accounts for table in score_tables(coloured(run), [], {})]
    assert (account.scored, account.unscored) == (1, 1)
