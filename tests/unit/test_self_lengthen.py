"""The steps of Self-Lengthen, with a scripted model: what each keeps, refuses, and records."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_builders.extend import first_half, two_thirds
from data_builders.response_check import response_fault
from data_builders.run import main
from data_builders.self_instruct import SEEDS, asked
from data_builders.self_lengthen_sampling import keeps_long, length_ranks
from lengthwise.config import build_component
from lengthwise.yaml_source import load_yaml
from recipes.self_lengthen import Settings, extender_rows, generator_rows, new_ones

MODEL = '''
"""Writes longer, as the request says; of some tasks badly."""
import random
import re


def words(number, draw):
    stream = random.Random(draw)
    vocabulary = ["river", "stone", "light", "bread", "wind", "letter", "winter", "garden", "harbour", "song"]
    return " ".join(f"{stream.choice(vocabulary)}{stream.randrange(10 ** 6)}" for _ in range(number))


def reply(prompt, sampling, draw):
    asked, last = prompt[0].content, prompt[-1]
    if "one word, yes or no" in asked:
        return "No." if "poem" in asked else "Yes"
    if "Task 3:" in last.content:
        return {0: " Write a short poem.", 1: " no"}.get(draw % 5, f" Task 3: Write about {words(6, draw)}.")
    if "too thin" in asked:
        draft = asked.partition("Draft:")[2]
        if "stubborn" in asked:
            return "Short."
        grown = "\\n\\n".join(words(30, draw + i) + "." for i in range(4 + draft.count(".")))
        return grown + (" And" if "endless" in asked else "")
    if "stuck" in asked:
        return "It never ends and"
    return "\\n\\n".join(words(12, draw + i) + "." for i in range(4))
'''


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "longer_model.py").write_text(MODEL)

    def run(
        builder: dict[str, Any],
        rows: list[dict[str, Any]],
        *more: str,
        name: str = "run",
        model: bool = True,
        code: int = 0,
    ):
        data, folder = tmp_path / f"{name}.jsonl", tmp_path / name
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        engine = (
            ["--model=m", '--engine={"name": "scripted", "responder": "longer_model:reply"}'] if model else []
        )
        given = [
            f"--builder={json.dumps(builder)}",
            f"--data={data}",
            f"--output_dir={folder}",
            "--min_kept_frac=0",
            *more,
        ]
        assert main([*given, *engine]) == code
        if code:
            return None
        return read(folder / "data.jsonl"), read(folder / "dropped.jsonl")

    return run


def test_slots_become_instructions(build):
    kept, dropped = build({"name": "self_instruct"}, [{"id": f"s{i}", "prompt": "slot"} for i in range(20)])
    assert len(kept) == 20 and not dropped
    texts = [row["messages"][0]["content"] for row in kept]
    assert len(set(texts)) == 20 and all(text.startswith("Write about ") for text in texts)
    assert all(len(row["examples"]) == 2 and row["prefilled"] for row in kept)
    assert len({tuple(row["examples"]) for row in kept}) > 10


def test_a_slot_that_stays_empty_says_why(build):
    kept, dropped = build(
        {"name": "self_instruct", "tries": 1}, [{"id": f"s{i}", "prompt": "slot"} for i in range(40)]
    )
    assert kept and {row["reason"] for row in dropped} == {
        "instruction: not for a long text", "instruction: too short or too long",
    }  # fmt: skip


def test_examples_come_from_the_seeds_and_from_earlier_rounds(build, tmp_path):
    build({"name": "self_instruct"}, [{"id": f"s{i}", "prompt": "slot"} for i in range(30)], name="first")
    again = {"name": "self_instruct", "pool": [str(tmp_path / "first")]}
    kept, _ = build(again, [{"id": f"t{i}", "prompt": "slot"} for i in range(20)], name="second")
    examples = [example for row in kept for example in row["examples"]]
    assert any(example.startswith("Write about ") for example in examples)
    assert any(not example.startswith("Write about ") for example in examples)


def test_rows_of_other_examples_are_not_taken_over(build, tmp_path):
    """A pool that was edited between two starts of one run: its rows are made anew, not mixed."""
    pool = tmp_path / "pool.jsonl"
    slots = [{"id": f"s{i}", "prompt": "slot"} for i in range(6)]
    given = {"name": "self_instruct", "seeds": str(pool)}

    def write_pool(word: str) -> None:
        rows = [{"prompt": f"Tell of the {word}, part {i}.", "language": "en"} for i in range(30)]
        pool.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def is_of(row: dict[str, Any], word: str) -> bool:
        return all(word in example for example in row["examples"])

    write_pool("heath")
    assert build(given, slots, "--max_generated_tokens=30", "--max_concurrent_samples=1", code=1) is None
    begun = read(tmp_path / "run" / "data.jsonl")
    assert begun and all(is_of(row, "heath") for row in begun)
    write_pool("coast")
    kept, _ = build(given, slots)
    assert len(kept) == 6 and all(is_of(row, "coast") for row in kept)


def test_too_few_seeds_are_refused_before_anything_is_asked(tmp_path, capsys):
    seeds, data = tmp_path / "seeds.jsonl", tmp_path / "slots.jsonl"
    seeds.write_text('{"prompt": "Write."}\n')
    data.write_text('{"id": "s", "prompt": "slot"}\n')
    given = json.dumps({"name": "self_instruct", "seeds": str(seeds)})
    command = [f"--builder={given}", f"--data={data}", f"--output_dir={tmp_path / 'run'}", "--model=m"]
    assert main([*command, "--engine.name=scripted"]) == 2
    assert "has 1 instructions in en" in capsys.readouterr().err


def test_there_are_twenty_seeds_of_each_language():
    seeds = read(SEEDS)
    for code in ("en", "zh"):
        assert len({row["prompt"] for row in seeds if row["language"] == code}) >= 20


def test_examples_are_the_models_own_beginning_where_it_can_go_on():
    prompt, stop = asked(["A", "B"], "en", prefilled=True)
    assert prompt[-1].role == "assistant" and prompt[-1].content == "Task 1: A\nTask 2: B\nTask 3:"
    assert "Task 4" in stop
    prompt, _ = asked(["A", "B"], "en", prefilled=False)
    assert len(prompt) == 1 and prompt[0].content.endswith("Task 2: B\nTask 3:")


def test_a_prompt_is_answered_as_often_as_it_stands_there(build):
    rows = [{"id": "a", "prompt": "Write."}] * 2 + [{"id": "b", "prompt": "You are stuck."}]
    kept, dropped = build({"name": "respond", "tries": 3}, rows)
    assert [row["id"] for row in kept] == ["a", "a#2"]
    assert kept[0]["messages"][1] != kept[1]["messages"][1]
    assert dropped[0]["reason"] == "response: ending" and dropped[0]["faults"] == ["ending"] * 3


def row(key: str, prompt: str, answer: str) -> dict[str, Any]:
    return {"id": key, "prompt": prompt, "completion": answer}


def test_answers_are_extended(build):
    draft = "One is here.\n\nTwo is there.\n\nThree is far.\n\nFour is gone."
    rows = [
        row("a", "Write.", draft),
        row("a", "Write.", draft),
        row("s", "Be stubborn.", draft),
        row("e", "Be endless.", draft),
    ]
    kept, dropped = build({"name": "extend", "tries": 2}, rows)
    assert [r["id"] for r in kept] == ["a", "a#2"]
    for one in kept:
        assert one["initial"] == draft and one["scores"]["growth"] > 10 and one["continued_by"] == "prefill"
        assert (
            len(one["tries"]) == 3 and [call["step"] for call in one["calls"]] == ["first_half", "whole"] * 3
        )
        words = [entry["words"] for entry in one["tries"] if entry["fault"] is None]
        assert words == sorted(words) and one["length"]["words_longen"] == words[-1]
    assert {r["id"]: r["reason"] for r in dropped} == {"s": "extension: no longer", "e": "extension: ending"}
    assert all(len(r["tries"]) == 6 for r in dropped) and dropped[0]["messages"][-1]["content"] == draft


@pytest.mark.parametrize(
    ("text", "half"),
    [("a\n\nb\n\nc\n\nd", "a\n\nb"), ("a\n\nb", "a"), ("a\nb\nc\nd", "a\n\nb"), ("a", "a"), ("", "")],
)
def test_the_first_half(text, half):
    assert first_half(text) == half


@pytest.mark.parametrize(("number", "kept"), [(0, 0), (1, 0), (2, 0), (3, 2), (4, 2), (5, 3), (6, 4), (7, 4)])
def test_the_first_two_thirds(number, kept):
    parts = [f"p{i}" for i in range(number)]
    assert two_thirds("\n\n".join(parts)) == "\n\n".join(parts[:kept])


@pytest.mark.parametrize(
    ("text", "code", "finish", "fault"),
    [
        ("All is well.", "en", "stop", None),
        ("All is well.", "en", "length", "cut"),
        (" ", "en", "stop", "empty"),
        ("All is", "en", "stop", "ending"),
        ("好了。", "zh", "stop", None),
        ("This paragraph ends.\nb\nc\nd\ne.", "en", "stop", "meta"),
        ("a\nb\nthe response of the crowd\nd\ne\nf.", "en", "stop", None),
        ("x " * 11 + ".", "en", "stop", "repetition"),
        ("版本 version 好。", "zh", "stop", None),
    ],
)
def test_the_check_of_a_text(text, code, finish, fault):
    assert response_fault(text, code, finish) == fault


def test_long_texts_prevail_by_the_papers_numbers():
    stream = random.Random(1)
    lengths = [round(1000 * stream.lognormvariate(0, 0.5)) for _ in range(20_000)]
    stays = keeps_long(lengths, seed=3)
    ordered = sorted(zip(lengths, stays, strict=True))
    assert abs(sum(stays) / len(stays) - 0.595) < 0.01
    assert not any(stay for _, stay in ordered[: int(0.2 * len(ordered))])
    assert all(stay for _, stay in ordered[-200:])
    mean = sum(lengths) / len(lengths)
    kept = [length for length, stay in zip(lengths, stays, strict=True) if stay]
    assert abs(sum(kept) / len(kept) / mean - 1.27) < 0.02
    assert keeps_long(lengths, seed=3) == stays != keeps_long(lengths, seed=4)
    assert length_ranks([3, 3, 1]) == [pytest.approx(2 / 3), pytest.approx(2 / 3), 1.0]


def test_length_biased_rows_stay_as_they_came(build):
    rows = [
        {**row(str(i), "Write.", "word. " * (i + 1)), "initial": "x", "scores": {"growth": 2}}
        for i in range(40)
    ]
    kept, dropped = build({"name": "length_biased"}, rows, model=False)
    assert len(kept) + len(dropped) == 40 and {r["reason"] for r in dropped} == {"length-biased sampling"}
    assert {r["id"] for r in dropped} >= {str(i) for i in range(8)} and kept[-1]["initial"] == "x"
    assert kept[-1]["scores"] == {"growth": 2}


PAIRS = [
    {
        "id": f"p{i}",
        "initial": "\n".join(f"line {n}" for n in range(50)),
        "messages": [{"role": "user", "content": "Write."}, {"role": "assistant", "content": "Long."}],
    }
    for i in range(4)
]


def test_what_the_two_are_trained_on():
    assert generator_rows(PAIRS)[0] == {"id": "p0", "messages": PAIRS[0]["messages"]}
    found = extender_rows(PAIRS, seed=0)
    shown = [sum(f"line {n}\n" in r["messages"][0]["content"] + "\n" for n in range(50)) for r in found]
    assert all(30 <= number < 50 for number in shown) and found == extender_rows(PAIRS, seed=0)
    assert found[0]["messages"][1]["content"] == "Long." and "Write." in found[0]["messages"][0]["content"]


def test_near_duplicates_of_instructions_go():
    texts = ["Write a long story about a ship.", "write a long story about a ship", "Write on bread."]
    rows = [{"id": str(i), "messages": [{"role": "user", "content": text}]} for i, text in enumerate(texts)]
    assert [r["id"] for r in new_ones(rows, 0.8)] == ["0", "2"]


@pytest.mark.parametrize("name", ["paper", "debug"])
def test_its_configs_load(name):
    path = Path(__file__).resolve().parents[2] / "configs" / "self_lengthen" / f"{name}.yaml"
    assert build_component(Settings, load_yaml(path), where="x").rounds >= 2
