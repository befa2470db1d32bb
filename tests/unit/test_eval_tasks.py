"""Loaders, scores and summaries of the length tasks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.base import Metric, score_completion
from evals.config import EvalConfig
from evals.draws import stratified
from evals.plan import plan_task, plan_tasks
from evals.results import Tally, estimate, results_document, summarise
from evals.results_table import format_table, warnings_of
from evals.sources import SHIPPED_PROMPTS, find_source, sort_rows
from evals.tasks import lifebench, longbench_write, longen, tlg
from lengthwise.config import ConfigError, parse_config
from lengthwise.engines import build_engine
from lengthwise.length_wishes import find_length_wishes, parse_length_wish
from lengthwise.records import LengthTarget, Sample, user

TASKS = {"lifebench": lifebench, "longbench_write": longbench_write, "longen": longen, "tlg": tlg}


ROWS = [json.loads(line) for line in SHIPPED_PROMPTS.read_text(encoding="utf-8").splitlines()]
SAMPLES = [
    Sample(id=str(index), messages=user("x"), length=LengthTarget.about(length))
    for index, length in enumerate([100] * 26 + [500] * 36 + [2000] * 31 + [20000] * 27)
]


def words(number: int) -> str:
    return " ".join(["word"] * number)


def load(task: Any, source: str | None, draw_seed: int = 0) -> list[Sample]:
    return sort_rows(task.load(source, draw_seed=draw_seed), "raise", data=str(source)).samples


def sample(length: LengthTarget, **metadata: str) -> Sample:
    return Sample(id="a", messages=user("write"), length=length, metadata=metadata)


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class TestShippedPrompts:
    def test_size_and_languages(self):
        languages = [row["language"] for row in ROWS]
        assert len(ROWS) == 72
        assert languages.count("en") == 3 * languages.count("zh")
        assert len({row["id"] for row in ROWS}) == len({row["prompt"] for row in ROWS}) == 72

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
    def test_the_prompt_states_the_length_and_the_instruction_does_not(self, row):
        target = LengthTarget.from_dict(row["length"])
        assert parse_length_wish(row["prompt"]) == target
        assert find_length_wishes(row["instruction"]) == []
        assert row["prompt"].startswith(row["instruction"])
        assert 50 <= target.nominal <= 2000

    def test_every_relation_in_both_languages(self):
        kinds = {(row["language"], row["length"]["relation"]) for row in ROWS}
        assert kinds == {
            (lang, r) for lang in ("en", "zh") for r in ("about", "range", "at_least", "at_most")
        }

    def test_no_prompt_is_an_instruction_of_the_builders(self):
        builders = Path(__file__).parents[2] / "data_builders" / "prompts"
        shared = {row["instruction"].lower() for row in ROWS}
        for file in builders.glob("**/*.jsonl"):
            text = file.read_text(encoding="utf-8").lower()
            assert not [instruction for instruction in shared if instruction in text], file

    @pytest.mark.parametrize(("name", "number"), [("longbench_write", 36), ("longen", 72), ("tlg", 54)])
    def test_each_task_reads_them(self, name, number):
        task = TASKS[name]
        samples = load(task, None, draw_seed=0)
        assert len(samples) == number
        for one in samples:
            assert task.prompt(one)[-1].role == "user"
            assert task.slices(one)
            metrics = task.score(one, "", "stop")
            assert metrics.pop("rmse", -one.length.nominal) == -one.length.nominal
            assert set(metrics.values()) == {0.0}


class TestLongBenchWrite:
    def test_published_fields(self, tmp_path):
        source = write_jsonl(
            tmp_path / "d.jsonl", [{"prompt": "写一首200字的诗", "type": "Poem", "length": 200}]
        )
        (one,) = load(longbench_write, source)
        assert one.length == LengthTarget.about(200)
        assert longbench_write.slices(one) == {"length_bin": "[0,500)", "type": "Poem"}
        assert longbench_write.prompt(one) == user("写一首200字的诗")

    @pytest.mark.parametrize(
        ("produced", "expected"),
        [(333, 0), (500, 50), (800, 87.5), (1000, 100), (1500, 83.333), (4000, 0), (0, 0)],
    )
    def test_s_l(self, produced, expected):
        metrics = longbench_write.score(sample(LengthTarget.about(1000)), words(produced), "stop")
        assert metrics["s_l"] == pytest.approx(expected, abs=0.2)

    def test_an_empty_reply_has_no_log_ratio(self):
        target = sample(LengthTarget.about(100))
        assert longbench_write.score(target, "", "stop") == {"s_l": 0.0}
        half, twice = (longbench_write.score(target, words(n), "stop")["log_ratio_abs"] for n in (50, 200))
        assert half == pytest.approx(twice) == pytest.approx(math.log(2))

    def test_a_wrong_length_is_named_by_line(self, tmp_path):
        source = write_jsonl(
            tmp_path / "d.jsonl", [{"prompt": "x", "length": 5}, {"prompt": "y", "length": "6"}]
        )
        with pytest.raises(ConfigError, match=r"line 2: length .* not '6'"):
            load(longbench_write, source)

    def test_equal_rows_keep_ids_of_their_own(self, tmp_path):
        source = write_jsonl(tmp_path / "d.jsonl", [{"prompt": "x", "length": 5}] * 3)
        ids = [one.id for one in load(longbench_write, source)]
        assert ids[1:] == [f"{ids[0]}#2", f"{ids[0]}#3"]


class TestLonGen:
    @pytest.mark.parametrize(
        ("kind", "constraint", "expected"),
        [
            ("about", "around 2000 words", LengthTarget.about(2000)),
            ("about", "大约2500字", LengthTarget.about(2500)),
            ("range", "2000-4000 words", LengthTarget(min=2000, max=4000, relation="range")),
            ("range", "4000字至5000字", LengthTarget(min=4000, max=5000, relation="range")),
            ("above", "大于3000字", LengthTarget(min=3000, relation="at_least")),
            ("below", "less than 7000 words", LengthTarget(max=7000, relation="at_most")),
        ],
    )
    def test_constraints(self, tmp_path, kind, constraint, expected):
        row = {"language": "en", "range": "2-4k", "type": kind, "constraint": constraint, "query": "write"}
        (one,) = load(longen, write_jsonl(tmp_path / "d.jsonl", [row]))
        assert one.length == expected
        assert longen.slices(one)["relation"] == expected.relation
        assert one.metadata["range"] == "2-4k"

    def test_a_constraint_without_number_is_named(self, tmp_path):
        row = {"type": "about", "constraint": "long", "query": "write"}
        with pytest.raises(ConfigError, match="line 1: type 'about' with constraint 'long'"):
            load(longen, write_jsonl(tmp_path / "d.jsonl", [row]))

    @pytest.mark.parametrize(
        ("target", "produced", "expected"),
        [
            (LengthTarget.about(1000), 800, 1.0),
            (LengthTarget.about(1000), 600, 0.5),
            (LengthTarget(min=1000, relation="at_least"), 1500, 1.0),
            (LengthTarget(max=1000, relation="at_most"), 1250, 0.5),
            (LengthTarget(max=1000, relation="at_most"), 0, 0.0),
        ],
    )
    def test_score(self, target, produced, expected):
        metrics = longen.score(sample(target), words(produced), "stop")
        assert metrics["length_score"] == pytest.approx(expected)


class TestTlg:
    def test_published_fields(self, tmp_path):
        rows = [
            {"id": 0, "Instruction": "Explain rain.", "TargetLength": "50"},
            {"id": 1, "Instruction": "Explain snow.", "TargetLength": ">800"},
        ]
        first, second = load(tlg, write_jsonl(tmp_path / "d.jsonl", rows))
        assert (first.id, second.id) == ("0", "1")
        assert tlg.prompt(first) == user("Explain rain.\nThe reply must be 50 words long.")
        assert tlg.prompt(second)[-1].content.endswith("more than 800 words long.")
        assert tlg.slices(second) == {"level": "2", "target": ">800"}

    @pytest.mark.parametrize(
        ("target", "produced", "expected"),
        [
            ("10", 0, (0, 0)),
            ("10", 20, (1, 1)),
            ("30", 20, (0, 0)),
            ("150", 130, (0, 1)),
            ("150", 170, (1, 1)),
            ("700", 800, (0, 1)),
            (">800", 800, (0, 0)),
            (">800", 801, (1, 1)),
        ],
    )
    def test_boundaries(self, target, produced, expected):
        metrics = tlg.score(sample(tlg.target_length(target)), words(produced), "stop")
        assert (metrics["pm"], metrics["fm"]) == expected

    def test_targets_depend_on_the_seed_and_the_place_only(self, tmp_path):
        rows = [{"instruction": f"Explain {n}."} for n in range(40)]
        long = load(tlg, write_jsonl(tmp_path / "a.jsonl", rows), draw_seed=3)
        short = load(tlg, write_jsonl(tmp_path / "b.jsonl", rows[:10]), draw_seed=3)
        other = load(tlg, str(tmp_path / "a.jsonl"), draw_seed=4)
        assert [s.length for s in short] == [s.length for s in long[:10]]
        assert [s.length for s in other] != [s.length for s in long]
        assert len({s.metadata["target_length"] for s in long}) == 9

    def test_the_prompt_holds_no_other_wish(self):
        for one in load(tlg, None):
            assert len(find_length_wishes(tlg.prompt(one)[-1].content)) == 1

    @pytest.mark.parametrize("label", ["10", "300", ">800"])
    def test_labels_survive_the_round_trip(self, label):
        assert tlg.target_label(tlg.target_length(label)) == label

    def test_other_lengths_are_refused(self):
        with pytest.raises(ValueError, match="TLG has no target about 123"):
            tlg.target_label(LengthTarget.about(123))

    def test_an_unknown_target_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match="line 1: '40' is not a TLG target"):
            load(tlg, write_jsonl(tmp_path / "d.jsonl", [{"Instruction": "x", "TargetLength": "40"}]))


LIFEBENCH_ROW = {
    "category": "QA",
    "type": "open",
    "lang": "en",
    "task": "Who was Ada? Reply with {word_count_type} {word_count} words.",
}


class TestLifeBench:
    def test_each_row_is_asked_under_every_length_and_control(self, tmp_path):
        chinese = {**LIFEBENCH_ROW, "lang": "cn", "task": "字数{word_count_type}{word_count}字。"}
        samples = load(lifebench, write_jsonl(tmp_path / "d.jsonl", [LIFEBENCH_ROW, chinese]))
        assert len(samples) == len({s.id for s in samples}) == 60
        by_id = {s.id.partition("/")[2]: s for s in samples[:30]}
        assert by_id["about/512"].instruction == "Who was Ada? Reply with equal to 512 words."
        assert by_id["at_most/16"].instruction.endswith("with at most 16 words.")
        assert by_id["at_least/8192"].length == LengthTarget(min=8192, relation="at_least")
        assert samples[30].instruction == "字数等于16字。"
        assert samples[30].length == LengthTarget.about(16, unit="characters")
        assert lifebench.slices(samples[30]) == {
            "control": "about",
            "length": "16",
            "category": "QA",
            "language": "zh",
        }

    def test_a_row_counts_once_however_often_it_is_asked(self, tmp_path):
        rows = [LIFEBENCH_ROW, {**LIFEBENCH_ROW, "task": "no slot"}, {**LIFEBENCH_ROW, "lang": "fr"}]
        loaded = sort_rows(lifebench.load(write_jsonl(tmp_path / "d.jsonl", rows)), "drop", data="d")
        assert loaded.sizes == {"rows": 3, "original": 30, "left_aside": 0, "bad_rows": 2, "renamed_ids": 0}
        assert [row.reason for row in loaded.bad_rows] == [
            "task has no {word_count_type}, which the length is filled into",
            "lang is 'fr': it must be en or cn",
        ]

    @pytest.mark.parametrize(
        ("target", "produced", "ls", "ld"),
        [
            (LengthTarget.about(100), 90, 60.65, 0.1),
            (LengthTarget(max=100, relation="at_most"), 90, 100.0, 0.1),
            (LengthTarget(min=100, relation="at_least"), 90, 60.65, 0.1),
            (LengthTarget(min=100, relation="at_least"), 150, 100.0, 0.5),
            (LengthTarget.about(100), 0, 0.67, 1.0),
        ],
    )
    def test_score(self, target, produced, ls, ld):
        scores = lifebench.score(sample(target), words(produced), "stop")
        refusal = float(produced == 0)
        assert scores == {"ls": pytest.approx(ls, abs=0.01), "ld": pytest.approx(ld), "refusal": refusal}


class TestSources:
    def test_a_missing_file_is_not_taken_for_a_hub_id(self):
        with pytest.raises(ConfigError, match=r"no file or folder 'nowhere/data.jsonl'"):
            find_source("nowhere/data.jsonl")

    @pytest.mark.parametrize(
        ("source", "name", "split"),
        [("owner/set", "owner/set", None), ("owner/set:dev", "owner/set", "dev"), ("o/s:", "o/s", None)],
    )
    def test_a_hub_id_may_name_its_split(self, source, name, split):
        found = find_source(source)
        assert (found.name, found.split, found.files) == (name, split, ())

    def test_each_row_ends_once(self, tmp_path):
        rows = [
            {"id": 1, "prompt": "x", "length": 5},
            {"id": 1, "prompt": "y", "length": LengthTarget(min=5, relation="at_least").to_dict()},
            {"id": 1, "prompt": "z", "length": LengthTarget.about(5).to_dict()},
            {"id": 1, "prompt": "z"},
        ]
        entries = longbench_write.load(write_jsonl(tmp_path / "d.jsonl", rows))
        loaded = sort_rows(entries, "drop", data="d")
        assert [one.id for one in loaded.samples] == ["1", "1#2"]
        assert [(row.place.number, row.reason) for row in loaded.bad_rows] == [
            (4, "length must be a positive whole number of words, not None")
        ]
        assert loaded.sizes == {"rows": 4, "original": 2, "left_aside": 1, "bad_rows": 1, "renamed_ids": 1}

    def test_rows_of_a_build_ask_what_the_build_was_asked(self, tmp_path):
        turns = [{"role": "user", "content": "Write 90 words."}, {"role": "assistant", "content": "x"}]
        row = {"id": "a", "messages": turns, "length": {"requested": LengthTarget.about(90).to_dict()}}
        system = {"role": "system", "content": "Be kind."}
        data = write_jsonl(tmp_path / "d.jsonl", [row, {**row, "messages": [system, *turns]}])
        for task in (longbench_write, longen):
            plain, with_system = load(task, data)
            assert task.prompt(plain) == user("Write 90 words.")
            assert [m.role for m in task.prompt(with_system)] == ["system", "user"]
            assert plain.length == LengthTarget.about(90)

    def test_a_json_list_is_read(self, tmp_path):
        path = tmp_path / "d.json"
        path.write_text('[{"instruction": "x", "input": "y"}]')
        assert tlg.prompt(load(tlg, str(path))[0])[-1].content.startswith("x\ny\n")

    @pytest.mark.parametrize("task", [longbench_write, longen])
    def test_a_length_that_no_word_counter_can_score_is_a_bad_row(self, tmp_path, task):
        rows = [
            {"id": str(index), "prompt": prompt, "length": LengthTarget.about(500, unit).to_dict(), **more}
            for index, (prompt, unit, more) in enumerate(
                [
                    ("Write about tea.", "words", {}),
                    ("Write about tea.", "tokens", {}),
                    ("Write about tea.", "characters", {}),
                    ("写一篇关于茶的文章。", "characters", {}),
                    ("Write about tea.", "characters", {"language": "zh"}),
                    ("写一篇关于茶的文章。", "characters", {"language": "en"}),
                ]
            )
        ]
        loaded = sort_rows(task.load(write_jsonl(tmp_path / "d.jsonl", rows)), "drop", data="d")
        assert [one.id for one in loaded.samples] == ["0", "3", "4"]
        assert [
            (row.place.number, row.reason.partition(":")[0].split("asks for ")[1]) for row in loaded.bad_rows
        ] == [
            (2, "tokens"),
            (3, "characters, which are words in Chinese only"),
            (6, "characters, which are words in Chinese only"),
        ]
        with pytest.raises(ConfigError, match="line 2: .* asks for tokens"):
            load(task, str(tmp_path / "d.jsonl"))


def by_length(sample: Sample) -> str:
    return str(sample.length.nominal)


class TestStratified:
    def test_each_kind_gives_its_share(self):
        chosen = stratified(SAMPLES, 40, 0, by_length)
        lengths = [one.length.nominal for one in chosen]
        assert [lengths.count(n) for n in (100, 500, 2000, 20000)] == [9, 12, 10, 9]
        assert [int(one.id) for one in chosen] == sorted(int(one.id) for one in chosen)

    def test_the_seed_decides(self):
        assert stratified(SAMPLES, 12, 1, by_length) == stratified(SAMPLES, 12, 1, by_length)
        assert stratified(SAMPLES, 12, 1, by_length) != stratified(SAMPLES, 12, 2, by_length)

    @pytest.mark.parametrize("limit", [1, 7, 119, 120, 500, None])
    def test_the_number_is_exact(self, limit):
        assert len(stratified(SAMPLES, limit, 0, by_length)) == min(limit or 120, 120)


class TestPlan:
    def config(self, **fields) -> EvalConfig:
        return EvalConfig(**{"model": "m", "tasks": ["tlg"], **fields})

    def test_sampling_of_task_run_and_entry(self):
        config = self.config(sampling={"temperature": 0.7})
        assert plan_task("tlg", self.config()).sampling.temperature == 0.0
        assert plan_task("tlg", config).sampling.temperature == 0.7
        planned = plan_task({"name": "tlg", "limit": 5, "sampling": {"temperature": 0.2}}, config)
        assert planned.sampling.temperature == 0.2
        assert planned.sampling.max_tokens == 2048
        assert (len(planned.samples), planned.loaded.sizes["original"]) == (5, 54)

    @pytest.mark.parametrize(
        ("entry", "fields", "message"),
        [
            ("tlgg", {}, "tlg"),
            ({"name": "tlg", "limits": 5}, {}, "limit"),
            ("tlg", {"sampling": {"temprature": 1}}, "temperature"),
            ("tlg", {"num_samples": 4}, "num_samples is 4"),
            ("tlg", {"sampling": {"top_p": 0}}, "top_p is 0.*: it must be above 0 and at most 1"),
            ("tlg", {"sampling": {"top_p": 1.1}}, "top_p is 1.1: it must be above 0 and at most 1"),
            ("tlg", {"sampling": {"repetition_penalty": 0}}, "repetition_penalty is 0.*: it must be above 0"),
            ("tlg", {"sampling": {"temperature": -1}}, "temperature is -1.*: it must be at least 0"),
            (5, {}, "neither a name nor a map"),
            ({"name": "tlg", "limit": 0}, {}, "at least 1"),
        ],
    )
    def test_mistakes_are_named(self, entry, fields, message):
        with pytest.raises(ConfigError, match=message):
            plan_task(entry, self.config(**fields))

    def test_a_task_is_called_by_its_own_name(self, tmp_path, monkeypatch):
        package = tmp_path / "my_package"
        package.mkdir()
        (package / "within.ten.py").write_text("from evals.tasks.tlg import *\n")
        (package / "within_ten.py").write_text("from evals.tasks.tlg import *\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, label in [
            ("tlg", "tlg"),
            ("my_package.within_ten", "within_ten"),
            (str(package / "within.ten.py"), "within.ten"),
        ]:
            assert plan_task(name, self.config()).name == label

    @pytest.mark.parametrize("fields", [{"limit": 0}, {"num_samples": 0}, {"tasks": []}])
    def test_numbers_below_one_are_refused(self, fields):
        with pytest.raises(ConfigError):
            self.config(**fields)


CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "evals").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_config_can_be_planned(file):
    config = parse_config(EvalConfig, ["--config", str(file)], prog="eval")
    assert all(one.samples for one in plan_tasks(config))
    build_engine(config.engine, config.model, config.adapter)


class TestSummary:
    def scored(
        self, name: str, texts: list[str], ids: list[str] | None = None, finish_reason="stop"
    ) -> Tally:
        tally = Tally()
        for index, text in enumerate(texts):
            row = score_completion(
                TASKS[name], sample(LengthTarget.about(150), language="en"), text, finish_reason, 10
            )
            tally.add({"id": ids[index] if ids else str(index), **row})
        return tally

    def test_an_empty_reply_counts_and_scores_the_floor(self):
        tally = self.scored("longbench_write", [words(150), "", words(300)])
        found = summarise(longbench_write, tally)
        assert found["counts"]["empty"] == 1
        assert found["overall"]["s_l"]["value"] == pytest.approx((100 + 0 + 100 * 2 / 3) / 3)
        assert found["overall"]["s_l"]["n"] == 3
        assert found["overall"]["log_ratio_abs"]["n"] == 2
        assert found["slices"]["degenerate"]["yes"]["counts"]["scored"] >= 1

    def test_a_proportion_has_wilsons_interval(self):
        found = summarise(tlg, self.scored("tlg", [words(150)] * 4))
        pm = found["overall"]["pm"]
        assert pm["value"] == 1.0
        assert pm["ci"][0] == pytest.approx(0.5101, abs=1e-3)
        assert pm["ci"][1] == pytest.approx(1.0)
        assert found["slices"]["level"]["1"]["pm"]["n"] == 4

    def test_completions_of_one_prompt_are_one_observation(self):
        tally = self.scored("tlg", [words(150), words(10), words(150), words(150)], ["a", "a", "b", "b"])
        interval = estimate(tlg.METRICS[0], tally.rows)
        assert interval is not None
        assert (interval.estimate, interval.n) == (0.75, 2)

    @pytest.mark.parametrize(
        ("summary", "apart", "shared"),
        [
            ("mean", "t", "t, clustered (6 clusters, 5 degrees of freedom)"),
            ("proportion", "wilson", "wilson, clustered (6 clusters, 5 degrees of freedom)"),
            ("median", "bootstrap percentile", "clustered (6 clusters)"),
        ],
    )
    def test_ids_with_the_same_prompt_are_not_independent(self, summary, apart, shared):
        metric = Metric(name="m", counter="cjk_alpha", summary=summary)
        task: Any = SimpleNamespace(METRICS=(metric,))
        flags = {"empty": False, "truncated": False, "repetition": 0.0}

        def of(prompts: list[str | None]) -> dict[str, Any]:
            tally = Tally()
            for index, prompt in enumerate(prompts):
                known = {
                    "id": str(index),
                    "metrics": {"m": float(index % 3 == 0)},
                    "flags": flags,
                    "slices": {},
                }
                tally.add(known if prompt is None else {**known, "prompt_hash": prompt})
            return summarise(task, tally)["overall"]["m"]

        alone, pairs, one = of([None] * 12), of([str(i // 2) for i in range(12)]), of(["p"] * 12)
        assert alone == of([str(i) for i in range(12)])
        assert alone["method"].startswith(apart)
        assert pairs["method"].endswith(shared)
        assert (alone["value"], alone["n"]) == (pairs["value"], pairs["n"]) == (one["value"], one["n"])
        assert one["ci"] == [None, None]

    def test_failed_prompts_are_unscored_with_bounds(self):
        tally = self.scored("longen", [words(150)] * 3)
        tally.num_failed = 1
        found = summarise(longen, tally)
        assert found["overall"]["length_score"]["value"] == 1.0
        assert found["overall"]["length_score"]["bounds"] == [0.75, 1.0]
        assert found["counts"]["failed"] == 1
        assert "1 prompts failed" in warnings_of({"longen": found})[0]

    def test_truncation_warns_above_one_percent(self):
        cut = {"longen": summarise(longen, self.scored("longen", [words(150)], finish_reason="length"))}
        assert "1 of 1 replies (100.0%) were cut" in warnings_of(cut)[0]
        assert warnings_of({"longen": summarise(longen, self.scored("longen", [words(150)]))}) == []

    def test_an_unknown_end_is_not_called_fine(self):
        found = {"longen": summarise(longen, self.scored("longen", [words(150)], finish_reason=None))}
        assert found["longen"]["counts"]["truncated_unknown"] == 1
        assert "unknown" in warnings_of(found)[0]
        assert "(+1 unknown)" in format_table({"longen": longen}, found)

    def test_bounds_stay_within_the_metric_and_counts_are_printed(self):
        found = {"longen": summarise(longen, self.scored("longen", [words(150), words(150), words(40)]))}
        assert found["longen"]["overall"]["length_score"]["ci"] == [0.0, 1.0]
        assert "longen: 3 scored, 0 empty, 0 truncated" in format_table({"longen": longen}, found)

    @pytest.mark.parametrize(
        ("metric", "ends", "ci"),
        [
            (Metric(name="m", counter="cjk_alpha"), (None, None), (-78.73, 318.73)),
            (Metric(name="m", counter="cjk_alpha", worst=200.0, best=0.0), (200.0, 0.0), (0.0, 200.0)),
            (Metric(name="m", counter="cjk_alpha", worst=0.0, best=200.0), (0.0, 200.0), (0.0, 200.0)),
        ],
    )
    def test_only_ends_that_the_task_states_bound_an_interval(self, metric, ends, ci):
        flags = {"empty": False, "truncated": False, "repetition": 0.0}
        tally = Tally()
        for index, value in enumerate((40.0, 120.0, 200.0)):
            tally.add({"id": str(index), "metrics": {"m": value}, "flags": flags, "slices": {}})
        task: Any = SimpleNamespace(METRICS=(metric,))
        assert (metric.worst, metric.best) == ends
        found = summarise(task, tally)["overall"]["m"]
        assert (found["value"], found["ci"]) == (120.0, pytest.approx(ci, abs=0.01))

    @pytest.mark.parametrize(("higher", "ends"), [(True, (0.0, 1.0)), (False, (1.0, 0.0))])
    def test_a_proportion_ends_at_0_and_1(self, higher, ends):
        metric = Metric(name="m", counter="cjk_alpha", summary="proportion", higher_is_better=higher)
        assert (metric.worst, metric.best) == ends

    def test_the_document_has_lm_evals_keys(self):
        summaries = {"tlg": summarise(tlg, self.scored("tlg", [words(150)] * 2))}
        document = results_document({"tlg": tlg}, summaries)
        row = document["results"]["tlg"]
        assert {"alias", "pm,none", "pm_stderr,none", "pm_ci,none", "pm_n,none"} <= set(row)
        assert document["counters"] == {"tlg": dict.fromkeys(("pm", "fm", "elm", "rmse"), "regex_w")}
        assert document["higher_is_better"]["tlg"]["fm"] is True
        json.dumps(document, allow_nan=False)

    def test_nothing_scored_gives_no_number(self):
        found = summarise(tlg, Tally(num_failed=3))
        assert found["overall"] == {}
        assert "-" in format_table({"tlg": tlg}, {"tlg": found})


DATA = os.environ.get("LENGTHWISE_DATA")


@pytest.mark.skipif(DATA is None, reason="LENGTHWISE_DATA names no folder with the benchmarks' own files")
class TestRealData:
    def test_longbench_write(self):
        samples = load(longbench_write, str(Path(DATA or "") / "longbench_write.jsonl"))
        bins = [longbench_write.slices(one)["length_bin"] for one in samples]
        assert len(samples) == 120
        assert [bins.count(b) for b in ("[0,500)", "[500,2k)", "[2k,4k)", "[4k,inf)")] == [26, 36, 31, 27]

    def test_longen(self):
        samples = load(longen, str(Path(DATA or "") / "longen.jsonl"))
        relations = [longen.slices(one)["relation"] for one in samples]
        assert len(samples) == 240
        assert all(relations.count(r) == 60 for r in ("about", "range", "at_least", "at_most"))
