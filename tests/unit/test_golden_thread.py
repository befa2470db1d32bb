"""Texts of many entries: hand-made ones with known answers, the made tasks, the original's shape, and a judge."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.base import Score, score_completion
from evals.config import EvalConfig
from evals.golden_thread_rows import SCENARIO_FILE, SCENARIO_NAMES, Size, make_rows, scenarios
from evals.plan import plan_task
from evals.results import Tally, summarise
from evals.scorer_plan import panels_of, plan_judges, plan_scorers
from evals.scorers import golden_thread_judge
from evals.scorers.base import Reply
from evals.sources import sort_rows
from evals.tasks import golden_thread
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.scripted import Config, Engine
from lengthwise.event_words import content_words, folded, has_event
from lengthwise.golden_thread import (
    KINDS,
    Check,
    completion_rate,
    count_checks,
    position_fifth,
    read_checks,
    split_entries,
)
from lengthwise.journal import Journal
from lengthwise.judge import Judge, JudgeSettings
from lengthwise.records import Sample
from lengthwise.templates import load_prompt

TASK: Any = golden_thread

# A busy machine is no failure.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

ROW = {
    "prompt": "Keep the log. #*# *** finished\n#*# Watch 1 (dawn): ",
    "prefix": "#*# Watch 1 (dawn): ",
    "type": "Watch",
    "number": 4,
    "min_words": 3,
    "checks_once": {"2": "a whale sings", "4": "the anchor breaks"},
    "checks_range": {"2": "drifting ice", "3": "drifting ice"},
    "checks_periodic": {},
}
"""Four entries with four checks, in the original's fields."""

WHOLE = (
    "Calm and grey. #*# Watch 2: A whale sang through drifting ice. "
    "#*# Watch 3: Still drifting, no ice to see. #*# Watch 4: The anchor breaks loose. *** finished"
)


def load(*rows: dict[str, Any], tmp_path: Path, **options: Any) -> list[Sample]:
    file = tmp_path / "Dataset.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return sort_rows(golden_thread.load(str(file), **options), "raise", data="d").samples


def sample(row: dict[str, Any] | None = None, *, prefill: bool = True) -> Sample:
    return Sample(id="s", messages=(), metadata={**(row or ROW), "prefill": prefill})


def score(text: str, row: dict[str, Any] | None = None, **options: Any) -> dict[str, float]:
    return golden_thread.score(sample(row, **options), text, "stop")


class TestEntries:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", {}),
            ("no heading at all", {}),
            ("#*# Room 1: a #*# Room 2: b", {1: ": a", 2: ": b"}),
            ("#*# Room 2: b #*# Room 1: a", {2: ": b", 1: ": a"}),
            ("#*# Room 1: a #*# Room 1: again", {1: ": a"}),
            ("#*# Room 1: a #*# Room 3: c", {1: ": a", 3: ": c"}),
            ("#*# Room 1: see Room 2 #*# no number", {1: ": see Room 2"}),
            ("#*# Room 1: a *** finished #*# Room 2: b", {1: ": a"}),
            ("Room 1: a #*# Room 2: b", {1: ": a", 2: ": b"}),
            ("#*# room 1: a", {}),
            ("#*# Room one: a", {}),
            ("#*# Room 007: a", {7: ": a"}),
            (f"#*# Room {'9' * 5000}: a", {}),
            ("#*# Room 1: #*##*# Room 2:", {1: ":", 2: ":"}),
        ],
    )
    def test_split(self, text, expected):
        assert split_entries(text, "Room") == expected

    def test_a_unit_is_no_pattern(self):
        assert split_entries("#*# Bed (old) 1: x", "Bed (old)") == {1: ": x"}

    def test_stubs_complete_the_papers_rate_and_not_the_strict_one(self):
        entries = {1: "one two three", 2: "stub", 9: "one two three"}
        assert completion_rate(entries, 4) == 0.5
        assert completion_rate(entries, 4, min_words=3) == 0.25
        headed = split_entries("#*# Week 1: one two three #*# Week 2 - one two three four", "Week")
        assert completion_rate(headed, 2, min_words=4) == 0.5  # the colon and the dash are no words
        with pytest.raises(ValueError, match="at least 1"):
            completion_rate(entries, 0)

    def test_fifths(self):
        assert [position_fifth(entry, 3) for entry in (1, 2, 3, 4)] == [1, 2, 4, 5]


