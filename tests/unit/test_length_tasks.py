"""Options of the length tasks, and the tasks longwrite_ruler and ifeval_length."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from evals.base import Score, score_completion
from evals.config import EvalConfig
from evals.plan import plan_task
from evals.results import Tally, summarise
from evals.sources import sort_rows
from evals.tasks import ifeval_length, lifebench, longbench_write, longen, longwrite_ruler, tlg
from lengthwise.config import ConfigError
from lengthwise.meta_length import mlt_text, split_mlt
from lengthwise.records import LengthTarget, Message, Sample, user


def words(number: int) -> str:
    return " ".join(["word"] * number)


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(task: Any, source: str | None, **options: Any) -> list[Sample]:
    return sort_rows(task.load(source, **options), "raise", data=str(source)).samples


def sample(length: LengthTarget | None, **metadata: Any) -> Sample:
    return Sample(id="a", messages=user("write"), length=length, metadata=metadata)


def summary(task: Any, samples: list[Sample], texts: list[str]) -> dict[str, Any]:
    tally = Tally()
    for one, text in zip(samples, texts, strict=True):
        tally.add({"id": one.id, "prompt_hash": one.id, **score_completion(task, one, text, "stop", 10)})
    return summarise(task, tally)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "q.jsonl", [{"id": n, "instruction": f"Explain {n}."} for n in range(6)])


class TestPaperStream:
    def test_any_source_is_shuffled_and_drawn(self, questions):
        samples = load(tlg, questions, stream="paper")
        assert [one.id for one in samples] == ["2", "5", "1", "3", "0", "4"]
        assert [one.metadata["target_length"] for one in samples] == ["80", "700", "700", "150", "50", "10"]
        assert samples == load(tlg, questions, stream="paper", draw_seed=7)

    def test_rows_beyond_the_papers_number_are_left_aside(self, tmp_path):
        source = write_jsonl(tmp_path / "d.jsonl", [{"instruction": f"Explain {n}."} for n in range(2003)])
        loaded = sort_rows(tlg.load(source, stream="paper"), "raise", data="d")
        assert (len(loaded.samples), loaded.num_left_aside, loaded.num_rows) == (2000, 3, 2003)
        loaded = sort_rows(tlg.load(source, stream="paper", targets="all"), "raise", data="d")
        assert (len(loaded.samples), loaded.num_left_aside, loaded.num_rows) == (1800, 1803, 2003)

    def test_only_conversations_of_two_turns_are_shuffled(self, tmp_path):
        def turns(*texts: str) -> dict[str, Any]:
            return {"conversations": [{"from": "human", "value": text} for text in texts]}

        source = write_jsonl(
            tmp_path / "d.jsonl", [turns("a", "b", "c"), turns("Explain.", "Yes."), turns("x")]
        )
        loaded = sort_rows(tlg.load(source, stream="paper"), "raise", data="d")
        assert [one.instruction for one in loaded.samples] == ["Explain."]
        assert loaded.num_left_aside == 2
        assert [one.instruction for one in load(tlg, source)] == ["Explain."]

    def test_rows_that_state_a_target_are_refused(self, tmp_path):
        source = write_jsonl(tmp_path / "d.jsonl", [{"Instruction": "x", "TargetLength": "50"}])
        with pytest.raises(ConfigError, match="line 1: it states TargetLength, which stream: paper"):
            load(tlg, source, stream="paper")

    def test_bad_rows_stay_bad_and_are_not_drawn(self, tmp_path):
        source = write_jsonl(tmp_path / "d.jsonl", [{"text": "?"}, {"id": 1, "instruction": "Explain."}])
        loaded = sort_rows(tlg.load(source, stream="paper"), "drop", data="d")
        assert ([one.id for one in loaded.samples], len(loaded.bad_rows)) == (["1"], 1)


class TestAllTargets:
    def test_each_instruction_is_asked_for_all_nine(self, questions):
        samples = load(tlg, questions, targets="all")
        assert len(samples) == 54
        assert [one.id for one in samples[:9]] == [
            f"0/{label}" for label in ("10", "30", "50", "80", "150", "300", "500", "700", ">800")
        ]
        assert {one.instruction for one in samples[:9]} == {"Explain 0."}
        assert [tlg.cluster(one) for one in samples[8:10]] == ["0", "1"]
        assert tlg.prompt(samples[8])[-1].content.endswith("more than 800 words long.")

    def test_a_list_asks_for_these_alone(self, questions):
        samples = load(tlg, questions, targets=["150", "10"], mlt="given")
        assert [one.id for one in samples[:3]] == ["0/150", "0/10", "1/150"]
        assert tlg.prompt(samples[1])[-1].content == "[MLT:10]" and tlg.cluster(samples[1]) == "0"

    def test_the_nine_prompts_of_a_question_are_one_cluster(self, questions):
        samples = load(tlg, questions, targets="all")
        texts = [words(50 if one.metadata["question"] in "012" else 900) for one in samples]
        found = summary(tlg, samples, texts)["overall"]["fm"]
        assert (found["n"], found["method"]) == (54, "wilson, clustered (6 clusters, 5 degrees of freedom)")
        assert found["stderr"] == pytest.approx(0)  # each question meets one target: the clusters agree

    def test_arena_hard_rows_are_read_and_their_own_cluster_is_not_taken(self, tmp_path):
        row = {"question_id": "q", "cluster": "physics", "turns": [{"content": "Why?"}]}
        (one,) = load(tlg, write_jsonl(tmp_path / "d.jsonl", [row]))
        assert one.instruction == "Why?"
        task: Any = tlg
        assert "cluster" not in score_completion(task, one, "x", "stop", 1)


class TestExactLength:
    @pytest.mark.parametrize(
        ("label", "produced", "elm", "rmse"),
        [("50", 50, 1.0, 0.0), ("50", 47, 0.0, -3.0), ("10", 0, 0.0, -10.0)],
    )
    def test_distance(self, label, produced, elm, rmse):
        metrics = tlg.score(sample(tlg.target_length(label)), words(produced), "stop")
        assert isinstance(metrics, dict)
        assert (metrics["elm"], metrics["rmse"]) == (elm, rmse)

    def test_more_than_800_asks_for_no_number(self):
        assert tlg.score(sample(tlg.target_length(">800")), words(801), "stop") == {"pm": 1.0, "fm": 1.0}

    def test_rmse_is_declared_as_such(self):
        (metric,) = [m for m in tlg.METRICS if m.name == "rmse"]
        assert (metric.summary, metric.higher_is_better) == ("rmse", False)


class TestProfile:
    @pytest.mark.parametrize(
        ("label", "produced", "code", "paper"),
        [
            ("10", 20, 1.0, 0.0),
            ("30", 20, 0.0, 1.0),
            ("150", 130, 0.0, 1.0),
            ("150", 170, 1.0, 0.0),
            (">800", 800, 0.0, 1.0),
            ("10", 0, 0.0, 0.0),
        ],
    )
    def test_edges(self, questions, label, produced, code, paper):
        for profile, expected in (("code", code), ("paper", paper)):
            one = load(tlg, questions, profile=profile)[0]
            asked = sample(tlg.target_length(label), **one.metadata)
            metrics = tlg.score(asked, words(produced), "stop")
            assert isinstance(metrics, dict)
            assert metrics["pm"] == expected, profile

    def test_defaults_leave_no_trace_in_the_rows(self, questions):
        assert set(load(tlg, questions)[0].metadata) == {"target_length"}


class TestMetaLengthTokens:
    @pytest.mark.parametrize(
        ("text", "label", "rest"),
        [
            ("[MLT:50]Rain falls.", "50", "Rain falls."),
            ("\n[MLT:>800] Rain [MLT:30] falls.", ">800", "Rain  falls."),
            ("Rain [MLT:30] falls.", None, "Rain  falls."),
            ("[MLT:40]Rain", None, "[MLT:40]Rain"),
            ("", None, ""),
        ],
    )
    def test_split(self, text, label, rest):
        assert split_mlt(text) == (label, rest)

    def test_a_format_whose_tokens_hold_each_other(self):
        assert mlt_text(">800", "<len {target}>") == "<len >800>"
        assert split_mlt("len=80 x", "len={target}") == ("80", "x")
        assert split_mlt("len=>800 x", "len={target}") == (">800", "x")
        assert split_mlt("len=300 x", "len={target}") == ("300", "x")

    def test_given(self, questions):
        first = load(tlg, questions, mlt="given", mlt_format="<{target}>")[0]
        label = first.metadata["target_length"]
        assert tlg.prompt(first) == (
            Message(role="user", content="Explain 0."),
            Message(role="assistant", content=f"<{label}>"),
        )

    @pytest.mark.parametrize("label", ["50", ">800"])
    def test_tokens_are_no_words(self, label):
        asked = sample(tlg.target_length(label), mlt="given")
        bound = 60 if label == "50" else 800
        score = tlg.score(asked, f"{words(bound)} [MLT:{label}]", "stop")
        assert isinstance(score, Score)
        assert score.metrics["fm"] == float(label == "50")  # with the token's words it would be the other way
        assert score.answer == words(bound)

    def test_self_is_scored_against_its_own_token(self, questions):
        samples = load(tlg, questions, mlt="self")
        assert [one.id for one in samples] == ["0", "1", "2", "3", "4", "5"]
        assert all(one.length is None and tlg.prompt(one) == user(one.instruction) for one in samples)
        texts = [
            f"[MLT:50]{words(45)}",
            f"[MLT:50]{words(90)}",
            f"[MLT:>800]{words(800)}",
            words(50),
            "",
            f"[MLT:10]{words(10)}",
        ]
        found = summary(tlg, samples, texts)
        assert found["overall"]["fm"]["value"] == pytest.approx(2 / 6)
        assert found["overall"]["elm"]["n"] == 5
        assert found["overall"]["rmse"]["n"] == 3
        numbers = {label: group["counts"]["scored"] for label, group in found["slices"]["mlt"].items()}
        assert numbers == {"50": 2, ">800": 1, "none": 2, "10": 1}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"mlt": "self", "targets": "all"},
                "mlt is 'self', which asks for no target, but targets is 'all'",
            ),
            ({"mlt": "self", "stream": "paper"}, "stream 'paper'"),
            ({"targets": ["20"]}, r"tlg.targets is \['20'\]: name some of 10, 30"),
            ({"targets": []}, "name some of"),
            ({"mlt_format": "[MLT]"}, r"tlg.mlt_format '\[MLT\]' must hold {target} once"),
            ({"mlt_format": "{target}"}, "and marks around it"),
        ],
    )
    def test_options_that_do_not_go_together(self, questions, options, message):
        with pytest.raises(ConfigError, match=message):
            load(tlg, questions, **options)

    def test_options_are_set_by_name_in_a_config(self, questions):
        config = EvalConfig(model="m", tasks=["tlg"])
        planned = plan_task({"name": "tlg", "data": questions, "targets": "all", "mlt": "given"}, config)
        assert len(planned.samples) == 54
        with pytest.raises(ConfigError, match="tlg.mlt is 'given ', expected 'none' or 'given' or 'self'"):
            plan_task({"name": "tlg", "data": questions, "mlt": "given "}, config)


LIFEBENCH_ROW = {"category": "QA", "lang": "en", "task": "Who? {word_count_type} {word_count} words."}


class TestLifeBenchOptions:
    def test_controls(self, tmp_path):
        source = write_jsonl(tmp_path / "d.jsonl", [LIFEBENCH_ROW])
        planned = plan_task(
            {"name": "lifebench", "data": source, "controls": ["about"]},
            EvalConfig(model="m", tasks=["lifebench"]),
        )
        assert [one.length for one in planned.samples][:2] == [LengthTarget.about(16), LengthTarget.about(32)]
        assert len(planned.samples) == 10
        for wrong in ((), ("about", "about")):
            with pytest.raises(
                ConfigError, match="lifebench.controls is .*: name one or more of about, at_most"
            ):
                load(lifebench, source, controls=wrong)

    def test_the_thirty_prompts_of_a_row_are_one_cluster(self, tmp_path):
        rows = [{**LIFEBENCH_ROW, "id": name} for name in ("a", "b", "c")]
        samples = load(lifebench, write_jsonl(tmp_path / "d.jsonl", rows))
        assert [lifebench.cluster(samples[n]) for n in (0, 29, 30, 89)] == ["a", "a", "b", "c"]
        found = summary(lifebench, samples, [words(100)] * 90)["overall"]["ls"]
        assert (found["n"], found["method"]) == (90, "t, clustered (3 clusters, 2 degrees of freedom)")

    @pytest.mark.parametrize(
        ("produced", "expected"),
        [
            (105, {"ls": pytest.approx(0.00454, abs=1e-5), "ld": pytest.approx(0.05), "refusal": 0.0}),
            (100, {"ls": 100.0, "ld": 0.0, "refusal": 0.0}),
            (2, {"ls": pytest.approx(0, abs=1e-9), "ld": 0.98, "refusal": 0.0}),
            (1, {"refusal": 1.0}),
            (0, {"refusal": 1.0}),
        ],
    )
    def test_as_the_released_code(self, tmp_path, produced, expected):
        source = write_jsonl(tmp_path / "d.jsonl", [LIFEBENCH_ROW])
        one = load(lifebench, source, profile="code")[0]
        asked = sample(LengthTarget.about(100), **one.metadata)
        assert lifebench.score(asked, words(produced), "stop") == expected

    def test_a_refusal_counts_in_the_papers_profile(self):
        scores = lifebench.score(sample(LengthTarget.about(16)), "No.", "stop")
        assert (scores["refusal"], scores["ls"] > 0, scores["ld"]) == (1.0, True, 15 / 16)


class TestLongWriteRuler:
    def test_published_fields(self, tmp_path):
        row = {"prompt": "写一篇1000字的游记", "type": "社区论坛", "length": 1000}
        (one,) = load(longwrite_ruler, write_jsonl(tmp_path / "d.jsonl", [row]))
        assert longwrite_ruler.slices(one) == {"length": "1000", "language": "zh", "type": "社区论坛"}
        assert longwrite_ruler.prompt(one) == user("写一篇1000字的游记")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (words(5000), {"words": 5000.0, "ratio": 0.25, "s_l": 0.0, "refusal": 0.0}),
            (words(20_000), {"words": 20_000.0, "ratio": 1.0, "s_l": 100.0, "refusal": 0.0}),
            ("", {"words": 0.0, "ratio": 0.0, "s_l": 0.0, "refusal": 0.0}),
        ],
    )
    def test_score(self, text, expected):
        assert longwrite_ruler.score(sample(LengthTarget.about(20_000)), text, "stop") == expected

    def test_a_refusal_is_told_from_a_short_text(self):
        text = "I'm sorry, but I can't write a 20,000-word novel."
        assert longwrite_ruler.score(sample(LengthTarget.about(20_000)), text, "stop")["refusal"] == 1.0

    def test_each_asked_length_is_a_slice(self):
        samples = [
            Sample(id=str(n), messages=user("write"), length=LengthTarget.about(length))
            for n, length in enumerate((1000, 1000, 30_000))
        ]
        found = summary(longwrite_ruler, samples, [words(900), words(1100), words(3000)])["slices"]["length"]
        assert {length: group["words"]["value"] for length, group in found.items()} == {
            "1000": 1000.0,
            "30000": 3000.0,
        }
        assert found["30000"]["ratio"]["value"] == 0.1


def ifeval_row(*instructions: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "key": 7,
        "prompt": "Write.",
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [given for _, given in instructions],
        **more,
    }


def number_words(relation: str, number: float) -> tuple[str, dict[str, Any]]:
    # A table's row carries every argument of every kind, null where it has none.
    return "length_constraints:number_words", {
        "relation": relation,
        "num_words": number,
        "num_sentences": None,
    }


class TestIfevalLength:
    def load_one(self, tmp_path: Path, *instructions: tuple[str, dict[str, Any]]) -> Sample:
        (one,) = load(ifeval_length, write_jsonl(tmp_path / "d.jsonl", [ifeval_row(*instructions)]))
        return one

    @pytest.mark.parametrize(
        ("relation", "produced", "met"),
        [
            ("less than", 99, 1),
            ("less than", 100, 0),
            ("less than", 0, 0),
            ("at least", 100, 1),
            ("at least", 99, 0),
        ],
    )
    def test_words(self, tmp_path, relation, produced, met):
        one = self.load_one(tmp_path, number_words(relation, 100.0))
        assert one.id == "7"
        assert set(ifeval_length.score(one, words(produced), "stop").values()) == {float(met)}

    def test_the_bound_on_words_is_the_samples_length(self, tmp_path):
        assert self.load_one(tmp_path, number_words("less than", 100)).length == LengthTarget(
            max=99, relation="at_most"
        )
        one = self.load_one(tmp_path, number_words("at least", 100))
        assert one.length == LengthTarget(min=100, relation="at_least")
        assert ifeval_length.slices(one) == {"kind": "words", "relation": "at_least", "length_bin": "[0,500)"}

    @pytest.mark.parametrize(
        ("relation", "text", "met"),
        [
            ("at least", "One. Two! Three?", 1),
            ("at least", "One. Two, three.", 0),
            ("less than", "One. Two.", 1),
            ("less than", "One. Two. Three.", 0),
        ],
    )
    def test_sentences(self, tmp_path, relation, text, met):
        given = {"relation": relation, "num_sentences": 3}
        one = self.load_one(tmp_path, ("length_constraints:number_sentences", given))
        assert ifeval_length.score(one, text, "stop")["prompt_strict"] == met
        assert one.length is None

    @pytest.mark.parametrize(
        ("text", "met"),
        [
            ("a\n***\nb", 1),
            ("***\na\n***\nb\n***\n", 1),
            ("a *** b *** c", 0),
            ("a\n***\n\n***\nb", 0),
            ("a\n\nb", 0),
        ],
    )
    def test_paragraphs(self, tmp_path, text, met):
        one = self.load_one(tmp_path, ("length_constraints:number_paragraphs", {"num_paragraphs": 2}))
        assert ifeval_length.score(one, text, "stop")["prompt_strict"] == met

    @pytest.mark.parametrize(
        ("text", "strict", "loose"),
        [
            ("Sure, here it is:\na b c", 0, 1),
            ("a b c\nI hope this helps you!", 0, 1),
            ("Sure, here:\na b c\nHope it helps!", 0, 1),
            ("a b c d", 0, 0),
            ("a b c", 1, 1),
            ("a b c d\n", 0, 0),  # the form without the first line is empty, and an empty form meets nothing
        ],
    )
    def test_the_loose_reading_takes_the_best_of_eight_forms(self, tmp_path, text, strict, loose):
        found = ifeval_length.score(self.load_one(tmp_path, number_words("less than", 4)), text, "stop")
        assert (found["prompt_strict"], found["prompt_loose"]) == (strict, loose)

    def test_two_instructions_of_which_one_is_met(self, tmp_path):
        one = self.load_one(
            tmp_path,
            number_words("less than", 100),
            ("punctuation:no_comma", {}),
            ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}),
        )
        assert ifeval_length.score(one, "Only one.", "stop") == {
            "prompt_strict": 0.0,
            "prompt_loose": 0.0,
            "instruction_strict": 0.5,
            "instruction_loose": 0.5,
        }
        assert ifeval_length.slices(one)["kind"] == "words+sentences"

    def test_rows_without_a_length_are_left_aside(self, tmp_path):
        first_word = {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "well"}
        rows = [
            ifeval_row(("punctuation:no_comma", {})),
            ifeval_row(("length_constraints:nth_paragraph_first_word", first_word)),
            ifeval_row(number_words("at least", 5)),
        ]
        loaded = sort_rows(ifeval_length.load(write_jsonl(tmp_path / "d.jsonl", rows)), "raise", data="d")
        assert (len(loaded.samples), loaded.num_left_aside) == (1, 2)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (ifeval_row(number_words("around", 5)), "relation must be less than or at least, not 'around'"),
            (ifeval_row(number_words("at least", 0)), "num_words must be a whole number from 1, not 0"),
            (ifeval_row(number_words("at least", 5), kwargs=[]), "must be lists of one length"),
        ],
    )
    def test_wrong_rows_are_named(self, tmp_path, row, message):
        with pytest.raises(ConfigError, match=f"line 1: .*{message}"):
            load(ifeval_length, write_jsonl(tmp_path / "d.jsonl", [row]))

    def test_the_shipped_prompts_that_ask_for_a_bound(self):
        samples = load(ifeval_length, None)
        relations = [one.length.relation for one in samples if one.length]
        assert (len(samples), set(relations)) == (
            relations.count("at_least") + relations.count("at_most"),
            set(("at_least", "at_most")),
        )
        assert len(samples) > 10
        for one in samples:
            assert one.length is not None
            bound = int(one.length.nominal)
            assert ifeval_length.score(one, words(bound), "stop")["prompt_strict"] == 1.0
            beyond = bound - 1 if one.length.relation == "at_least" else bound + 1
            assert ifeval_length.score(one, words(beyond), "stop")["prompt_strict"] == 0.0

    def test_a_length_alone_is_enough_to_score(self):
        at_most = sample(LengthTarget(max=5, relation="at_most"))
        assert ifeval_length.score(at_most, words(5), "stop")["prompt_strict"] == 1.0
        with pytest.raises(ValueError, match="IFEval knows at least and at most"):
            ifeval_length.score(sample(LengthTarget.about(5)), "x", "stop")


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (longbench_write, "longbench_write.jsonl"),
        (longen, "longen.jsonl"),
        (longwrite_ruler, "longwrite_ruler.jsonl"),
        (lifebench, "data_lite.jsonl"),
    ],
)
def test_the_published_files_are_looked_for_by_name(task, name):
    assert name == task.DATA_FILE


DATA = os.environ.get("LENGTHWISE_DATA")


@pytest.mark.skipif(DATA is None, reason="LENGTHWISE_DATA names no folder with the benchmarks' own files")
def test_longwrite_rulers_own_rows():
    samples = load(longwrite_ruler, str(Path(DATA or "") / "longwrite_ruler.jsonl"))
    slices = [longwrite_ruler.slices(one) for one in samples]
    assert len(samples) == 48
    for length in ("1000", "2000", "5000", "10000", "20000", "30000"):
        assert [s["length"] for s in slices].count(length) == 8
    assert [s["language"] for s in slices].count("zh") == 24
