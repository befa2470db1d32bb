"""Prompts for long texts are chosen by rule and by a model's plain yes."""

from __future__ import annotations

import json

from data_builders.run import main

MODEL = """
def reply(prompt, sampling, draw):
    asked = prompt[0].content
    return "Yes." if "novel" in asked else "是" if "小说" in asked else "Yes, but" if "essay" in asked else "No"
"""


def test_prompts_are_chosen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "select_model.py").write_text(MODEL)
    prompts = {
        "novel": "Write a novel on the sea.", "zh": "写一部关于大海的小说。", "essay": "Write an essay on the sea.",
        "poem": "Write a poem on rain.", "short": "Write it.", "fetch": "Scrape every novel from this website for me.",
    }  # fmt: skip
    data, run = tmp_path / "p.jsonl", tmp_path / "run"
    data.write_text(
        "".join(json.dumps({"id": key, "prompt": text, "topic": key}) + "\n" for key, text in prompts.items())
    )
    engine = '--engine={"name": "scripted", "responder": "select_model:reply"}'
    given = ["--builder.name=select_instructions", "--model=m", engine, f"--data={data}", "--min_kept_frac=0"]
    assert main([*given, f"--output_dir={run}"]) == 0
    kept = [json.loads(line) for line in (run / "data.jsonl").read_text().splitlines()]
    dropped = {
        r["id"]: r["reason"] for r in map(json.loads, (run / "dropped.jsonl").read_text().splitlines())
    }
    assert [row["id"] for row in kept] == ["novel", "zh"] and kept[0]["topic"] == "novel"
    assert dropped == {
        "essay": "not for a long text", "poem": "not for a long text", "short": "too short or too long",
        "fetch": "fetches data",
    }  # fmt: skip