CHECKS = st.lists(
    st.builds(
        Check, entry=st.integers(1, 8), event=st.sampled_from(["rain", "snow"]), kind=st.sampled_from(KINDS)
    ),
    min_size=1,
    max_size=12,
)


class TestCounts:
    @given(CHECKS, st.sets(st.integers(1, 9)), st.data())
    def test_stic_2_is_stic_1_times_the_share_judged(self, checks, written, data):
        met = data.draw(st.lists(st.booleans(), min_size=len(checks), max_size=len(checks)))
        counts = count_checks(checks, dict.fromkeys(written, ""), met)
        assert counts.stic_2 is not None
        if counts.stic_1 is None:
            assert counts.num_found == counts.num_met == 0 and counts.stic_2 == 0
        else:
            assert counts.stic_2 <= counts.stic_1
            assert counts.stic_2 == pytest.approx(counts.stic_1 * counts.num_found / counts.num_all)

    @given(st.permutations(["1: Calm.", "2: A whale sings.", "3: Drifting ice.", "4: Home."]))
    def test_the_order_of_entries_does_not_matter(self, pieces):
        text = " ".join(f"#*# Watch {piece}" for piece in pieces)
        assert score(text, prefill=False) == score(
            "#*# Watch " + " #*# Watch ".join(sorted(pieces)), prefill=False
        )

    def test_no_judged_check_has_no_stic_1(self):
        counts = count_checks([Check(entry=3, event="rain", kind="once")], {1: "rain"}, [True])
        assert (counts.stic_1, counts.stic_2) == (None, 0.0)
        assert count_checks([], {}, []).stic_2 is None

    def test_an_entry_may_carry_several_checks_of_one_kind(self):
        checks = read_checks({"checks_range": {"2": ["rain", "snow"]}, "checks_once": {"2": "rain"}})
        assert [(check.kind, check.event) for check in checks] == [
            ("once", "rain"),
            ("range", "rain"),
            ("range", "snow"),
        ]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "no check in checks_once, checks_range, checks_periodic"),
            ({"checks_once": {}}, "no check"),
            ({"checks_once": ["rain"]}, "must map entries to events, not be list"),
            ({"checks_once": {"two": "rain"}}, "the entry 'two': it must be a number from 1"),
            ({"checks_once": {"0": "rain"}}, "the entry '0'"),
            ({"checks_once": {"2": ""}}, "for entry 2 no event"),
            ({"checks_once": {"2": []}}, "for entry 2 no event"),
            ({"checks_once": {"2": [3]}}, "for entry 2 no event"),
        ],
    )
    def test_what_is_no_check(self, fields, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            read_checks(fields)


class TestEventWords:
    @pytest.mark.parametrize(
        ("text", "event", "expected"),
        [
            ("A whale sings.", "a whale sings", True),
            ("Whales were singing all night", "a whale sings", True),
            ("The singer saw a whale.", "a whale sings", False),
            ("WHALE—SINGS", "a whale sings", True),
            ("a well known cook", "the well-known cook", True),
            ("the captain’s boots", "the captain's boot", True),
            (
                "The anchor broke.",
                "the anchor breaks",
                False,
            ),  # an irregular form is missed: it is a lower bound
            ("No whale sings.", "a whale sings", True),  # and a denial is not seen
            ("", "a whale sings", False),
            ("anything", "it is there", False),
            ("anything", "", False),
        ],
    )
    def test_all_content_words(self, text, event, expected):
        assert has_event(text, event) is expected

    @pytest.mark.parametrize(
        "forms",
        [
            ("repair", "repairs", "repaired", "repairing"),
            ("bake", "bakes", "baked", "baking"),
            ("carry", "carries", "carried", "carrying"),
            ("stop", "stops", "stopped", "stopping"),
            ("pass", "passes", "passed", "passing"),
            ("watch", "watches", "watched", "watching"),
            ("cook", "cook's", "cooks"),
        ],
    )
    def test_forms_of_a_word_share_their_key(self, forms):
        assert len({folded(form) for form in forms}) == 1

    @given(st.text(max_size=60))
    def test_a_text_holds_itself_where_it_says_anything(self, text):
        assert has_event(text, text) is bool(content_words(text))


class TestScore:
    def test_a_whole_text(self):
        found = score(WHOLE)
        # Met are drifting ice in 2 and 3 and the anchor in 4; "sang" is no regular form of "sings".
        assert (found["cr"], found["cr_strict"]) == (1.0, 1.0)
        assert (found["num_checks"], found["num_found"], found["num_met_bound"]) == (4, 4, 3)
        assert found["stic_1_bound"] == found["stic_2_bound"] == found["wavg_bound"] == 0.75
        assert (found["stic_1_once_bound"], found["stic_1_range_bound"]) == (0.5, 1.0)
        assert "stic_1_periodic_bound" not in found and "stic_2_periodic_bound" not in found
        assert found["words"] == found["words_complete"] == len(WHOLE.partition("***")[0].split())

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_an_empty_reply_has_no_entry_although_its_heading_was_given(self, text):
        found = score(text)
        assert (found["cr"], found["cr_strict"], found["stic_2_bound"], found["wavg_bound"]) == (0, 0, 0, 0)
        assert "stic_1_bound" not in found and "words_complete" not in found

    def test_stub_entries(self):
        found = score("x #*# Watch 2: x #*# Watch 3: x #*# Watch 4: x")
        assert (found["cr"], found["cr_strict"]) == (1.0, 0.0)
        assert (found["stic_1_bound"], found["wavg_bound"]) == (0.0, 0.0)

    def test_of_duplicates_the_first_counts(self):
        found = score("x #*# Watch 4: No storm. #*# Watch 4: The anchor breaks.")
        assert (found["cr"], found["num_found"], found["num_met_bound"]) == (0.5, 1, 0)

    def test_a_missing_middle(self):
        found = score("Calm and grey. #*# Watch 4: The anchor breaks.")
        assert found["cr"] == 0.5
        assert (found["stic_1_bound"], found["stic_2_bound"], found["wavg_bound"]) == (1.0, 0.25, 0.125)
        assert (found["stic_2_fifth_2_bound"], found["stic_2_fifth_4_bound"]) == (0.0, 1.0)

    def test_checks_beyond_the_end_stay_and_are_counted(self):
        row = {**ROW, "checks_periodic": {"5": "a whale sings"}}
        found = score(WHOLE, row)
        assert (found["checks_beyond"], found["num_checks"], found["num_found"]) == (1, 5, 4)
        assert found["stic_2_bound"] == 0.6
        beyond = score(WHOLE.replace("*** finished", "#*# Watch 5: A whale sings."), row)
        assert (beyond["cr"], beyond["num_found"], beyond["stic_2_bound"]) == (1.0, 5, 0.8)

    def test_a_check_on_the_given_entry_is_judged_like_any(self):
        found = score("The anchor breaks.", {**ROW, "checks_once": {"1": "the anchor breaks"}})
        assert found["stic_1_bound"] == 1.0

    def test_where_no_words_are_asked_there_is_no_strict_rate(self):
        assert "cr_strict" not in score(WHOLE, {**ROW, "min_words": 0})

    def test_without_a_prefill_the_reply_brings_its_own_heading(self):
        text = "Here is the log of Watch 1 to Watch 4.\n#*# Watch 2: A whale sings, drifting ice."
        assert score(text, prefill=False)["cr"] == 0.25
        assert score(text)["cr"] == 0.5
        assert score("Watch 2: A whale sings.", prefill=False)["cr"] == 0.25

    def test_pooled_over_documents(self):
        tally = Tally()
        one, other = sample(), sample({**ROW, "checks_once": {"2": "a whale sings"}, "checks_range": {}})
        for number, (asked, text) in enumerate([(one, WHOLE), (other, "x #*# Watch 2: A whale sings.")]):
            scored = score_completion(TASK, asked, text, "stop", 10)
            tally.add({"id": str(number), "prompt_hash": str(number), **scored})
        found = summarise(TASK, tally)["overall"]
        assert found["stic_1_bound"]["value"] == found["stic_2_bound"]["value"] == 4 / 5
        assert found["cr"]["value"] == 0.75
        assert found["wavg_bound"]["value"] == pytest.approx(0.75 * 4 / 5)  # not the mean of 0.75 and 0.5

    def test_metadata_of_another_task_are_refused(self):
        with pytest.raises(ValueError, match="type"):
            golden_thread.score(Sample(id="s", messages=()), "x", "stop")

    def test_rows_of_outputs_can_be_scored(self):
        assert json.loads(golden_thread.read_target(ROW)) == json.loads(
            golden_thread.read_target({"doc": ROW})
        )
        assert len(json.loads(golden_thread.read_target(ROW))) == 4


class TestLoad:
    def test_the_originals_fields(self, tmp_path):
        row = {key: value for key, value in ROW.items() if key != "min_words"}
        (one,) = load(row, tmp_path=tmp_path)
        request, opening = golden_thread.prompt(one)
        assert (request.role, request.content) == ("user", "Keep the log. #*# *** finished")
        assert (opening.role, opening.content) == ("assistant", "#*# Watch 1 (dawn):")
        assert golden_thread.slices(one) == {"scenario": "Watch"}
        assert one.length is None and one.metadata["min_words"] == 0

    @pytest.mark.parametrize(
        ("unit", "number", "words"),
        [("Week", 52, 200), ("Floor", 100, 150), ("Day", 365, 100), ("Menu Week", 52, 0), ("Week", 20, 0)],
    )
    def test_the_words_that_published_prompts_ask(self, tmp_path, unit, number, words):
        row = {**ROW, "type": unit, "number": number}
        (one,) = load({k: v for k, v in row.items() if k != "min_words"}, tmp_path=tmp_path)
        assert one.metadata["min_words"] == words
        assert (one.length is None) == (words == 0)

    def test_without_a_prefill_only_the_user_speaks(self, tmp_path):
        (one,) = load(ROW, tmp_path=tmp_path, prefill=False)
        assert [turn.role for turn in golden_thread.prompt(one)] == ["user"]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"number": 0}, "number must be the positive whole number"),
            ({"number": "4"}, "number must be the positive whole number"),
            ({"type": None}, "type is"),
            ({"prefix": ""}, "prefix is"),
            ({"min_words": -1}, "min_words must be"),
            ({"prompt": ROW["prefix"]}, "nothing but the prefix"),
            ({"checks_once": {}, "checks_range": {}}, "no check"),
        ],
    )
    def test_bad_rows_say_what_is_wrong(self, tmp_path, fields, message):
        with pytest.raises(ConfigError, match=message):
            load({**ROW, **fields}, tmp_path=tmp_path)


