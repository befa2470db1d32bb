"""A judge and an individual person held against the other people, and the command that does it."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.calibrate import main
from lengthwise.review_metrics import (
    Review,
    leave_one_out,
    macro_f1,
    order_accuracy,
    proxy_errors,
    review_metrics,
)

RATINGS = st.lists(st.integers(1, 10), min_size=2, max_size=6)


class TestProxyErrors:
    @given(RATINGS, st.floats(1, 10))
    def test_as_the_definition_says(self, ratings, prediction):
        targets = [statistics.fmean(ratings[:i] + ratings[i + 1 :]) for i in range(len(ratings))]
        assert leave_one_out(ratings) == pytest.approx(targets)
        mse, mae = proxy_errors(ratings, prediction)
        assert mse == pytest.approx(statistics.fmean((prediction - t) ** 2 for t in targets))
        assert mae == pytest.approx(statistics.fmean(abs(prediction - t) for t in targets))

    @given(RATINGS)
    def test_the_mean_of_all_is_closer_than_a_person(self, ratings):
        assert proxy_errors(ratings, statistics.fmean(ratings))[0] <= proxy_errors(ratings)[0] + 1e-9

    @pytest.mark.parametrize("ratings", [[], [5]])
    def test_one_rating_has_no_proxy(self, ratings):
        with pytest.raises(ValueError, match="two or more"):
            proxy_errors(ratings, 5)


class TestOrderAccuracy:
    def test_by_hand(self):
        # Pairs by target: 1<2 right, 1<3 right, 2<3 a tie of guesses.
        found = order_accuracy([1, 5, 5], [2, 3, 4], "abc")
        assert found is not None and found.estimate == pytest.approx(2.5 / 3) and found.n == 3

    def test_ties_of_targets_and_pairs_within_an_item_do_not_count(self):
        found = order_accuracy([1, 9, 3, 4], [2, 1, 2, 3], "aabb")
        # a1-b1 tie; a1-b2 1<4 right; a2-b1 9>3 wrong; a2-b2 9>4 wrong.
        assert found is not None and found.estimate == pytest.approx(1 / 3)
        assert order_accuracy([1, 2], [5, 5], "ab") is None
        assert order_accuracy([], [], []) is None

    def test_an_item_with_many_guesses_weighs_as_one(self):
        once = order_accuracy([1, 3, 2], [1, 2, 3], "abc")
        often = order_accuracy([1, 1, 1, 3, 2], [1, 1, 1, 2, 3], "aaabc")
        assert once is not None and often is not None
        assert once.estimate == pytest.approx(often.estimate) == pytest.approx(2 / 3)

    @given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=12))
    def test_as_counted_pair_by_pair(self, points):
        scores = []
        for i, (guess, target) in enumerate(points):
            for other_guess, other_target in points[:i]:
                if target != other_target:
                    product = (guess - other_guess) * (target - other_target)
                    scores.append(0.5 if product == 0 else float(product > 0))
        found = order_accuracy([g for g, _ in points], [t for _, t in points], range(len(points)))
        assert (found is None) == (not scores)
        if found is not None:
            assert found.estimate == pytest.approx(statistics.fmean(scores))
            assert found.low is None or (found.low >= 0 and found.high is not None and found.high <= 1)


class TestDecisions:
    def test_macro_f1_by_hand(self):
        # Yes: 2 hits, 1 false, 0 missed: 4/5. No: 1 hit, 0 false, 1 missed: 2/3.
        found = macro_f1([True, True, True, False], [True, True, False, False], range(4))
        assert found is not None and found.estimate == pytest.approx((4 / 5 + 2 / 3) / 2)
        assert macro_f1([True], [True], [0]) is None

    def test_own_decision_before_the_rating(self):
        reviews = [
            Review(ratings=(4, 8), prediction=9, decision=True),
            Review(ratings=(3, 3), prediction=9, decision=False, predicted_decision=False),
            Review(ratings=(7, 7), prediction=1, decision=True),
            Review(ratings=(7, 7), prediction=1),
        ]
        found = review_metrics(reviews, accept_from=6)
        judge, human = found["judge"]["decision_accuracy"], found["human"]["decision_accuracy"]
        assert judge is not None and (judge.estimate, judge.n) == (pytest.approx(2 / 3), 3)
        assert human is not None and human.estimate == pytest.approx((0.5 + 1 + 1) / 3)
        without = review_metrics(reviews)
        judge = without["judge"]["decision_accuracy"]
        assert judge is not None and (judge.estimate, judge.n) == (1.0, 1)
        assert without["human"]["decision_accuracy"] is None


class TestReviewMetrics:
    REVIEWS = (
        Review(ratings=(4, 6, 8), prediction=6),
        Review(ratings=(2, 2), prediction=3),
        Review(ratings=(9, 7), prediction=8),
        Review(ratings=(5, 5, 5, 1), prediction=4),
    )

    def test_means_over_texts(self):
        found = review_metrics(self.REVIEWS)
        errors = [proxy_errors(one.ratings, one.prediction) for one in self.REVIEWS]
        people = [proxy_errors(one.ratings) for one in self.REVIEWS]
        for place, name in enumerate(("mse", "mae")):
            judge, human, apart = (found[who][name] for who in ("judge", "human", "difference"))
            assert judge is not None and human is not None and apart is not None
            assert judge.estimate == pytest.approx(statistics.fmean(e[place] for e in errors))
            assert human.estimate == pytest.approx(statistics.fmean(e[place] for e in people))
            assert apart.estimate == pytest.approx(judge.estimate - human.estimate)
            assert judge.low is not None and judge.low >= 0 and judge.n == 4

    def test_order(self):
        found = review_metrics(self.REVIEWS)
        for who in ("judge", "human"):
            spearman, pairs = found[who]["spearman"], found[who]["order_accuracy"]
            assert spearman is not None and 0 < spearman.estimate <= 1
            assert pairs is not None and 0.5 < pairs.estimate <= 1

    def test_what_does_not_vary_has_no_correlation(self):
        found = review_metrics([Review(ratings=(5, 5), prediction=5)] * 2)
        assert found["judge"]["spearman"] is None and found["judge"]["order_accuracy"] is None

    def test_nothing_to_measure(self):
        with pytest.raises(ValueError, match="no review"):
            review_metrics([])


class TestCommand:
    def run(self, tmp_path: Path, rows: list[dict[str, Any]], *flags: str) -> tuple[int, dict[str, Any]]:
        file, output = tmp_path / "labels.jsonl", tmp_path / "out.json"
        file.write_text("\n".join(map(json.dumps, rows)))
        code = main([str(file), "--human_most", "10", "--output", str(output), *flags])
        return code, json.loads(output.read_text()) if output.is_file() else {}

    def test_rows_with_their_prediction(self, tmp_path, capsys):
        rows: list[dict[str, Any]] = [
            {"ratings": [4, 6, 8], "prediction": 6, "decision": "Accept (poster)"},
            {"ratings": [2, 2], "prediction": "3: reject", "decision": "reject"},
            {"ratings": [9, 7], "prediction": "10", "decision": True},
            {"ratings": [5, 3], "prediction": "I cannot say.", "decision": False},
            {"ratings": [5, 3], "decision": "Rejected"},
        ]
        code, found = self.run(tmp_path, rows, "--accept_from", "5")
        assert code == 0
        reviews = found["reviews"]
        assert (reviews["n"], reviews["num_unscored"]) == (3, 2)
        assert found["unscored"] == {"no rating on the scale": 2} and found["n"] == 3
        # Errors of the texts: 2/3, 1, and (1 + 9) / 2 against 7 and 9.
        assert reviews["judge"]["mse"]["value"] == pytest.approx((2 / 3 + 1 + 5) / 3)
        assert reviews["human"]["mse"]["value"] == pytest.approx((6 + 0 + 4) / 3)
        assert reviews["judge"]["decision_accuracy"]["value"] == 1
        assert reviews["human"]["decision_accuracy"]["value"] == pytest.approx((2 / 3 + 1 + 1) / 3)
        text = capsys.readouterr().out
        assert "proxy MSE" in text and "an individual person" in text and "3 of 5 texts scored" in text

    def test_a_judge(self, tmp_path, capsys):
        rows = [
            {"prompt": "Write.", "output": f"Text {i}.", "ratings": [1 + i % 10, 1 + (i * 3) % 10]}
            for i in range(12)
        ]
        code, found = self.run(tmp_path, rows, "--judge", "org/J", "--engine.name", "scripted")
        assert code == 0 and found["metric"].startswith("s_q@j.")
        reviews, kept = found["reviews"], found["rows"]
        # S_q of 0..100 is put on 1..10.
        errors = [
            proxy_errors(row["ratings"], 1 + 9 * one["judge"] / 100)[0]
            for row, one in zip(rows, kept, strict=True)
        ]
        assert reviews["n"] == 12
        assert reviews["judge"]["mse"]["value"] == pytest.approx(math.fsum(errors) / 12)
        assert reviews["judge"]["decision_accuracy"] is None
        assert kept[0]["human"] == 1.0

    @pytest.mark.parametrize(
        ("row", "flags", "message"),
        [
            ({"ratings": [5]}, (), "ratings is [5], expected two or more numbers from 1 to 10"),
            ({"ratings": [5, 11]}, (), "ratings is [5, 11]"),
            ({"ratings": [5, 6], "decision": "maybe"}, (), "decision is 'maybe', expected accept or reject"),
            ({"ratings": [5, 6]}, (), "no row of"),
            ({"prediction": 4}, (), "or ratings, a list of them"),
            ({"ratings": [5, 6], "prediction": 4}, ("--accept_from", "12"), "accept_from is 12"),
            (
                {"prompt": "a", "output": "b", "ratings": [5, 6], "prediction": 4},
                ("--judge", "m", "--engine.name", "scripted"),
                "have a prediction already",
            ),
            (
                {"prompt": "a", "output": "b", "human": 5, "checklist": "x"},
                ("--judge", "m", "--engine.name", "scripted", "--scorer", "checklist"),
                "checklist is 'x', expected a list of items",
            ),
        ],
    )
    def test_mistakes_are_named(self, tmp_path, capsys, row, flags, message):
        code, _ = self.run(tmp_path, [row], *flags)
        assert code == 2 and message in capsys.readouterr().err

    def test_a_checklist_against_people(self, tmp_path):
        row = {"prompt": "a", "output": "b", "human": 5, "checklist": ["Is it kind?"]}
        flags = ("--judge", "org/J", "--engine.name", "scripted", "--scorer", "checklist")
        code, found = self.run(tmp_path, [row, row], *flags)
        assert code == 0 and found["n"] == 2 and found["reviews"] is None and found["unscored"] == {}

    def test_a_row_without_one_is_counted(self, tmp_path):
        rows = [{"prompt": "a", "output": "b", "human": 5, **more} for more in ({}, {"checklist": ["Kind?"]})]
        flags = ("--judge", "org/J", "--engine.name", "scripted", "--scorer", "checklist")
        code, found = self.run(tmp_path, rows, *flags)
        assert code == 0 and found["n"] == 1 and found["unscored"] == {"the scorer leaves the row out": 1}
