from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from data_builders.agent_write import Config, build, length_score, length_target
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import EngineDead, EngineError, Sampling
from lengthwise.engines.scripted import Config as EngineConfig
from lengthwise.engines.scripted import Engine, prose
from lengthwise.journal import Journal
from lengthwise.outcomes import Failed, Kept, Outcome, Rejected
from lengthwise.records import LengthTarget, Message, Prompt, Sample, user

POINTS = ("the storm gathers", "a boat is missing", "the search by night", "what the morning shows")


def plan_reply(*words: int) -> str:
    return json.dumps([{"main_point": POINTS[i], "num_words": w} for i, w in enumerate(words)])


def sample(prompt: str = "Write a story of 600 words about a storm.", **fields: Any) -> Sample:
    return Sample(id="s1", messages=user(prompt), **fields)


class Script:
    """A model that plans from a list of replies and writes sections from a table of (index, attempt)."""

    def __init__(self, plans: list[str], sections: dict[tuple[int, int], str] | None = None):
        self.plans = plans
        self.sections = sections or {}
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self.attempts: dict[int, int] = {}

    def __call__(self, prompt: Prompt, sampling: Sampling, draw: int) -> str:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        task = re.search(
            r"Now write section (\d+) of \d+, about (\d+) words|现在写第 (\d+) 节.*?约 (\d+) 字",
            prompt[-1].content,
        )
        if task is None:
            return self.plans.pop(0)
        index, words = int(task[1] or task[3]), int(task[2] or task[4])
        attempt = self.attempts.get(index, 0)
        self.attempts[index] = attempt + 1
        return self.sections.get((index, attempt), prose(1000 * index + attempt, words))

    @property
    def section_prompts(self) -> list[str]:
        return [p[-1].content for p in self.prompts if "written_so_far" in p[-1].content]


@pytest.fixture
def run(tmp_path) -> Callable[..., Outcome]:
    def run_build(
        script: Callable[..., str],
        asked: Sample | None = None,
        *,
        engine: dict[str, Any] | None = None,
        **options: Any,
    ) -> Outcome:
        async def go() -> Outcome:
            opened = Engine("scripted-model", EngineConfig(**(engine or {})), responder=script)
            journal = Journal(tmp_path / "journal.jsonl")
            asked_sample = asked or sample()
            callers = {
                role: Caller(engine=opened, journal=journal, sample_id=asked_sample.id, role=role)
                for role in ("planner", "writer")
            }
            try:
                return await build(asked_sample, callers, Config(**options))
            finally:
                journal.close()

        return asyncio.run(go())

    return run_build