class TestMadeTasks:
    SIZE = Size(num_entries=24, min_words=40, num_of={"once": 5, "range": 1, "periodic": 1})

    def test_the_same_seed_gives_the_same_tasks(self):
        rows = list(make_rows(SCENARIO_NAMES, 9, self.SIZE, seed=3))
        assert rows == list(make_rows(SCENARIO_NAMES, 9, self.SIZE, seed=3))
        assert rows[:5] == list(make_rows(SCENARIO_NAMES, 5, self.SIZE, seed=3))
        assert rows != list(make_rows(SCENARIO_NAMES, 9, self.SIZE, seed=4))
        assert [row["scenario"] for row in rows[:5]] == [*SCENARIO_NAMES, SCENARIO_NAMES[0]]
        assert len({row["prompt"] for row in rows}) == 9

    @pytest.mark.parametrize("num_entries", [3, 4, 7, 52, 365])
    def test_every_check_lies_in_the_text_and_behind_the_example(self, num_entries):
        size = Size(num_entries=num_entries, min_words=40, num_of={"once": 2, "range": 2, "periodic": 2})
        for row in make_rows(SCENARIO_NAMES, 40, size, seed=0):
            checks = read_checks(row)
            assert all(2 <= check.entry <= num_entries for check in checks)
            assert len({check.event for check in checks}) == 6
            assert len({check.entry for check in checks if check.kind == "once"}) == 2
            assert all(check.event in row["prompt"] for check in checks)

    def test_a_text_that_does_as_told_meets_all_checks(self):
        for entry in golden_thread.load(None, num_tasks=4, num_entries=24, min_words=3):
            assert isinstance(entry, Sample)
            asked = golden_thread.asked_of(entry.metadata)
            told = {
                n: ". ".join(check.event for check in asked.checks if check.entry == n) for n in range(1, 25)
            }
            text = "All is calm. " + "".join(
                f"#*# {asked.unit} {n}: It is so. {told[n]}.\n" for n in range(2, 25)
            )
            found = golden_thread.score(entry, text, "stop")
            assert found["cr"] == found["cr_strict"] == found["stic_2_bound"] == found["wavg_bound"] == 1.0

    def test_no_event_is_told_by_telling_another(self):
        for scenario in scenarios().values():
            events = [event for kind in KINDS for event in scenario.events[kind]]
            assert len(set(events)) == len(events) >= 20
            for event in events:
                assert len(content_words(event)) >= 3
                assert not has_event(f"{scenario.unit} 1 {scenario.example}", event)
                assert [other for other in events if has_event(event, other)] == [event]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_entries": 2}, "num_entries must be at least 3"),
            ({"num_once": 60}, "num_once must lie in 0..12"),
            ({"num_entries": 5, "num_once": 5}, "num_once must lie in 0..4"),
            ({"num_once": 0, "num_range": 0, "num_periodic": 0}, "nothing could be checked"),
            ({"min_words": 0}, "min_words must be at least 1"),
            ({"num_tasks": 0}, "num_tasks is 0: it must be at least 1"),
            ({"scenarios": ()}, "name one or more"),
            ({"scenarios": ("garden", "garden")}, "each once"),
        ],
    )
    def test_what_cannot_be_made(self, options, message):
        with pytest.raises(ConfigError, match=message):
            golden_thread.load(None, **options)

    def test_an_engine_that_cannot_go_on_from_an_opening_is_refused(self):
        engine = {"name": "openai_http", "base_urls": ["http://localhost:1/v1"], "context_length": 4096}
        entry: dict[str, Any] = {"name": "golden_thread", "num_tasks": 1}
        with pytest.raises(
            ConfigError, match="which gives the opening of a reply, needs an engine with prefill"
        ):
            plan_task(entry, EvalConfig(model="m", tasks=[entry], engine=engine))
        for more, options in ({"prefill": False}, {}), ({}, {"prefill": True}):
            assert plan_task({**entry, **more}, EvalConfig(model="m", tasks=[entry], engine=engine | options))

    def test_a_plan_names_the_file_they_are_made_of(self):
        entry = {
            "name": "golden_thread",
            "num_tasks": 8,
            "num_entries": 6,
            "scenarios": ["museum"],
            "num_once": 2,
        }
        planned = plan_task(entry, EvalConfig(model="m", tasks=[entry]))
        assert [file.path for file in planned.inputs] == [str(SCENARIO_FILE)]
        assert {one.metadata["scenario"] for one in planned.samples} == {"museum"}
        assert (planned.sampling.temperature, planned.sampling.stop) == (0.0, ("*** finished",))
        assert planned.samples[0].length is not None and planned.samples[0].length.nominal == 360


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield journal
    journal.close()


