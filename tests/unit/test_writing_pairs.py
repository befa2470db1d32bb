"""Pairs for writing at a length: which text is chosen and which rejected, and when there is no pair."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from data_builders.run import main
from data_builders.writing_pairs import Config, NoPair, Scored, pick
from lengthwise.config import ConfigError
from lengthwise.records import Completion

MODEL = """
import re


def reply(prompt, sampling, draw):
    asked = prompt[0].content
    if "You are an editor" in asked:
        text = asked.partition("<text-")[2]
        if "mute" in asked:
            return "no verdict"
        return '{"Reason": "It is so.", "Quality": %d}' % (9 if "fine" in text else 2)
    reply.turn = getattr(reply, "turn", -1) + 1
    kind = ("fine", "poor", "fine", "poor")[reply.turn % 4]
    number = (100, 100, 300, 20)[reply.turn % 4]
    return " ".join([kind] * number) + "."
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def run(prompt: str, name: str, **options: Any):
        (tmp_path / f"{name}.py").write_text(MODEL)
        data, folder = tmp_path / f"{name}.jsonl", tmp_path / f"{name}_run"
        data.write_text(json.dumps({"id": "a", "prompt": prompt}) + "\n")
        builder = json.dumps({"name": "writing_pairs", **options})
        engine = json.dumps({"name": "scripted", "responder": f"{name}:reply"})
        given = [f"--builder={builder}", "--model=m", f"--engine={engine}", f"--data={data}"]
        assert main([*given, f"--output_dir={folder}", "--min_kept_frac=0"]) == 0
        read = [(folder / file).read_text().splitlines() for file in ("data.jsonl", "dropped.jsonl")]
        return [[json.loads(line) for line in lines] for lines in read]

    return run


def test_the_best_by_length_and_quality_is_chosen(build):
    ((row,), _) = build("Write 100 words.", "pairs_both", rejected="worst")
    assert row["chosen"][0]["content"] == " ".join(["fine"] * 100) + "."
    assert row["rejected"][0]["content"].startswith("poor") and row["margin"] > 50
    assert sorted(sample["score"] for sample in row["samples"])[-1] == row["chosen_score"]
    assert len(row["samples"]) == 4 and len(row["calls"]) == 5
    assert row["scores"]["s_l"] == 100.0 and row["length"]["requested"]["min"] == 100


def test_length_alone_asks_no_judge(build):
    ((row,), _) = build("Write 100 words.", "pairs_length", length_weight=1, rejected="worst")
    assert {sample["quality"] for sample in row["samples"]} == {None} and len(row["calls"]) == 1
    assert row["chosen_score"] == 100 and row["rejected_score"] == 0


def test_texts_without_a_verdict_make_no_pair(build):
    _, (dropped,) = build("Be mute and write 100 words.", "pairs_mute")
    assert dropped["reason"] == "fewer than two texts have a score"
    assert [sample["score"] for sample in dropped["samples"]] == [None] * 4


def test_an_empty_text_is_no_text(build):
    with pytest.raises(NoPair, match="fewer than two"):
        pick([scored(90), scored(None)], Config(rejected="worst"), random.Random(0))


def test_a_prompt_without_a_length_is_refused(build):
    _, (dropped,) = build("Write.", "pairs_none")
    assert dropped["reason"] == "input: no length in words"


def scored(score: float | None, finish_reason: Any = "stop") -> Scored:
    reply = Completion(text=f"{score}", finish_reason=finish_reason, num_tokens=1)
    return Scored(reply=reply, s_l=0.0, quality=None, score=score)


def test_a_cut_text_is_never_chosen():
    cut, whole = scored(90, "length"), scored(50)
    with pytest.raises(NoPair, match="too close"):
        pick([cut, whole], Config(), random.Random(0))
    assert pick([cut, whole, scored(20)], Config(rejected="worst"), random.Random(0))[0] is whole
    with pytest.raises(NoPair, match="every text was cut"):
        pick([cut, cut], Config(), random.Random(0))


def test_the_other_is_random_or_the_worst():
    texts = [scored(90), scored(60), scored(30), scored(None)]
    assert pick(texts, Config(rejected="worst"), random.Random(0))[1] is texts[2]
    others = {pick(texts, Config(), random.Random(seed))[1].score for seed in range(30)}
    assert others == {60, 30}
    with pytest.raises(NoPair, match="too close"):
        pick(texts[:2], Config(min_margin=31), random.Random(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples is 1"),
        ({"length_weight": 2}, "length_weight is 2"),
        ({"min_margin": -1}, "min_margin is -1"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_what_makes_no_pair_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(**options)