def rejected(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    assert isinstance(outcome, Rejected)
    return outcome.reason, dict(outcome.record)


# --- the way of a good sample --------------------------------------------------------------------------


def test_a_good_text_is_kept_with_all_that_made_it(run):
    script = Script([plan_reply(300, 300)])
    outcome = run(script)
    assert isinstance(outcome, Kept)
    row = outcome.record
    text = f"{prose(1000, 300)}\n\n{prose(2000, 300)}"
    assert row["messages"] == [
        {"role": "user", "content": "Write a story of 600 words about a storm."},
        {"role": "assistant", "content": text},
    ]
    assert row["length"] == {
        "requested": LengthTarget.about(600).to_dict(),
        "requested_source": "prompt",
        "words_longbench": 600,
        "words_longen": 600,
        "tokens": 600,
    }
    assert row["scores"] == {"s_l": 100.0, "s_l_plan": 100.0, "repetition": 0.0, "ends_cleanly": True}
    assert [s["main_point"] for s in row["plan"]] == list(POINTS[:2])
    assert (row["plan_source"], row["plan_scaled_by"], row["plan_attempts"]) == ("planner", None, [[]])
    assert [call["step"] for call in row["calls"]] == ["plan", "section_1", "section_2"]
    assert [f["verdict"] for f in row["filters"]] == ["kept", "kept"]
    assert row["lineage"] == ["agent_write"]
    assert json.loads(json.dumps(row)) == row


def test_each_section_sees_the_plan_and_all_text_so_far(run):
    script = Script([plan_reply(200, 200, 200)])
    assert isinstance(run(script), Kept)
    first, second, third = script.section_prompts
    assert "(nothing yet)" in first
    assert prose(1000, 200) in second and prose(2000, 200) not in second
    assert f"{prose(1000, 200)}\n\n{prose(2000, 200)}" in third
    for prompt in script.section_prompts:
        assert "2. a boat is missing (200 words)" in prompt
    assert "do not conclude" in second and "last section" not in second.splitlines()[-1]
    assert "last section" in third.splitlines()[-1]


def test_prompts_share_the_longest_prefix_and_the_task_stands_last(run):
    script = Script([plan_reply(200, 200, 200)])
    run(script)
    _, second, third = script.section_prompts
    shared = second.index("\n</written_so_far>")
    assert second[:shared] == third[:shared]
    assert second.index("Now write section 2") > second.index("</written_so_far>")


def test_section_cap_follows_the_planned_words(run):
    script = Script([plan_reply(200, 400)])
    run(script)
    assert [s.max_tokens for s in script.samplings[1:]] == [500, 1000]
    assert script.samplings[1].json_schema is None


def test_schema_is_used_only_where_the_engine_has_it(run):
    script = Script([plan_reply(300, 300)])
    run(script)
    schema = script.samplings[0].json_schema
    assert schema is not None and schema["type"] == "array"
    assert "JSON array" in script.prompts[0][-1].content
    plain = Script(["1. the storm gathers (300 words)\n2. a boat is missing (300 words)"])
    assert isinstance(run(plain, engine={"json_schema": False}), Kept)
    assert plain.samplings[0].json_schema is None
    assert "one line per section" in plain.prompts[0][-1].content


def test_chinese_instruction_gets_chinese_prompts(run):
    hanzi = [chr(0x4E00 + 7 * i) for i in range(400)]
    script = Script(
        ['[{"main_point": "风暴来临", "num_words": 200}, {"main_point": "渔船失踪", "num_words": 200}]'],
        {(1, 0): "".join(hanzi[:200]) + "。", (2, 0): "".join(hanzi[200:]) + "。"},
    )
    outcome = run(script, sample("写一篇400字的故事，讲一场风暴。"))
    assert isinstance(outcome, Kept)
    assert outcome.record["language"] == "zh"
    assert "1. 风暴来临 (200字)" in script.prompts[1][-1].content
    assert script.samplings[1].max_tokens == 600
    assert set(outcome.record["prompts"]) >= {"agent_write_plan.zh", "agent_write_section.zh"}


def test_system_turns_go_along(run):
    asked = Sample(
        id="s", messages=(Message(role="system", content="Be warm."), *user("Write 600 words on rain."))
    )
    script = Script([plan_reply(300, 300)])
    outcome = run(script, asked)
    assert isinstance(outcome, Kept)
    assert [m["role"] for m in outcome.record["messages"]] == ["system", "user", "assistant"]
    assert all(p[0].content == "Be warm." for p in script.prompts)


def test_material_is_used_and_becomes_part_of_the_prompt(run):
    asked = sample(metadata={"notes": "The boat was called Marigold."})
    script = Script([plan_reply(300, 300)])
    outcome = run(script, asked, context_column="notes")
    assert isinstance(outcome, Kept)
    assert all("Marigold" in p[-1].content for p in script.prompts)
    assert outcome.record["messages"][0]["content"].endswith("Marigold.")


# --- the length ----------------------------------------------------------------------------------------


def test_length_comes_from_config_then_row_then_prompt_then_nowhere():
    asked = sample(length=LengthTarget.about(900))
    assert length_target(asked, Config(target_words=700)) == (LengthTarget.about(700), "config")
    assert length_target(asked, Config()) == (LengthTarget.about(900), "row")
    assert length_target(sample(), Config()) == (LengthTarget.about(600), "prompt")
    assert length_target(sample("Write about rain."), Config()) == (None, None)


def test_without_a_length_the_plan_decides(run):
    outcome = run(Script([plan_reply(300, 250, 400)]), sample("Write about a storm."))
    assert isinstance(outcome, Kept)
    assert outcome.record["length"]["requested"] is None
    assert outcome.record["scores"]["s_l"] is None
    assert outcome.record["scores"]["s_l_plan"] == 100.0
    assert outcome.record["length"]["words_longbench"] == 950


def test_a_length_in_tokens_cannot_be_planned(run):
    reason, _ = rejected(run(Script([]), sample(length=LengthTarget.about(900, unit="tokens"))))
    assert reason == "target: unit"


def test_a_length_out_of_reach(run):
    reason, record = rejected(run(Script([]), target_words=60_000))
    assert reason == "plan: length out of reach"
    assert "60000" in record["detail"]


@pytest.mark.parametrize(
    ("target", "words", "score"),
    [
        (LengthTarget.about(1000), 1600, 80.0),
        (LengthTarget(min=1000, relation="at_least"), 900, 94.444),
        (LengthTarget(min=1000, relation="at_least"), 9000, 100.0),
        (LengthTarget(max=1000, relation="at_most"), 400, 100.0),
        (LengthTarget(max=1000, relation="at_most"), 1600, 80.0),
        (LengthTarget(min=800, max=1000, relation="range"), 850, 100.0),
        (LengthTarget.about(1000), 0, 0.0),
    ],
)
def test_length_score_is_full_where_the_wish_is_met(target, words, score):
    assert length_score(target, words) == pytest.approx(score, abs=1e-3)


# --- the plan ------------------------------------------------------------------------------------------


def test_a_plan_that_is_off_is_rescaled_and_says_so(run):
    outcome = run(Script([plan_reply(200, 200)]))
    assert isinstance(outcome, Kept)
    assert outcome.record["plan_scaled_by"] == 1.5
    assert [s["num_words"] for s in outcome.record["plan"]] == [300, 300]


def test_a_faulty_plan_is_repaired_with_its_faults_named(run):
    twice = json.dumps([{"main_point": "the storm", "num_words": 300}] * 2)
    script = Script([twice, "no plan at all", plan_reply(300, 300)])
    outcome = run(script)
    assert isinstance(outcome, Kept)
    assert outcome.record["plan_attempts"] == [["same_point first=1 second=2"], ["unreadable"], []]
    assert [(c["step"], c["attempt"]) for c in outcome.record["calls"][:3]] == [
        ("plan", 0),
        ("plan", 1),
        ("plan", 2),
    ]
    asked, shown, named = script.prompts[1]
    assert asked == script.prompts[0][0]
    assert shown.content == twice
    assert "sections 1 and 2 cover the same thing" in named.content


def test_after_two_repairs_the_sample_is_rejected(run):
    script = Script([plan_reply(300)] * 3)
    reason, record = rejected(run(script))
    assert reason == "plan: section_count"
    assert len(script.prompts) == 3
    assert len(record["plan_attempts"]) == 3
    assert record["messages"][-1] == {"role": "assistant", "content": ""}


def test_a_cut_plan_is_invalid_even_if_it_parses(run):
    script = Script([plan_reply(300, 300) + " and so on" * 2000] * 3)
    reason, _ = rejected(run(script))
    assert reason == "plan: cut_off"


def test_of_several_candidates_the_first_valid_one_is_taken(run):
    script = Script(["nonsense", plan_reply(300, 300), plan_reply(200, 400)])
    outcome = run(script, plan_candidates=3)
    assert isinstance(outcome, Kept)
    assert [s["num_words"] for s in outcome.record["plan"]] == [300, 300]
    assert script.samplings[0].n == 3


def test_of_several_sections_the_fittest_is_taken_and_of_the_fit_the_nearest_in_length(run):
    texts = {
        (1, 0): "I'm sorry, but I cannot help with that.",
        (1, 1): prose(1, 240),
        (1, 2): prose(2, 290),
        (2, 0): prose(3, 600),  # too long
        (2, 1): prose(4, 90),  # too short
        (2, 2): prose(5, 450),
    }
    script = Script([plan_reply(300, 300)], texts)
    outcome = run(script, section_candidates=3, min_length_score=0.0)
    assert isinstance(outcome, Kept)
    assert outcome.record["messages"][1]["content"] == f"{texts[1, 2]}\n\n{texts[2, 2]}"
    first, second = (section["tries"] for section in outcome.record["sections"])
    assert ([t["words"] for t in first], [t["words"] for t in second]) == ([9, 240, 290], [600, 90, 450])
    assert [sampling.n for sampling in script.samplings] == [1, *[3] * 6]


def test_a_given_plan_is_used_without_a_call(run):
    given = [{"main_point": "the storm", "num_words": 300}, {"main_point": "the calm", "num_words": 300}]
    outcome = run(Script([]), sample(metadata={"plan": given}))
    assert isinstance(outcome, Kept)
    assert outcome.record["plan_source"] == "row"
    assert [c["step"] for c in outcome.record["calls"]] == ["section_1", "section_2"]


def test_a_given_plan_of_texts_shares_the_length_out(run):
    outcome = run(Script([]), sample(metadata={"plan": ["the storm", "the calm"]}))
    assert isinstance(outcome, Kept)
    assert [s["num_words"] for s in outcome.record["plan"]] == [300, 300]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [(["only one"], "plan: given plan section_count"), (7, "plan: given plan unreadable")],
)
def test_a_bad_given_plan_is_the_inputs_fault(run, plan, reason):
    assert rejected(run(Script([]), sample(metadata={"plan": plan})))[0] == reason


