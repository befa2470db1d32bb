"""Checklists and criteria: what a row says, the scores of grades, and the judge's scorers and their task."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.config import EvalConfig
from evals.plan import plan_tasks
from evals.scorer_plan import plan_judges, plan_scorer
from evals.scorers.base import Reply
from evals.sources import SHIPPED_PROMPTS, sort_rows
from evals.tasks import writing
from lengthwise.caller import Caller
from lengthwise.checklist import checklist_score, read_checklist, rescaled
from lengthwise.criteria import criteria_score, read_criteria, requirement_scores
from lengthwise.engines import scripted
from lengthwise.engines.base import Sampling
from lengthwise.journal import Journal
from lengthwise.judge import Judge
from lengthwise.records import Prompt, Sample, user
from lengthwise.templates import load_prompt

CHECKLIST = [
    {"item": "Is it a letter?", "weight": 3.0, "place": "beginning"},
    {"item": "Is it kind?", "weight": 1.0},
    {"item": "Is it signed?", "weight": 1.0, "place": "end"},
]
CRITERIA = [
    {"name": "Plot", "description": "Does it hold?"},
    {"name": "Size", "description": "Has it 900 words?", "requirement": "length"},
    {"name": "Pace", "description": "Is no part stretched?", "requirement": "length"},
    {"name": "Tone", "description": "Is it warm?", "requirement": "style"},
]


class TestChecklist:
    def test_the_weighted_share(self):
        items = read_checklist(CHECKLIST)
        assert checklist_score(items, [4, 2, 0]) == 100 * (3 * 1 + 1 * 0.5 + 0) / 5
        assert checklist_score(items, [4, 4, 4]) == 100 and checklist_score(items, [0, 0, 0]) == 0

    @pytest.mark.parametrize(("score", "shown"), [(100, 100), (75, 0), (50, -100), (0, -300)])
    def test_as_hellobench_prints_it(self, score, shown):
        assert rescaled(score) == shown

    @given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 4)), min_size=1))
    def test_only_the_share_of_a_weight_counts(self, given_items):
        grades = [grade for _, grade in given_items]
        one, other = (
            checklist_score(read_checklist([{"item": "x", "weight": factor * w} for w, _ in given_items]), grades)
            for factor in (1, 7)
        )  # fmt: skip
        assert 0 <= one <= 100 + 1e-9 and one == pytest.approx(other)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "expected a list"),
            ([], "expected a list"),
            ([3], "holds 3"),
            ([{"item": " "}], "with item, a text"),
            ([{"item": "x", "weight": 0}], "weight is 0, expected a number above 0"),
            ([{"item": "x", "weight": True}], "weight is True"),
            ([{"item": "x", "place": "top"}], "place is 'top', expected one of beginning, middle, end"),
        ],
    )
    def test_wrong_rows(self, value, message):
        with pytest.raises(ValueError, match=message):
            read_checklist(value)

    @pytest.mark.parametrize("grades", [[4], [4, 4, 5], [4, 4, -1]])
    def test_wrong_grades(self, grades):
        with pytest.raises(ValueError, match="grade"):
            checklist_score(read_checklist(CHECKLIST), grades)


class TestCriteria:
    def test_means(self):
        assert criteria_score([7, 8, 6, 9, 5]) == 7
        found = requirement_scores(read_criteria(CRITERIA), [10, 4, 6, 8])
        assert found == {"length_r": 7, "length_c": 5, "style_r": 7, "style_c": 8}

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("x", "expected a list"),
            (["x"], "expected a map"),
            ([{"name": "x"}], "criteria_description is None"),
            ([{"description": "x"}], "name is None"),
            ([{"name": "x", "description": "y", "requirement": "size"}], "requirement is 'size'"),
        ],
    )
    def test_wrong_rows(self, value, message):
        with pytest.raises(ValueError, match=message):
            read_criteria(value)

    @pytest.mark.parametrize("grades", [[], [0], [11], [7.5]])
    def test_wrong_grades(self, grades):
        with pytest.raises(ValueError, match="grade"):
            criteria_score(grades)


def judged(
    scorer: str, tmp_path: Path, text: str, metadata: dict[str, Any], replies: Any, **options: Any
) -> tuple[Any, dict[str, float], list[str]]:
    """Return the score, its metrics without the judge's name, and what the judge was asked."""
    (judge,) = plan_judges([{"model": "org/J", "max_attempts": 1}], {"name": "scripted"})
    (planned,) = plan_scorer({"name": scorer, **options}, [judge], [])
    asked: list[str] = []

    def respond(prompt: Prompt, sampling: Sampling, draw: int) -> str:
        asked.append(prompt[-1].content)
        return json.dumps(replies[len(asked) - 1])

    async def run() -> Any:
        journal = Journal(tmp_path / "journal.jsonl")
        engine = scripted.Engine("org/J", responder=respond)
        caller = Caller(engine=engine, journal=journal, sample_id="1", run_seed=0)
        handle = Judge(id=planned.judge_id, settings=judge.settings, caller=caller)
        sample = Sample(id="1", messages=user("Write."), metadata=metadata)
        reply = Reply(
            task="t",
            sample=sample,
            prompt=sample.messages,
            index=0,
            text=text,
            finish_reason="stop",
            metrics={},
        )
        try:
            return await planned.scorer.score(planned.config, reply, handle)
        finally:
            journal.close()

    score = asyncio.run(run())
    names = {metric.name for metric in planned.metrics}
    assert score.metrics.keys() <= names and score.unscored.keys() <= names
    for metric in planned.metrics:
        if metric.name in score.metrics:
            assert metric.worst is not None and metric.best is not None
            assert metric.worst <= score.metrics[metric.name] <= metric.best
    return score, {name.partition("@")[0]: value for name, value in score.metrics.items()}, asked