class TestJudge:
    @staticmethod
    def judged(
        journal: Journal, text: str, answer: Any, row: dict[str, Any] | None = None
    ) -> tuple[Score, list[str]]:
        asked: list[str] = []

        def reply(prompt: Any, sampling: Any, draw: int) -> str:
            asked.append(prompt[-1].content)
            return answer(prompt[-1].content)

        made = JudgeSettings(model="org/J", max_attempts=2)
        caller = Caller(
            engine=Engine("org/J", Config(), responder=reply),
            journal=journal,
            sample_id="t/s/0",
            role="judge:j",
            timeout_seconds=60,
        )
        one = sample(row)
        given = Reply(
            task="t",
            sample=one,
            prompt=golden_thread.prompt(one),
            index=0,
            text=text,
            finish_reason="stop",
            metrics=golden_thread.score(one, text, "stop"),
        )
        judge = Judge(id="j.1", settings=made, caller=caller)
        return asyncio.run(golden_thread_judge.score(golden_thread_judge.Config(), given, judge)), asked

    def test_each_found_check_is_asked_and_agreement_is_counted(self, journal):
        def answer(question: str) -> str:
            sung = "a whale sings" in question.rpartition("The event:")[2]
            verdict = "yes" if sung or "anchor breaks" in question else "no"
            return json.dumps({"reason": "r", "answer": verdict})

        found, asked = self.judged(journal, WHOLE, answer)
        assert len(asked) == 4 and "A whale sang through drifting ice." in asked[0]
        values = found.metrics
        assert (values["stic_1@j.1"], values["wavg@j.1"], values["stic_1_range@j.1"]) == (0.5, 0.5, 0.0)
        # By the rule: no to the whale, yes to the rest. By the judge: yes to whale and anchor, no to the ice.
        assert [values[f"{cell}@j.1"] for cell in golden_thread_judge.CELLS] == [1, 1, 2, 0]
        assert (values["agreement@j.1"], values["overreach@j.1"]) == (0.25, 0.5)
        assert [one["entry"] for one in found.notes["verdicts"]] == [2, 4, 2, 3]

    def test_missing_entries_are_not_asked_of(self, journal):
        found, asked = self.judged(
            journal, "x #*# Watch 4: It broke.", lambda _: '{"reason": "r", "answer": "yes"}'
        )
        assert len(asked) == 1
        assert (found.metrics["stic_1@j.1"], found.metrics["stic_2@j.1"]) == (1.0, 0.25)
        assert found.metrics["wavg@j.1"] == 0.5 * 0.25

    @pytest.mark.parametrize("text", ["", "x"])
    def test_nothing_found_is_not_asked(self, journal, text):
        found, asked = self.judged(journal, text, lambda _: "")
        assert asked == []
        assert found.metrics["stic_2@j.1"] == 0.0 and "stic_1@j.1" not in found.metrics
        assert "agreement@j.1" not in found.metrics

    def test_a_refusal_holds_no_event_without_a_judge(self, journal):
        row = {**ROW, "checks_once": {"1": "the anchor breaks"}}
        found, asked = self.judged(journal, "I'm sorry, but I can't write that.", lambda _: "", row)
        assert asked == [] and found.notes == {"not_judged": "refusal"}
        assert found.metrics["stic_1@j.1"] == 0.0 and "num_agreed@j.1" not in found.metrics

    def test_a_judge_without_an_answer_leaves_the_reply_unscored(self, journal):
        found, asked = self.judged(journal, WHOLE, lambda _: "Yes, of course!")
        assert len(asked) == 2  # both attempts at the first check
        assert not found.metrics and set(found.unscored.values()) == {"malformed"}
        names = {
            m.name for m in golden_thread_judge.metrics(golden_thread_judge.Config(), "j.1", ["stic_1_bound"])
        }
        assert found.unscored.keys() == names

    def test_the_prompt_names_its_keys_and_is_set_off(self):
        text = load_prompt("evals", "judge/golden_thread").text
        assert '"reason"' in text and '"answer"' in text and "${mark}" in text

    def test_a_task_without_checks_is_refused(self):
        with pytest.raises(ConfigError, match="the task golden_thread"):
            golden_thread_judge.metrics(golden_thread_judge.Config(), "j", ["s_l"])

    def test_a_panel_is_the_mean_of_what_each_judge_gave_a_document(self):
        judges = [{"model": f"org/J{number}", "engine": {"name": "scripted"}} for number in range(2)]
        planned = plan_scorers(
            ["golden_thread_judge"],
            plan_judges(judges, {"name": "scripted"}),
            TASK,
            "t",
        )
        panel = panels_of(planned)[0]
        assert panel.metric.name.startswith("wavg@panel2.")
        assert (panel.metric.summary, panel.metric.columns) == ("mean", ())