# --- the sections --------------------------------------------------------------------------------------


REFUSED = [
    ("too_short", {"text": prose(5, 40)}, "only 40 words"),
    ("too_long", {"text": prose(5, 490)}, "490 words"),
    ("truncated", {"text": prose(5, 2000)}, "cut off"),
    ("empty", {"text": " "}, "empty"),
    ("refusal", {"text": "I'm sorry, but I cannot help with that request."}, "refused"),
    ("language", {"text": "海上的风暴来了" * 40}, "another language"),
    (
        "early_conclusion",
        {"text": f"{prose(5, 280)}\n\nIn conclusion, {prose(6, 20)}"},
        "ended with a conclusion",
    ),
]


@pytest.mark.parametrize(("check", "case", "words"), REFUSED)
def test_a_bad_section_is_rewritten_once_with_its_fault_named(run, check, case, words):
    script = Script([plan_reply(300, 300)], {(1, 0): case["text"]})
    outcome = run(script)
    assert isinstance(outcome, Kept)
    attempts = outcome.record["sections"][0]["tries"]
    assert [len(a["faults"]) > 0 for a in attempts] == [True, False]
    assert attempts[0]["faults"][0].split()[0] == check
    assert words in script.section_prompts[1].splitlines()[-1]
    assert [(c["step"], c["attempt"]) for c in outcome.record["calls"][1:3]] == [
        ("section_1", 0),
        ("section_1", 1),
    ]