class TestChecklistScorer:
    def test_grades_become_the_score(self, tmp_path):
        verdict = {"analysis": "", "item_1": 4, "item_2": 2, "item_3": 1}
        _, found, asked = judged("checklist", tmp_path, "Dear Ada.", {"checklist": CHECKLIST}, [verdict])
        assert found == {
            "checklist": 75,
            "checklist_rescaled": 0,
            "checklist_beginning": 100,
            "checklist_end": 25,
        }
        assert "item_2: Is it kind?" in asked[0] and '"item_3": n' in asked[0]

    def test_a_verdict_that_lacks_an_item_is_no_verdict(self, tmp_path):
        verdict = {"analysis": "", "item_1": 4, "item_2": 2}
        score, found, _ = judged("checklist", tmp_path, "Dear Ada.", {"checklist": CHECKLIST}, [verdict])
        assert found == {} and set(score.unscored.values()) == {"missing key"}
        assert len(score.unscored) == 4  # nothing of the middle is asked for

    @pytest.mark.parametrize("text", ["", "I'm sorry, but I can't write that."])
    def test_an_empty_reply_and_a_refusal_meet_nothing(self, tmp_path, text):
        _, found, asked = judged("checklist", tmp_path, text, {"checklist": CHECKLIST}, [])
        assert found["checklist"] == 0 and found["checklist_rescaled"] == -300 and not asked

    def test_a_request_without_one_is_left_out(self, tmp_path):
        score, found, asked = judged("checklist", tmp_path, "Dear Ada.", {}, [])
        assert found == {} and score.unscored == {} and not asked


class TestCriteriaScorer:
    def test_one_call_each(self, tmp_path):
        verdicts = [{"reason": "", "score": grade} for grade in (10, 4, 6, 8)]
        _, found, asked = judged("criteria", tmp_path, "Once.", {"criteria": CRITERIA}, verdicts)
        assert found == {
            "criteria": 7,
            "criteria_length_r": 7,
            "criteria_length_c": 5,
            "criteria_style_r": 7,
            "criteria_style_c": 8,
        }
        assert len(asked) == 4 and "Size\nHas it 900 words?" in asked[1]

    def test_one_without_a_verdict_leaves_all_unscored(self, tmp_path):
        verdicts = [{"reason": "", "score": grade} for grade in (10, 4, 11, 8)]
        score, found, _ = judged("criteria", tmp_path, "Once.", {"criteria": CRITERIA}, verdicts)
        assert found == {} and set(score.unscored.values()) == {"out of range"} and len(score.unscored) == 5

    def test_an_empty_reply_has_the_least_grades(self, tmp_path):
        _, found, asked = judged("criteria", tmp_path, " ", {"criteria": CRITERIA}, [])
        assert set(found.values()) == {1} and not asked


