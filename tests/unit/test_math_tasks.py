"""The tasks of maths and multiple-choice questions, pass@k, and outputs scored against a reference answer."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evals import math_questions
from evals.base import Metric, score_completion
from evals.config import EvalConfig
from evals.plan import plan_task
from evals.results import Tally, pass_estimates, results_document, summarise
from evals.results_table import format_table
from evals.score import main
from evals.sources import find_source, sort_rows
from evals.tasks import aime, gsm8k, math500, multiple_choice
from lengthwise.answer_process import Comparison, ComparisonFailed
from lengthwise.config import ConfigError
from lengthwise.paired import paired_difference
from lengthwise.plugins import plugin_names
from lengthwise.records import LengthTarget, Sample, user
from lengthwise.summaries import summary_interval

MATHS = (gsm8k, math500, aime)
GSM8K = {"question": "Two and three?", "answer": "It is 2+3=<<2+3=5>>5.\n#### 5"}
MATH = {"problem": "Halve $x$.", "answer": r"\frac{x}{2}", "solution": "s", "level": 3, "subject": "Algebra"}
CHOICES = {"question": "Which is even?", "choices": ["1", "3", "4", "5"], "answer": 2}


def write_jsonl(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def load(tmp_path):
    def read(task: Any, *rows: dict, **options: Any) -> list[Sample]:
        source = write_jsonl(tmp_path / "data.jsonl", *rows)
        return sort_rows(task.load(source, **options), "raise", data=source).samples

    return read


def metrics(task: Any, sample: Sample, text: str) -> dict[str, float]:
    return dict(task.score(sample, text, "stop").metrics)


class TestLoaders:
    def test_they_are_found_by_name(self):
        assert {"gsm8k", "math500", "aime", "multiple_choice"} <= set(plugin_names("evals.tasks", "METRICS"))

    def test_gsm8k(self, load):
        (one,) = load(gsm8k, GSM8K)
        assert (one.target, one.instruction, one.length) == ("5", "Two and three?", None)
        assert "####" in one.metadata["answer"]

    def test_math500(self, load):
        (one,) = load(math500, MATH)
        assert one.target == r"\frac{x}{2}"
        assert math500.slices(one) == {"level": "3", "subject": "Algebra"}

    @pytest.mark.parametrize(
        ("row", "target"),
        [
            ({"problem": "p", "answer": 204}, "204"),
            ({"problem": "p", "answer": "025", "year": "2024"}, "025"),
            ({"question": "p", "answer": 27.0}, "27"),
            ({"problem": "p", "solution": r"So \boxed{116}."}, "116"),
            ({"Problem": "p", "Solution": "s", "Answer": 5}, "5"),
        ],
    )
    def test_aime_and_amc(self, load, row, target):
        (one,) = load(aime, row)
        assert (one.target, one.instruction) == (target, "p")

    @pytest.mark.parametrize("task", MATHS)
    def test_a_row_without_an_answer_is_bad(self, load, task):
        with pytest.raises(ConfigError, match=r"line 1: it has no reference answer.*in target or answer"):
            load(task, {"question": "q", "problem": "q", "solution": "none"})

    def test_a_gsm8k_answer_without_its_number_is_bad(self, load):
        with pytest.raises(ConfigError, match="no number after ####"):
            load(gsm8k, {"question": "q", "answer": "It is five, I think."})

    @pytest.mark.parametrize("task", MATHS)
    def test_the_prompt_asks_for_a_box(self, load, task):
        (one,) = load(task, {**GSM8K, **MATH, "answer": "5"})
        (turn,) = task.prompt(one)
        assert turn.content.startswith(one.instruction)
        assert r"\boxed{}" in turn.content and "tokens" not in turn.content

    def test_the_hubs_id_names_its_subset(self):
        found = find_source(gsm8k.HUB)
        assert (found.name, found.subset, found.split) == ("openai/gsm8k", "main", "test")
        assert find_source("a/b/c:").split is None
        with pytest.raises(ConfigError, match="no file or folder"):
            find_source("outputs/eval/run")
        with pytest.raises(ConfigError, match="no file or folder"):
            find_source("/outputs/eval:test")


class TestScores:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (r"So it is \boxed{5}.", (1.0, 1.0)),
            ("2 + 3 = 5\n#### 5", (1.0, 1.0)),
            (r"\boxed{6}", (0.0, 1.0)),
            ("so it makes 5", (0.0, 0.0)),
            (r"hence \boxed{5", (0.0, 0.0)),
            ("", (0.0, 0.0)),
        ],
    )
    def test_gsm8k(self, load, text, expected):
        (one,) = load(gsm8k, GSM8K)
        assert metrics(gsm8k, one, text) == {"accuracy": expected[0], "answered": expected[1]}

    def test_the_last_number_is_an_option(self, load):
        (one,) = load(gsm8k, GSM8K, last_number=True)
        assert metrics(gsm8k, one, "so it makes 5")["accuracy"] == 1.0

    def test_algebra(self, load):
        (one,) = load(math500, MATH)
        assert metrics(math500, one, r"\boxed{0.5x}")["accuracy"] == 1.0
        assert metrics(math500, one, r"\boxed{2x}")["accuracy"] == 0.0
        assert math500.score(one, r"\boxed{2x}", "stop").answer == "2x"

    def test_a_time_out_is_wrong_and_said(self, load, monkeypatch):
        monkeypatch.setattr(
            math_questions, "compare_answers", lambda *_: Comparison(False, "timed out twice")
        )
        (one,) = load(math500, MATH)
        row = score_completion(math500, one, r"\boxed{y}", "stop", 5)
        assert row["metrics"] == {"accuracy": 0.0, "answered": 1.0, "num_tokens": 5}
        assert row["notes"] == {"verifier": "timed out twice"}

    def test_a_verifier_that_fails_leaves_unscored(self, load, monkeypatch):
        def fail(*_: str) -> Comparison:
            raise ComparisonFailed("crashed twice")

        monkeypatch.setattr(math_questions, "compare_answers", fail)
        (one,) = load(math500, MATH)
        row = score_completion(math500, one, r"\boxed{y}", "stop", 5)
        assert row["metrics"] == {"answered": 1.0, "num_tokens": 5}
        assert row["unscored"] == {"accuracy": "crashed twice"}
        assert row["filtered_resps"] == ["y"]


class TestBudgets:
    def test_each_question_is_asked_once_for_each(self, load):
        samples = load(gsm8k, {**GSM8K, "id": 7}, {**GSM8K, "question": "Again?"}, budgets=[512, 1024])
        assert [one.metadata["budget"] for one in samples] == [512, 1024] * 2
        assert [one.id for one in samples][:2] == ["7/512", "7/1024"]
        assert samples[1].length == LengthTarget.about(1024, "tokens")
        assert "Think for 1024 tokens." in gsm8k.prompt(samples[1])[0].content
        assert gsm8k.slices(samples[1]) == {"budget": "1024"}
        assert [gsm8k.cluster(one) for one in samples][:2] == ["7", "7"]
        assert gsm8k.cluster(samples[2]) == gsm8k.cluster(samples[3]) != "7"

    def test_at_most(self, load):
        (one,) = load(math500, MATH, budgets=[600], budget_form="max")
        assert one.length == LengthTarget(max=600, unit="tokens", relation="at_most")
        assert "Think for at most 600 tokens." in math500.prompt(one)[0].content
        assert math500.slices(one) == {"budget": "600", "level": "3", "subject": "Algebra"}

    @pytest.mark.parametrize("budgets", [[], [0, 5], [512, 512]])
    def test_wrong_ones(self, load, budgets):
        with pytest.raises(ConfigError, match="name one or more different numbers of tokens"):
            load(gsm8k, GSM8K, budgets=budgets)

    def test_the_config_checks_the_types(self, tmp_path):
        data = write_jsonl(tmp_path / "d.jsonl", GSM8K)
        config = EvalConfig(model="m", tasks=["gsm8k"])
        entry = {"name": "gsm8k", "data": data, "budgets": [64], "budget_form": "max"}
        assert plan_task(entry, config).options == {"budgets": [64], "budget_form": "max"}
        with pytest.raises(ConfigError, match=r"gsm8k.budget_form is 'min'"):
            plan_task({**entry, "budget_form": "min"}, config)
        with pytest.raises(ConfigError, match=r"gsm8k.budgets"):
            plan_task({**entry, "budgets": "many"}, config)

    def test_deviation_and_rmse(self, load):
        samples = load(gsm8k, {**GSM8K, "id": 1}, {**GSM8K, "question": "b", "id": 2}, budgets=[100])
        tally = Tally()
        for one, num_tokens in zip(samples, (50, 110), strict=True):
            row = score_completion(gsm8k, one, r"\boxed{5}", "stop", num_tokens, num_reasoning_tokens=20)
            tally.add({"id": one.id, **row})
        overall = summarise(gsm8k, tally)["overall"]
        assert overall["budget_deviation"]["value"] == pytest.approx((-0.5 + 0.1) / 2)
        assert overall["budget_rmse"]["value"] == pytest.approx(((0.25 + 0.01) / 2) ** 0.5)
        assert "within_budget" not in overall

    @pytest.mark.parametrize(("num_tokens", "within"), [(99, 1.0), (100, 1.0), (101, 0.0)])
    def test_within(self, load, num_tokens, within):
        (one,) = load(gsm8k, GSM8K, budgets=[100], budget_form="max")
        assert gsm8k.score_tokens(one, num_tokens)["within_budget"] == within

    def test_without_tokens_or_budget_nothing_is_said(self, load):
        (asked,) = load(gsm8k, GSM8K, budgets=[100])
        (free,) = load(gsm8k, GSM8K)
        assert gsm8k.score_tokens(asked, None) == gsm8k.score_tokens(free, 50) == {}

    def test_the_interval_of_an_rmse(self):
        found = summary_interval([("a", "a", 3.0), ("b", "b", -4.0), ("b", "b", 4.0)], "rmse")
        assert found is not None
        assert found.estimate == pytest.approx(12.5**0.5)  # of 9 and 16
        change = paired_difference([1.0, 1.0, -1.0, 1.0] * 3, [3.0, -3.0, 3.0, 3.0] * 3, summary="rmse")
        assert (change.estimate, change.n) == (-2.0, 12)
        some = paired_difference([1.0, -7.0, 1.0, 5.0], [3.0, 4.0, 0.0, 5.0], summary="rmse")
        assert some.estimate == pytest.approx(19**0.5 - 12.5**0.5)
        assert some.low is not None and some.high is not None and some.low < some.estimate < some.high
        exact = summary_interval([("a", "a", 0.0), ("b", "b", 0.0)], "rmse")
        assert exact is not None and (exact.estimate, exact.low) == (0.0, None)


class TestMultipleChoice:
    @pytest.mark.parametrize(
        "row",
        [
            CHOICES,
            {**CHOICES, "answer": "C"},
            {**CHOICES, "answer": "4"},
            {"question": "q", "options": ["1", "3", "4", "5"], "answer": "C", "answer_index": 2},
            {
                "question": "q",
                "choices": {"text": ["1", "3", "4"], "label": ["A", "B", "C"]},
                "answerKey": "C",
            },
            {
                "question": "q",
                "choices": {"text": ["9", "7", "4"], "label": ["1", "2", "3"]},
                "answerKey": "3",
            },
            {"question": "q", "choices": {"text": ["9", "7", "4"], "label": ["1", "2", "3"]}, "answerKey": 3},
        ],
    )
    def test_forms_of_data(self, load, row):
        (one,) = load(multiple_choice, row)
        letter = one.target
        assert letter is not None and one.metadata["choices"]["ABCD".index(letter)] == "4"
        assert f"{letter}. 4" in multiple_choice.prompt(one)[0].content
        assert not {"answer", "answerKey", "answer_index"} & set(one.metadata)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"answer": 4}, "indices from 0"),
            ({"answer": "E"}, "no label, index or text"),
            ({"answer": None}, "no label, index or text"),
            ({"choices": ["1"]}, "has 1 choices"),
            ({"choices": "1 or 2"}, "give a list of texts"),
            ({"choices": {"text": ["1", "2"], "label": ["A"]}}, "2 choices and 1 labels"),
        ],
    )
    def test_bad_rows(self, load, change, message):
        with pytest.raises(ConfigError, match=message):
            load(multiple_choice, {**CHOICES, **change})

    def test_the_order_is_drawn_for_each_question_and_recorded(self, load):
        rows = [{**CHOICES, "question": f"q{i}"} for i in range(24)]
        first = load(multiple_choice, *rows, draw_seed=1)
        assert load(multiple_choice, *rows, draw_seed=1) == first
        assert len({one.target for one in first}) == 4
        alone = load(multiple_choice, rows[5], draw_seed=1)[0]
        assert alone == first[5]
        assert load(multiple_choice, *rows, draw_seed=2) != first
        assert all(
            [CHOICES["choices"][i] for i in one.metadata["order"]] == one.metadata["choices"] for one in first
        )
        assert {one.metadata["draw_seed"] for one in first} == {1}

    def test_without_shuffling(self, load):
        (one,) = load(multiple_choice, CHOICES, shuffle=False)
        assert (one.target, one.metadata["choices"]) == ("C", CHOICES["choices"])

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (r"\boxed{C}", (1.0, 1.0)),
            (r"\boxed{4}", (1.0, 1.0)),
            ("The answer is (C).", (1.0, 1.0)),
            (r"\boxed{A}", (0.0, 1.0)),
            ("It is a hard one.", (0.0, 0.0)),
            ("", (0.0, 0.0)),
        ],
    )
    def test_score(self, load, text, expected):
        (one,) = load(multiple_choice, CHOICES, shuffle=False)
        assert tuple(metrics(multiple_choice, one, text).values()) == expected

    def test_ten_options(self, load):
        row = {"question": "q", "options": [str(i) for i in range(10)], "answer": "J", "category": "law"}
        (one,) = load(multiple_choice, row, shuffle=False)
        assert metrics(multiple_choice, one, "The answer is (J)")["accuracy"] == 1.0
        assert multiple_choice.slices(one) == {"num_choices": "10", "category": "law"}


class TestPassAtK:
    METRIC = Metric(name="accuracy", counter="tokens", summary="proportion", pass_at_k=True)

    def rows(self, **right: list[int]) -> list[dict]:
        return [
            {"id": item, "cluster": item, "metrics": {"accuracy": float(value)}}
            for item, values in right.items()
            for value in values
        ]

    def test_the_mean_over_prompts(self):
        found = pass_estimates(self.METRIC, self.rows(a=[1, 0, 0, 0], b=[0, 0, 0, 0]))
        assert {name: one.estimate for name, one in found.items()} == {"pass@2": 0.25, "pass@4": 0.5}
        assert found["pass@2"].n == 2

    def test_one_reply_each_gives_none(self):
        assert pass_estimates(self.METRIC, self.rows(a=[1], b=[0])) == {}
        assert pass_estimates(self.METRIC, []) == {}

    def test_the_fewest_replies_set_the_largest_k(self):
        found = pass_estimates(self.METRIC, self.rows(a=[1, 0, 0, 0], b=[1, 0]))
        assert {name: one.estimate for name, one in found.items()} == {"pass@2": 0.75}

    def test_results_and_table(self, load):
        tally = Tally()
        for one in load(gsm8k, {**GSM8K, "id": 1}, {**GSM8K, "question": "b", "id": 2}):
            for text in (r"\boxed{5}", "none", "none", "none") if one.id == "1" else ["none"] * 4:
                tally.add({"id": one.id, **score_completion(gsm8k, one, text, "stop", 9)})
        summaries = {"gsm8k": summarise(gsm8k, tally)}
        row = results_document({"gsm8k": gsm8k}, summaries)["results"]["gsm8k"]
        assert row["accuracy,none"] == 0.125
        assert (row["pass@2,none"], row["pass@4,none"], row["pass@4_n,none"]) == (0.25, 0.5, 2)
        assert 0 <= row["pass@4_ci,none"][0] <= row["pass@4_ci,none"][1] <= 1
        table = [line.split() for line in format_table({"gsm8k": gsm8k}, summaries).splitlines()]
        assert [line[3] for line in table if line[1:3] == ["all", "pass@4"]] == ["0.5"]


class TestScoreCommand:
    def results(self, tmp_path: Path, task: str, *rows: dict) -> dict:
        out = tmp_path / f"{task}.json"
        assert main([write_jsonl(tmp_path / "o.jsonl", *rows), "--task", task, "--output", str(out)]) == 0
        return json.loads(out.read_text())

    def test_a_target_and_no_length(self, tmp_path):
        rows = [
            {"output": r"\boxed{5}", "target": "5"},
            {"output": "#### 6", "answer": "a\n#### 6"},
            {"output": r"\boxed{1}", "answer": 2},
            {"output": "", "target": "5"},
        ]
        row = self.results(tmp_path, "gsm8k", *rows)["results"]["gsm8k"]
        assert (row["accuracy,none"], row["answered,none"], row["accuracy_n,none"]) == (0.5, 0.75, 4)

    def test_the_rows_own_fields_make_the_slices(self, tmp_path):
        rows = [{"output": r"\boxed{5}", "target": "5", "level": level} for level in (1, 1, 2)]
        assert set(self.results(tmp_path, "math500", *rows)["slices"]["math500"]["level"]) == {"1", "2"}

    def test_replies_to_one_question_give_pass_at_k(self, tmp_path):
        rows = [{"output": rf"\boxed{{{n}}}", "target": "5", "id": 1} for n in (4, 5)]
        assert self.results(tmp_path, "aime", *rows)["results"]["aime"]["pass@2,none"] == 1.0

    def test_letters(self, tmp_path):
        rows = [{"output": "(J)", "target": "J"}, {"output": r"\boxed{b}", "answer": "(B)"}]
        assert (
            self.results(tmp_path, "multiple_choice", *rows)["results"]["multiple_choice"]["accuracy,none"]
            == 1.0
        )

    @pytest.mark.parametrize(
        ("task", "row", "message"),
        [
            (
                "gsm8k",
                {"output": "5"},
                "no reference answer to compare with: give a text or a number in target",
            ),
            ("gsm8k", {"output": "5", "length": 5}, "no reference answer"),
            ("multiple_choice", {"output": "B", "target": "Paris"}, "give the letter"),
            ("math500", {"target": "5"}, "give the field output"),
        ],
    )
    def test_what_lacks_is_named(self, tmp_path, capsys, task, row, message):
        assert main([write_jsonl(tmp_path / "o.jsonl", row), "--task", task]) == 2
        assert message in capsys.readouterr().err

    def test_a_row_of_our_own_samples(self, tmp_path, load):
        (one,) = load(gsm8k, GSM8K, budgets=[100], budget_form="max")
        row = {
            "id": one.id,
            "doc": {"prompt": one.instruction, **one.metadata},
            "target": one.target,
            "arguments": [{"role": "user", "content": "q"}],
            "resps": [r"\boxed{5}"],
            "requested": LengthTarget(max=100, unit="tokens", relation="at_most").to_dict(),
            "num_tokens": 150,
            "finish_reason": "stop",
        }
        found = self.results(tmp_path, "gsm8k", row)["results"]["gsm8k"]
        assert (found["accuracy,none"], found["budget_deviation,none"], found["within_budget,none"]) == (
            1,
            0.5,
            0,
        )


def test_an_optional_member_sees_the_tokens():
    task: Any = ModuleType("own")
    task.score = lambda sample, text, finish_reason: {"words": float(len(text.split()))}
    task.slices = lambda sample: {}
    one = Sample(id="1", messages=user("x"))
    assert score_completion(task, one, "a b", "stop", 7, 3)["metrics"] == {"words": 2.0, "num_tokens": 7}
    task.score_tokens = lambda sample, num_tokens: {"generated": float(num_tokens)}
    row = score_completion(task, one, "a b", "stop", 7, 3)
    assert row["metrics"] == {"words": 2.0, "generated": 7.0, "num_tokens": 7}
    assert row["counts"]["tokens"] == 4
