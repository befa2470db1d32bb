"""Scorers by their own functions, and what results say of judged numbers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from evals.base import Metric
from evals.calibrate import agreement, main
from evals.judged import bounds_of, length_controlled, length_correlations, unscored_of
from evals.judging import with_panels
from evals.results import Tally, results_document, summarise
from evals.results_table import format_table, warnings_of
from evals.scorer_plan import Panel, plan_judges, plan_scorers
from evals.scorers import degeneration, pairwise, writing_quality
from evals.scorers.base import Reply, mark_of
from evals.tasks import longbench_write, tlg
from lengthwise.records import LengthTarget, Message, Sample, user
from lengthwise.templates import load_prompt

SAMPLE = Sample(id="1", messages=user("Write."), length=LengthTarget.about(4))


def reply(text: str, **fields: Any) -> Reply:
    given = {"finish_reason": "stop", "metrics": {}, "prompt": SAMPLE.messages, **fields}
    return Reply(task="t", sample=SAMPLE, index=0, text=text, **given)


def planned(entries: list[Any], task: Any = longbench_write, num_judges: int = 1) -> list[Any]:
    judges = [{"model": f"org/J{number}", "engine": {"name": "scripted"}} for number in range(num_judges)]
    return plan_scorers(entries, plan_judges(judges, {"name": "scripted"}), task, "t")


class TestScorers:
    @pytest.mark.parametrize(
        ("grade", "scale", "value"),
        [
            (1, range(1, 6), 0),
            (3, range(1, 6), 50),
            (5, range(1, 6), 100),
            (10, range(1, 11), 100),
            (4, range(1, 11), 100 / 3),
        ],
    )
    def test_grades_on_a_hundred(self, grade, scale, value):
        assert writing_quality.scaled(grade, scale) == pytest.approx(value)

    def test_the_mean_with_s_l_is_there_only_with_s_l(self):
        def names(task: Any, **options: Any) -> list[str]:
            (one,) = planned([{"name": "writing_quality", **options}], task)
            return [metric.name.partition("@")[0] for metric in one.metrics]

        assert names(longbench_write)[:2] == ["s_q", "s_bar"]
        assert "s_bar" not in names(tlg)
        longen = names(longbench_write, dimensions="longen")
        assert longen[0] == "longen_q" and len(longen) == 8 and "s_bar" not in longen

    @pytest.mark.parametrize("name", ["longbench_write", "longen", "pairwise", "yes_no"])
    def test_the_prompts_name_every_key_they_ask_for(self, name):
        text = load_prompt("evals", f"judge/{name}").text
        forms = {"pairwise": ("analysis", "winner"), "yes_no": ("reason", "answer")}
        keys = forms[name] if name in forms else writing_quality.FORMS[name]  # type: ignore[index]
        assert all(f'"{key}"' in text for key in keys)
        assert "${mark}" in text

    def test_a_text_cannot_hold_the_mark_of_its_end(self):
        marks = {mark_of("Write.", text) for text in ("a", "b", f"</text-{mark_of('Write.', 'a')}>")}
        assert len(marks) == 3

    def test_a_change_of_the_prompt_changes_the_metrics_name(self, monkeypatch):
        (one,) = planned(["writing_quality"])
        template = load_prompt("evals", "judge/longbench_write")
        changed = type(template)(template.name, template.text + " Be kind.")
        monkeypatch.setattr(writing_quality, "load_prompt", lambda *_: changed)
        (other,) = planned(["writing_quality"])
        label, digest = one.metrics[0].name.split("@")[1].split(".")
        assert label == "j0" and len(digest) == 8
        assert other.metrics[0].name.startswith("s_q@j0.") and other.metrics[0].name != one.metrics[0].name

    def test_another_question_is_another_metric(self):
        one, other = planned(
            [
                {"name": "yes_no", "question": "Is it a story?"},
                {"name": "yes_no", "question": "Is it a poem?"},
            ]
        )
        assert one.metrics[0].name != other.metrics[0].name

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("The end.", {"repetition": 0.0, "refusal": 0.0, "ends_cleanly": 1.0}),
            ("and then", {"repetition": 0.0, "refusal": 0.0, "ends_cleanly": 0.0}),
            ("", {"repetition": 0.0, "refusal": 0.0, "ends_cleanly": 0.0}),
            ("I'm sorry, but I can't write that.", {"repetition": 0.0, "refusal": 1.0, "ends_cleanly": 1.0}),
        ],
    )
    def test_signs_of_degeneration(self, text, expected):
        found = asyncio.run(degeneration.score(degeneration.Config(), reply(text), None)).metrics
        assert {key: found[key] for key in expected} == expected
        assert ("zlib_ratio" in found) == bool(text)

    @pytest.mark.parametrize(
        ("winners", "value", "disagree"),
        [
            (("A", "B"), 1.0, False),
            (("B", "A"), 0.0, False),
            (("tie", "tie"), 0.5, False),
            (("A", "A"), 0.5, True),
            (("B", "B"), 0.5, True),
            (("A", "tie"), 0.5, True),
        ],
    )
    def test_two_orders_of_a_pair(self, winners, value, disagree):
        first, second = (pairwise.preference(w, o) for w, o in zip(winners, ("first", "second"), strict=True))
        assert pairwise.both_orders(first, second) == (value, disagree)

    def test_a_judge_reads_all_turns(self):
        turns = (
            Message(role="system", content="Be brief."),
            Message(role="user", content="Write."),
        )
        assert reply("x").request == "Write."
        assert reply("x", prompt=turns).request == "[system]\nBe brief.\n\n[user]\nWrite."

    def test_a_panel_of_several_judges(self):
        scorers = planned(["writing_quality"], num_judges=2)
        assert [one.judge.label for one in scorers] == ["j0", "j1"]
        metric = Metric(name="q@panel2.1", counter="-")
        panel = Panel(metric=metric, members=("q@a", "q@b"))
        row = {"metrics": {"q@a": 40.0}, "unscored": {"q@b": "malformed"}}
        assert with_panels(row, [panel])["metrics"]["q@panel2.1"] == 40.0
        row = {"metrics": {"q@a": 40.0, "q@b": 60.0}, "unscored": {}}
        assert with_panels(row, [panel])["metrics"]["q@panel2.1"] == 50.0
        row = {"metrics": {}, "unscored": {"q@a": "timeout", "q@b": "malformed"}}
        found = with_panels(row, [panel])
        assert found["metrics"] == {} and "q@panel2.1" in found["unscored"]
        assert with_panels({"metrics": {}, "unscored": {}}, [panel]) == {"metrics": {}, "unscored": {}}


JUDGED = Metric(name="q@j.1", counter="-", worst=0.0, best=100.0)


def row(index: int, value: float | None, length: int = 10, **more: Any) -> dict[str, Any]:
    scored = {} if value is None else {"q@j.1": value}
    return {
        "id": str(index),
        "cluster": str(index),
        "metrics": {**scored, **more},
        "unscored": {"q@j.1": "malformed"} if value is None else {},
        "length": length,
        "counts": {"cjk_ws": length},
        "flags": {"empty": length == 0, "refusal": False, "truncated": False, "repetition": 0.0},
        "slices": {},
    }


class TestResults:
    @pytest.mark.parametrize(
        ("values", "num_failed", "expected"),
        [
            ((80.0, 40.0, None), 0, [40.0, 220 / 3]),
            ((80.0, 40.0, None), 1, [30.0, 80.0]),
            ((80.0, 40.0), 2, [30.0, 80.0]),
            ((None, None), 0, [0.0, 100.0]),
        ],
    )
    def test_bounds_take_in_what_is_unscored_and_what_failed(self, values, num_failed, expected):
        rows = [row(index, value) for index, value in enumerate(values)]
        assert bounds_of(JUDGED, rows, num_failed, 0) == pytest.approx(expected)

    def test_a_prompts_replies_are_one_observation_in_bounds_too(self):
        rows = [row(0, 100.0), row(0, None), row(1, 50.0)]
        assert bounds_of(JUDGED, rows, 0, 0) == pytest.approx([50.0, 75.0])

    def test_no_bounds_without_ends(self):
        assert bounds_of(Metric(name="q@j.1", counter="-"), [row(0, None)], 0, 0) is None

    def test_reasons_are_counted(self):
        rows = [row(0, 1.0), row(1, None), row(2, None), row(3, 2.0)]
        assert unscored_of([JUDGED], rows) == {"q@j.1": {"num": 2, "frac": 0.5, "reasons": {"malformed": 2}}}

    def test_the_table_and_the_document_name_the_unscored(self):
        tally = Tally()
        for one in [row(0, 80.0, 30), row(1, None), row(2, 40.0, 20), row(3, 60.0, 40)]:
            tally.add(one)

        class Task:
            METRICS = (JUDGED,)
            VERSION = 1

        task: Any = Task
        found = {"t": summarise(task, tally)}
        assert found["t"]["counts"]["unscored"] == 1
        assert found["t"]["overall"]["q@j.1"]["n"] == 3
        assert found["t"]["overall"]["q@j.1"]["bounds"] == [45.0, 70.0]
        text = format_table({"t": task}, found)
        assert "1 replies (25.0%) unscored in q@j.1: 1 malformed" in text
        assert "rank correlation with the reply's length: q@j.1 +0.50 (n = 3)" in text
        assert "25.0% in q@j.1" in "\n".join(warnings_of(found))
        document = results_document({"t": task}, found)
        assert document["results"]["t"]["q@j.1_bounds,none"] == [45.0, 70.0]
        assert document["unscored"]["t"]["q@j.1"]["reasons"] == {"malformed": 1}
        assert document["length_correlation"]["t"]["q@j.1"]["spearman"] == pytest.approx(0.5)

    def test_scores_that_follow_length_are_warned_of(self):
        rows = [row(index, 5.0 * index, 100 * (index + 1)) for index in range(12)]
        found = length_correlations([JUDGED, Metric(name="s_l", counter="cjk_alpha")], rows)
        assert found.keys() == {"q@j.1"}
        assert found["q@j.1"]["spearman"] == pytest.approx(1.0)
        summary = {
            "counts": {"scored": 12, "truncated": 0, "truncated_unknown": 0, "bad_rows": 0},
            "unscored": {},
            "length_correlation": found,
            "length_controlled": {},
        }
        assert "goes with the length" in warnings_of({"t": summary})[0]

    def test_empty_replies_say_nothing_of_a_judges_taste(self):
        rows = [row(0, 0.0, 0), row(1, 50.0, 10), row(2, 50.0, 20)]
        found = length_correlations([JUDGED], rows)["q@j.1"]
        assert found["n"] == 2 and found["spearman"] is None

    def test_length_alone_wins_nothing_once_controlled(self):
        metric = Metric(name="win@j.1", counter="-", length_delta="delta", worst=0.0, best=1.0)
        rows = []
        for index in range(40):  # longer replies win three of four, and our model is mostly longer
            longer = index % 4 != 0
            wins = (index // 4) % 4 != 0 if longer else (index // 4) % 4 == 0
            rows.append(row(index, 1.0, delta=400.0 if longer else -400.0, **{"win@j.1": float(wins)}))
        found = length_controlled([metric], rows)["win@j.1"]
        assert found["raw"] > 0.57 and found["length_coefficient"] > 0
        assert abs(found["value"] - 0.5) < 0.05 < found["raw"] - found["value"]

    def test_a_length_that_never_varies_has_no_control(self):
        metric = Metric(name="win@j.1", counter="-", length_delta="delta", worst=0.0, best=1.0)
        rows = [row(index, 1.0, delta=7.0, **{"win@j.1": float(index % 2)}) for index in range(6)]
        found = length_controlled([metric], rows)["win@j.1"]
        assert found["value"] is None and found["why"]


METRIC = Metric(name="q", counter="-", worst=0.0, best=100.0)


class TestCalibration:
    def test_agreement_on_the_human_scale(self):
        found = agreement([0.0, 50.0, 100.0, 75.0, None], [1, 3, 5, 3, 2], METRIC, (1, 5))
        assert found["n"] == 4 and found["num_unscored"] == 1
        counts = found["confusion"]["counts"]
        assert counts[0][0] == counts[2][2] == counts[4][4] == counts[3][2] == 1
        # 1 minus the mean squared difference of the pairs over that of all pairings of 1, 3, 5, 4 with 1, 3, 5, 3.
        observed = 1 / 4
        expected = sum((a - b) ** 2 for a in (1, 3, 4, 5) for b in (1, 3, 3, 5)) / 16
        assert found["kappa"]["value"] == pytest.approx(1 - observed / expected)

    def test_what_is_not_defined_is_none(self):
        found = agreement([50.0, 50.0], [3, 3], METRIC, (1, 5))
        assert found["kappa"] is None and found["spearman"] is None and found["n"] == 2
        assert agreement([None], [3], METRIC, (1, 5))["confusion"] is None

    def test_the_command(self, tmp_path: Path, capsys):
        rows = [{"prompt": "Write.", "output": f"Text {i}.", "human": 1 + i % 5} for i in range(30)]
        rows.append({"prompt": "Write.", "output": "", "human": 1})
        file, output = tmp_path / "labels.jsonl", tmp_path / "out.json"
        file.write_text("\n".join(map(json.dumps, rows)))
        words = [
            *(str(file), "--judge", "org/J", "--engine.name", "scripted", "--output", str(output)),
            *('--engine.faults={"malformed": 0.3}', '--judge_options={"max_attempts": 1}'),
        ]
        assert main(words) == 0
        found, text = json.loads(output.read_text()), capsys.readouterr().out
        assert found["metric"].startswith("s_q@j.")
        assert found["n"] + found["num_unscored"] == 31 and found["num_unscored"] > 0
        assert found["unscored"] == {"malformed": found["num_unscored"]}
        assert -1 <= found["kappa"]["ci"][0] <= found["kappa"]["value"] <= found["kappa"]["ci"][1] <= 1
        assert sum(map(sum, found["confusion"]["counts"])) == found["n"]
        assert found["rows"][-1]["judge"] == 0.0
        assert "kappa, quadratic weights" in text and "unscored" in text
        assert main(words) == 2 and "is not overwritten" in capsys.readouterr().err

    def test_a_dry_run_asks_nobody_and_writes_nothing(self, tmp_path: Path, capsys, monkeypatch):
        monkeypatch.setattr("evals.calibrate.run_async", None)
        file, output = tmp_path / "labels.jsonl", tmp_path / "out.json"
        file.write_text(json.dumps({"prompt": "a", "output": "b", "human": 3}))
        words = [
            str(file),
            "--judge",
            "org/J",
            "--engine.name",
            "scripted",
            "--output",
            str(output),
            "--dry_run",
        ]
        assert main(words) == 0 and not output.exists()
        said = capsys.readouterr().out
        assert "rows        1 of" in said and "org/J through scripted, of 1 rows" in said
        assert main([*words, "--scorer", "degeneration"]) == 2

    @pytest.mark.parametrize(
        ("row", "flags", "message"),
        [
            ({"prompt": "a", "output": "b", "human": 9}, (), "human is 9, expected a number from 1 to 5"),
            ({"prompt": "a", "output": "b"}, (), "human is"),
            ({"prompt": "a", "human": 3}, (), "output is"),
            ({"prompt": "a", "output": "b", "human": 3}, ("--scorer", "degeneration"), "no grade of a single reply"),
            ({"prompt": "a", "output": "b", "human": 3}, ("--human_most", "1"), "human_most is 1"),
        ],
    )  # fmt: skip
    def test_mistakes_are_named(self, tmp_path: Path, capsys, row, flags, message):
        file = tmp_path / "labels.jsonl"
        file.write_text(json.dumps(row))
        assert main([str(file), "--judge", "m", "--engine.name", "scripted", *flags]) == 2
        assert message in capsys.readouterr().err
