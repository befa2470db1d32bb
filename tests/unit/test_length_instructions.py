"""Lengths written into prompts: true of the answer, read back as meant, in two languages and four relations."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_builders.build_config import BuildConfig
from data_builders.length_instructions import WEIGHTS, limit, says, true_label, with_sentence
from data_builders.run import main
from lengthwise.config import build_component, parse_config
from lengthwise.lengths import longen_interval, longen_score
from lengthwise.plugins import load_plugin

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("grid", [None, 500, 1000, 2000])
def test_labels_are_true_and_as_frequent_as_asked(grid):
    stream = random.Random(0)
    found: Counter[str] = Counter()
    for _ in range(4000):
        words = stream.randint(2000, 7999)
        target = true_label(words, stream, grid)
        assert target is not None and longen_score(target, words) == 1
        assert all(b is None or b % (grid or 1) == 0 for b in (target.min, target.max))
        found[target.relation] += 1
    if grid in (None, 500):
        for relation, weight in WEIGHTS.items():
            assert abs(found[relation] / 4000 - weight) < 0.05


@pytest.mark.parametrize("words", [1, 2, 3, 15, 40, 99, 101, 1234, 19_999])
def test_every_length_has_a_label(words):
    target = true_label(words, random.Random(words))
    assert target is not None and longen_interval(target)[0] <= words <= longen_interval(target)[1]


def test_no_label_fits_where_the_grid_is_too_coarse():
    assert true_label(100, random.Random(0), 1000) is None


@pytest.mark.parametrize("code", ["en", "zh"])
def test_every_wording_is_read_back_as_it_was_meant(code):
    instruction = {"en": "Tell the story of 3 ships and 12 sailors.", "zh": "讲讲三艘船和12个水手的故事。"}[
        code
    ]
    stream, read = random.Random(0), 0
    for words in range(20, 9000, 37):
        target = true_label(words, stream)
        assert target is not None
        text = with_sentence(instruction, target, code, stream)
        assert limit(target, code) in text
        read += says(text, target)
    assert read == len(range(20, 9000, 37))


ANSWER = " ".join(f"word{chr(97 + i % 26)}" for i in range(120)) + "."


def build(folder: Path, rows: list[dict[str, Any]], builder: dict[str, Any], *more: str, code: int = 0):
    data, run = folder / "rows.jsonl", folder / "run"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    given = [
        f"--builder={json.dumps(builder)}",
        f"--data={data}",
        f"--output_dir={run}",
        "--min_kept_frac=0",
        *more,
    ]
    assert main(given) == code
    read = (
        [(run / name).read_text().splitlines() for name in ("data.jsonl", "dropped.jsonl")]
        if not code
        else [[], []]
    )
    return [json.loads(line) for line in read[0]], [json.loads(line) for line in read[1]]


ROWS = [
    {"id": "a", "prompt": "Write on bees.", "completion": ANSWER, "topic": "bees"},
    {"id": "zh", "prompt": "写蜜蜂。", "completion": "蜜蜂飞过田野。" * 20},
    {"id": "short", "prompt": "Write.", "completion": "Too short."},
    {"id": "stated", "prompt": "Write 300 words on cats.", "completion": ANSWER},
]


def test_a_sentence_needs_no_model(tmp_path):
    kept, dropped = build(tmp_path, ROWS, {"name": "length_instructions"})
    assert [row["id"] for row in kept] == ["a", "zh"]
    for row in kept:
        assert row["scores"]["longen"] == 1 and row["messages"][0]["content"].startswith(
            row["unlabelled_prompt"]
        )
        assert row["length"]["requested"]["relation"] in WEIGHTS
    assert kept[0]["topic"] == "bees" and "字" in kept[1]["messages"][0]["content"]
    assert {row["id"]: row["reason"] for row in dropped} == {
        "short": "length out of range", "stated": "states a length already",
    }  # fmt: skip


MODEL = """
def reply(prompt, sampling, draw):
    asked = prompt[0].content
    limit = asked.partition("a text of ")[2].partition(". Say")[0]
    if "stubborn" in asked:
        return "Write 9 words."
    return "Please write on bees, in " + limit + ", for children."
"""


def test_a_model_writes_it_in_and_is_checked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "label_model.py").write_text(MODEL)
    rows = [ROWS[0], {"id": "s", "prompt": "Be stubborn.", "completion": ANSWER}]
    engine = '--engine={"name": "scripted", "responder": "label_model:reply"}'
    kept, dropped = build(
        tmp_path, rows, {"name": "length_instructions", "form": "rewrite"}, "--model=m", engine
    )
    assert [row["id"] for row in kept] == ["a"] and kept[0]["messages"][0]["content"].startswith(
        "Please write on bees"
    )
    assert dropped[0]["reason"] == "rewriting: another length is read" and len(dropped[0]["calls"]) == 3
    again = tmp_path / "again"
    again.mkdir()
    build(again, rows, {"name": "length_instructions", "form": "rewrite"}, code=2)


BACK = """
def reply(prompt, sampling, draw):
    text = prompt[0].content.partition("Text:")[2].strip()
    if text.startswith("copy"):
        return " ".join(text.split()[:40])
    if text.startswith("decline"):
        return "I'm sorry, but I can't help with that request."
    return "Write an essay on the life of bees for readers who keep none."
"""


def test_texts_get_instructions(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "back_model.py").write_text(BACK)
    rows = [{"id": key, "text": f"{key} {ANSWER}"} for key in ("plain", "copy", "decline")]
    engine = '--engine={"name": "scripted", "responder": "back_model:reply"}'
    kept, dropped = build(
        tmp_path, rows, {"name": "back_translate"}, "--model=m", engine, "--prompt_column=text"
    )
    assert [row["id"] for row in kept] == ["plain"] and kept[0]["messages"][1]["content"] == f"plain {ANSWER}"
    assert {r["id"]: r["reason"] for r in dropped} == {
        "copy": "instruction: copies the text", "decline": "instruction: refusal",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_configs_of_builders_load(path):
    config = parse_config(BuildConfig, ["--config", str(path)], prog="x")
    builder = load_plugin("data_builders", config.builder["name"], wanted="build")
    build_component(builder.Config, config.builder, where="builder")