@pytest.mark.parametrize(("check", "case", "words"), REFUSED)
def test_a_section_that_stays_bad_rejects_the_sample(run, check, case, words):
    script = Script([plan_reply(300, 300)], {(1, 0): case["text"], (1, 1): case["text"]})
    reason, record = rejected(run(script))
    assert reason == f"section: {check}"
    assert record["detail"].startswith("section 1: ")
    assert len(record["sections"][0]["tries"]) == 2


def test_overlap_with_earlier_text(run):
    again = prose(1000, 300)
    script = Script([plan_reply(300, 300)], {(2, 0): again})
    outcome = run(script)
    assert isinstance(outcome, Kept)
    assert outcome.record["sections"][1]["tries"][0]["faults"] == ["overlap share=1.0"]
    script = Script([plan_reply(300, 300)], {(2, 0): again, (2, 1): again})
    reason, record = rejected(run(script, sample("Write 600 words on a second storm.")))
    assert reason == "section: overlap"
    assert record["messages"][-1]["content"] == prose(1000, 300)
    assert record["length"]["words_longbench"] == 300


def test_a_label_is_stripped_and_no_fault(run):
    script = Script([plan_reply(300, 300)], {(1, 0): f"Section 1: {prose(8, 300)}\n\n(300 words)"})
    outcome = run(script)
    assert isinstance(outcome, Kept)
    assert outcome.record["messages"][-1]["content"].startswith(prose(8, 300))
    (attempt,) = outcome.record["sections"][0]["tries"]
    assert attempt["label_stripped"] and attempt["faults"] == []


def test_the_last_section_may_conclude(run):
    ending = f"{prose(5, 280)}\n\nIn conclusion, {prose(6, 20)}"
    assert isinstance(run(Script([plan_reply(300, 300)], {(2, 0): ending})), Kept)


def test_a_tolerated_check_is_rewritten_then_recorded(run):
    short = prose(5, 40)
    script = Script([plan_reply(300, 300)], {(1, 0): short, (1, 1): short})
    outcome = run(script, tolerate=["too_short"], min_length_score=0.0)
    assert isinstance(outcome, Kept)
    assert [a["faults"] for a in outcome.record["sections"][0]["tries"]] == [
        ["too_short words=40 planned=300"]
    ] * 2


def test_a_tolerated_fault_is_fitter_than_a_lighter_one_that_refuses(run):
    short, same = prose(5, 40), prose(1, 300)
    script = Script([plan_reply(300, 300)], {(1, 0): same, (2, 0): short, (2, 1): same})
    outcome = run(script, tolerate=["too_short"], min_length_score=0.0)
    assert isinstance(outcome, Kept)
    section = outcome.record["sections"][1]
    assert (section["taken"], section["text"]) == (0, short)
    assert [t["faults"][0].split()[0] for t in section["tries"]] == ["too_short", "overlap"]