class TestCoherenceScorer:
    TEXT = " ".join(f"w{i}" for i in range(300))

    def test_each_part_after_the_first(self, tmp_path):
        verdicts = [{"analysis": "", "grade": grade} for grade in (9, 4)]
        _, found, asked = judged("coherence", tmp_path, self.TEXT, {}, verdicts, num_parts=3)
        assert found == {"coherence": 6.5, "coherence_2": 9, "coherence_3": 4}
        assert "w99 " in asked[0] and "w200 " not in asked[0] and "w99 " not in asked[1]

    def test_a_part_without_a_verdict_takes_the_mean_along(self, tmp_path):
        verdicts = [{"analysis": "", "grade": 9}, {"analysis": ""}]
        score, found, _ = judged("coherence", tmp_path, self.TEXT, {}, verdicts, num_parts=3)
        assert found == {"coherence_2": 9}
        assert {name.partition("@")[0] for name in score.unscored} == {"coherence", "coherence_3"}

    def test_short_and_empty(self, tmp_path):
        assert judged("coherence", tmp_path, "A few words.", {}, [])[1] == {}
        assert set(judged("coherence", tmp_path, "", {}, [])[1].values()) == {1}

    def test_other_parts_are_another_metric(self):
        (judge,) = plan_judges([{"model": "org/J"}], {"name": "scripted"})
        ids = {plan_scorer({"name": "coherence", "num_parts": n}, [judge], [])[0].judge_id for n in (3, 5)}
        assert len(ids) == 2


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("coherence", ("analysis", "grade")),
        ("checklist", ("analysis",)),
        ("criterion", ("reason", "score")),
    ],
)
def test_the_prompts_name_every_key_they_ask_for(name, keys):
    text = load_prompt("evals", f"judge/{name}").text
    assert all(f'"{key}"' in text for key in keys) and "${mark}" in text


class TestWriting:
    def load(self, tmp_path: Path, *rows: dict[str, Any]) -> list[Sample]:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
        return sort_rows(writing.load(str(file)), "raise", data="rows").samples

    def test_the_shipped_rows(self):
        source = str(SHIPPED_PROMPTS.parent / writing.PROMPTS)
        samples = sort_rows(writing.load(source), "raise", data="shipped").samples
        assert len(samples) == 8 and {s.metadata["language"] for s in samples} == {"en", "zh"}
        for sample in samples:
            places = {item.place for item in read_checklist(sample.metadata["checklist"])}
            assert {"beginning", "middle", "end"} <= places
            criteria = read_criteria(sample.metadata["criteria"])
            assert len(criteria) == 5 and any(one.requirement == "length" for one in criteria)

    def test_hellobenchs_rows(self, tmp_path):
        row = {"id": 7, "instruction": "Write.", "category": "chat", "checklists": ["Is it kind?"]}
        (sample,) = self.load(tmp_path, row)
        assert sample.id == "7" and writing.prompt(sample) == user("Write.")
        assert sample.metadata["checklist"] == [{"item": "Is it kind?", "weight": 1.0}]
        assert writing.slices(sample) == {"category": "chat"}

    def test_writingbenchs_rows(self, tmp_path):
        criteria = [{"name": "Tone", "criteria_description": "Is it kind?", "1-2": "No.", "9-10": "Very."}]
        row = {"index": 3, "query": "Write.", "lang": "en", "domain1": "Law", "checklist": criteria}
        (sample,) = self.load(tmp_path, row)
        assert sample.id == "3" and "checklist" not in sample.metadata
        assert sample.metadata["criteria"][0]["description"] == "Is it kind?\n1-2: No.\n9-10: Very."
        assert writing.slices(sample) == {"language": "en", "category": "Law"}

    def test_words(self):
        sample = Sample(id="1", messages=user("Write."))
        assert writing.score(sample, "Dear Ada, 你好", "stop") == {"words": 4.0}
        assert writing.score(sample, "", "stop") == {"words": 0.0}

    def test_a_wrong_checklist_is_a_bad_row(self, tmp_path):
        from lengthwise.config import ConfigError

        with pytest.raises(ConfigError, match="weight is -1"):
            self.load(tmp_path, {"prompt": "Write.", "checklist": [{"item": "x", "weight": -1}]})

    def test_it_can_be_planned_with_its_scorers(self):
        config = EvalConfig(
            model="m",
            engine={"name": "scripted"},
            tasks=["writing"],
            scorers=["checklist", "criteria", "coherence", "position"],
            judges=["org/J"],
        )
        (planned,) = plan_tasks(config)
        assert len(planned.samples) == 8 and planned.sampling.temperature == 0.7
        names = [metric.name.partition("@")[0] for metric in planned.measured.METRICS]
        assert len(names) == len(set(names)) == 1 + 5 + 7 + 5 + 15 + 1
