"""Rows for meta length tokens through the command line: labels, quotas, refusals, and the control of the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.build_config import BuildConfig
from data_builders.run import main
from evals.tasks import tlg
from lengthwise.config import build_component, parse_config
from lengthwise.lengths import count_regex_w
from lengthwise.meta_length import split_mlt
from lengthwise.plugins import load_plugin
from lengthwise.records import Sample, user
from lengthwise.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[2]


def words(number: int) -> str:
    return " ".join(f"word{chr(97 + i % 26)}" for i in range(number)) + "."


def build(folder: Path, rows: list[dict[str, Any]], builder: dict[str, Any]) -> RunDir:
    data, run = folder / "rows.jsonl", folder / f"run_{len(list(folder.glob('run_*')))}"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    given = [f"--builder={json.dumps({'name': 'mlt', **builder})}", f"--data={data}", f"--output_dir={run}"]
    assert main([*given, "--min_kept_frac=0"]) == 0
    return RunDir.load(run)


def dropped(run: RunDir) -> dict[str, str]:
    lines = map(json.loads, (run.path / "dropped.jsonl").read_text().splitlines())
    return {row["id"]: row["reason"] for row in lines}


ROWS: list[dict[str, Any]] = [
    {"id": "ten", "instruction": "Name a bee.", "input": "", "output": words(12), "topic": "bees"},
    {"id": "between", "instruction": "Name a cat.", "output": words(20)},
    {"id": "ten2", "instruction": "Name a dog.", "output": f"  {words(15)}\n"},
    {"id": "ten3", "instruction": "Name an ox.", "output": words(6)},
    {"id": "long", "prompt": "Tell all.", "completion": words(801)},
    {"id": "system", "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": words(140)},
    ]},
    {"id": "stated", "instruction": "Write 30 words on cats.", "output": words(30)},
    {"id": "two", "messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "More"}, {"role": "assistant", "content": words(30)},
    ]},
    {"id": "zh", "prompt": "写蜜蜂。", "completion": "蜜蜂飞过田野。" * 20},
    {"id": "marked", "prompt": "Go.", "completion": f"[MLT:30]{words(30)}"},
]  # fmt: skip


def test_each_answer_opens_with_the_token_of_its_length(tmp_path):
    run = build(tmp_path, ROWS, {"max_per_mlt": 2})
    rows = run.rows()
    assert {row["id"]: row["mlt"] for row in rows} == {
        "ten": "10",
        "ten2": "10",
        "long": ">800",
        "system": "150",
    }
    for row in rows:
        token, answer = split_mlt(row["messages"][-1]["content"])
        assert token == row["mlt"] and row["messages"][-1]["content"] == f"[MLT:{token}]{answer}"
        assert count_regex_w(answer) == row["length"]["words_regex_w"]
    assert rows[0]["topic"] == "bees" and rows[0]["length"]["requested"]["min"] == 10
    assert dropped(run) == {
        "between": "outside every window", "ten3": "above the quota of its token", "stated": "states a length already",
        "two": "several answers", "zh": "not counted in words", "marked": "holds a meta length token",
    }  # fmt: skip
    assert run.manifest["counts"]["mlt"] == {"10": 2, ">800": 1, "150": 1}
    assert "## Kept rows by `mlt`" in (run.path / "README.md").read_text()


def test_the_control_has_the_same_rows_and_the_sentence_of_the_evaluation(tmp_path):
    tokens, control = (build(tmp_path, ROWS, {"form": form, "max_per_mlt": 2}) for form in ("mlt", "words"))
    assert dropped(tokens) == dropped(control)
    for one, other in zip(tokens.rows(), control.rows(), strict=True):
        assert (one["id"], one["mlt"]) == (other["id"], other["mlt"])
        assert split_mlt(one["messages"][-1]["content"])[1] == other["messages"][-1]["content"]
        asked = Sample(
            id="a", messages=user(one["messages"][-2]["content"]), length=tlg.target_length(one["mlt"])
        )
        assert other["messages"][-2]["content"] == tlg.prompt(asked)[0].content
    assert control.rows()[-1]["messages"][0] == {"role": "system", "content": "Be kind."}


def test_wider_windows_and_fewer_targets(tmp_path):
    run = build(tmp_path, ROWS, {"windows": "fm", "targets": ["10", "150"], "mlt_format": "<{target}>"})
    assert [row["id"] for row in run.rows()] == ["ten", "between", "ten2", "ten3", "system"]
    assert run.rows()[0]["messages"][-1]["content"].startswith("<10>word")
    assert dropped(run)["long"] == "of a token that is not in targets"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlt_format": "[MLT]"}, "mlt_format '[MLT]' must hold {target} once"),
        ({"max_per_mlt": 0}, "max_per_mlt is 0"),
        ({"targets": ["20"]}, "targets is ['20']: name some of 10, 30"),
        ({"targets": []}, "name some of"),
        ({"windows": "narrow"}, "windows is 'narrow'"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path, capsys):
    assert main([f"--builder={json.dumps({'name': 'mlt', **options})}", f"--data={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_the_shipped_config_is_valid():
    config = parse_config(BuildConfig, ["--config", str(ROOT / "configs/data/mlt.yaml")], prog="build")
    builder = load_plugin("data_builders", "mlt", wanted="build")
    options = {key: value for key, value in config.builder.items() if key != "name"}
    assert build_component(builder.Config, {"name": "mlt", **options}, where="builder").max_per_mlt == 20_000