def test_the_first_try_stands_where_the_rewrite_is_worse(run):
    long, cut = prose(5, 500), prose(6, 2000)
    script = Script([plan_reply(300, 300)], {(1, 0): long, (1, 1): cut})
    outcome = run(script, tolerate=["too_long"], min_length_score=0.0)
    assert isinstance(outcome, Kept)
    section = outcome.record["sections"][0]
    assert (section["taken"], section["words"], section["text"]) == (0, 500, long)
    assert [t["finish_reason"] for t in section["tries"]] == ["stop", "length"]


# --- the final gate ------------------------------------------------------------------------------------


def test_a_text_that_misses_its_length_is_rejected(run):
    # Each section is inside its own window, the text is not: 60 % of the wanted words score 66.7.
    sections = {(1, 0): prose(1, 180), (2, 0): prose(2, 180)}
    reason, record = rejected(run(Script([plan_reply(300, 300)], sections)))
    assert reason == "final: length_score"
    assert record["scores"]["s_l"] == 66.667
    assert [f["verdict"] for f in record["filters"]] == ["rejected", "kept"]
    assert isinstance(run(Script([plan_reply(300, 300)], dict(sections)), min_length_score=60.0), Kept)


def test_a_text_that_repeats_itself_is_rejected(run):
    loop = " ".join([prose(4, 30)] * 10)
    reason, record = rejected(run(Script([plan_reply(300, 300)], {(1, 0): loop})))
    assert reason == "final: repetition"
    assert record["scores"]["repetition"] > 0.4


# --- input, context, engine ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (sample("  "), "input: empty prompt"),
        (
            Sample(id="s", messages=(*user("a"), Message(role="assistant", content="b"), *user("c"))),
            "input: not a single user turn",
        ),
    ],
)
def test_inputs_that_are_no_instruction(run, asked, reason):
    assert rejected(run(Script([]), asked))[0] == reason


def test_a_missing_context_column_is_the_inputs_fault(run):
    assert rejected(run(Script([]), context_column="notes"))[0] == "input: no context"


def test_a_call_that_does_not_fit_is_not_made(run):
    script = Script([plan_reply(300, 300)])
    reason, record = rejected(run(script, engine={"context_length": 1000}))
    assert reason == "context: section call does not fit"
    assert record["length"]["words_longbench"] == 300
    assert re.search(r"\d+ prompt tokens \+ 750 for the reply > 1000", record["detail"])
    assert len(script.prompts) == 2
    reason, _ = rejected(run(Script([]), sample("Write 600 words on fog."), engine={"context_length": 100}))
    assert reason == "context: plan call does not fit"


def test_an_engine_error_fails_the_sample_with_what_was_written(run):
    script = Script([plan_reply(300, 300)])

    def breaks(prompt: Prompt, sampling: Sampling, draw: int) -> str:
        if "Now write section 2" in prompt[-1].content:
            raise EngineError("the server answered 500")
        return script(prompt, sampling, draw)

    outcome = run(breaks)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "engine: EngineError"
    assert outcome.record["detail"] == "the server answered 500"
    assert outcome.record["messages"][-1]["content"] == prose(1000, 300)


def test_a_dead_engine_stops_the_run(run):
    def dies(prompt: Prompt, sampling: Sampling, draw: int) -> str:
        raise EngineDead("gone")

    with pytest.raises(EngineDead):
        run(dies)


def test_a_second_run_repeats_no_call_and_gives_the_same_row(run):
    script = Script([plan_reply(300, 300)])
    first = run(script)
    num_calls = len(script.prompts)
    assert run(script).record == first.record
    assert len(script.prompts) == num_calls == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "fr"}, "language is 'fr'"),
        ({"tolerate": ["truncated"]}, "tolerate is 'truncated'"),
        ({"min_sections": 5, "max_sections": 4}, "min_sections is 5, above max_sections 4"),
        ({"plan_candidates": 0}, "plan_candidates is 0"),
        ({"section_candidates": 0}, "section_candidates is 0"),
        ({"target_words": 1}, "target_words is 1"),
        ({"max_plan_repairs": -1}, "max_plan_repairs is -1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(**options)
