"""`lengthwise score`: anybody's outputs, no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.score import main, row_length
from lengthwise.records import LengthTarget


def words(number: int) -> str:
    return " ".join(["word"] * number)


@pytest.fixture
def outputs(tmp_path: Path):
    def write(*rows: dict | str) -> str:
        path = tmp_path / "outputs.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def table_row(text: str, label: str, metric: str) -> list[str]:
    cells = [line.split("  ") for line in text.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in cells]
    return next(row for row in rows if row[1:3] == [label, metric])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"length": 500}, LengthTarget.about(500)),
        ({"length": "500"}, LengthTarget.about(500)),
        ({"length": "about 500 words"}, LengthTarget.about(500)),
        ({"length": ">800"}, LengthTarget(min=801, relation="at_least")),
        ({"length": "不少于300字"}, LengthTarget(min=300, relation="at_least")),
        ({"length": {"max": 90, "relation": "at_most"}}, LengthTarget(max=90, relation="at_most")),
        ({"prompt": "Write a story of 200-300 words."}, LengthTarget(min=200, max=300, relation="range")),
        ({"requested": LengthTarget.about(7).to_dict()}, LengthTarget.about(7)),
    ],
)
def test_row_length(row, expected):
    assert row_length(row) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no length"),
        ({"prompt": "Write a story."}, "states no length"),
        ({"length": True}, "expected a whole number"),
        ({"length": "long"}, "not understood"),
        ({"length": {"minimum": 5}}, "a map of min, .* has no minimum"),
        ({"length": {"min": 5, "max": 3, "relation": "range"}}, "swap them"),
        ({"length": -5}, "positive"),
    ],
)
def test_row_length_refuses(row, message):
    with pytest.raises(ValueError, match=message):
        row_length(row)


def test_the_table_and_nothing_else(outputs, capsys, tmp_path):
    path = outputs(
        {"output": words(500), "length": 500, "finish_reason": "stop"},
        {"output": "", "length": "about 500 words", "finish_reason": "stop"},
        {"output": words(250), "prompt": "Write about 500 words.", "finish_reason": "length"},
        {"output": words(500), "length": {"min": 500, "max": 500}},
    )
    assert main([path, "--task", "longbench_write"]) == 0
    printed = capsys.readouterr()
    row = table_row(printed.out, "all", "s_l")
    assert row[3] == "62.5"  # (100 + 0 + 50 + 100) / 4
    assert row[6:] == ["4", "1", "1 (+1 unknown)", "cjk_alpha"]
    assert table_row(printed.out, "all", "log_ratio_abs")[6] == "3"
    assert "were cut" in printed.err
    assert [file.name for file in tmp_path.iterdir()] == ["outputs.jsonl"]


def test_other_servers_finish_reasons(outputs, tmp_path):
    rows = [
        {"output": "x", "length": 10, "finish_reason": r} for r in ("end_turn", "max_tokens", "odd", None)
    ]
    out = tmp_path / "scores.json"
    assert main([outputs(*rows), "--task", "tlg", "--output", str(out)]) == 0
    counts = json.loads(out.read_text())["counts"]["tlg"]
    assert (counts["truncated"], counts["truncated_unknown"]) == (1, 2)


def test_results_are_written_where_asked_and_never_over_a_file(outputs, capsys, tmp_path):
    path = outputs({"output": words(150), "length": 150})
    out = tmp_path / "scores.json"
    assert main([path, "--task", "tlg", "--output", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["results"]["tlg"]["pm,none"] == 1.0
    assert document["counts"]["tlg"]["truncated_unknown"] == 1
    before = out.read_bytes()
    assert main(["--file", path, "--task", "tlg", "--output", str(out)]) == 2
    assert out.read_bytes() == before
    assert "not overwritten" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(outputs, capsys, tmp_path):
    path, out = outputs({"output": words(150), "length": 150}), tmp_path / "scores.json"
    assert main([path, "--task", "tlg", "--output", str(out), "--dry_run"]) == 0
    assert not out.exists() and "nothing was written" in capsys.readouterr().out
    out.write_text("mine")
    assert main([path, "--task", "tlg", "--output", str(out), "--dry_run"]) == 2 and out.read_text() == "mine"


def test_bad_rows_are_named_and_stop(outputs, capsys):
    path = outputs(
        {"output": words(5), "length": 5},
        "{broken",
        {"length": 5},
        {"output": None, "length": 5},
        {"output": "x"},
        "[1]",
    )
    assert main([path, "--task", "longen"]) == 2
    printed = capsys.readouterr()
    for number in (2, 3, 4, 5, 6):
        assert f"line {number}:" in printed.err
    assert "line 1:" not in printed.err
    assert printed.out == ""


def test_bad_rows_can_be_dropped_and_are_counted_and_listed(outputs, capsys, tmp_path):
    path = outputs({"output": words(5), "length": 5}, "{broken", {"output": "x"})
    out = tmp_path / "scores.json"
    assert main([path, "--task", "longen", "--on_bad_row", "drop", "--output", str(out)]) == 0
    document = json.loads(out.read_text())
    counts = document["counts"]["longen"]
    assert (counts["scored"], counts["bad_rows"]) == (1, 2)
    assert [(row["line"], row["detail"].split(":")[0]) for row in document["dropped"]] == [
        (2, "not valid JSON"),
        (3, "no length"),
    ]
    assert "2 bad rows" in capsys.readouterr().err


def test_a_length_the_task_does_not_know_is_a_bad_row(outputs, capsys):
    assert main([outputs({"output": "x", "length": 123}), "--task", "tlg"]) == 2
    assert "line 1: TLG has no target about 123" in capsys.readouterr().err
    assert main([outputs({"output": "x", "length": "50 tokens"}), "--task", "longen"]) == 2
    assert "ask for words" in capsys.readouterr().err


def test_outputs_to_one_prompt_are_not_independent(outputs, tmp_path):
    lengths = (100, 120, 150, 90)
    for name, prompts in (("apart", "abcd"), ("shared", "aabb"), ("unknown", " " * 4)):
        rows = [
            {"output": words(n), "length": 100, "prompt": p.strip()}
            for n, p in zip(lengths, prompts, strict=True)
        ]
        out = tmp_path / f"{name}.json"
        assert main([outputs(*rows), "--task", "longbench_write", "--output", str(out)]) == 0
    ci = {
        name: json.loads((tmp_path / f"{name}.json").read_text())["results"]["longbench_write"]["s_l_ci,none"]
        for name in ("apart", "shared", "unknown")
    }
    assert ci["apart"] == ci["unknown"]
    assert ci["shared"][0] < ci["apart"][0]


@pytest.mark.parametrize("wrong", ["85", True, -1, 1.5, [85]])
def test_a_wrong_number_of_tokens_is_a_bad_row(outputs, capsys, wrong):
    path = outputs({"output": "x", "length": 10, "num_tokens": wrong})
    assert main([path, "--task", "longen"]) == 2
    assert "line 1: num_tokens is" in capsys.readouterr().err


def test_characters_are_words_in_chinese_only(outputs, capsys):
    row = {"output": words(85), "length": "500 characters"}
    assert main([outputs(row), "--task", "longbench_write"]) == 2
    assert "line 1: longbench_write counts words, and sample" in capsys.readouterr().err
    chinese = {**row, "output": "茶" * 500, "language": "zh"}
    assert (
        main([outputs(chinese, {**row, "prompt": "写一篇关于茶的文章。"}), "--task", "longbench_write"]) == 0
    )
    assert table_row(capsys.readouterr().out, "all", "s_l")[3] == "50"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl", "--task", "tlg"], "no file or folder 'nowhere.jsonl'"),
        (["FILE", "--task", "tlgg"], "tlg"),
        (["owner/set", "--task", "tlg"], "there is no 'owner/set'"),
        (["FILE", "--task", "tlg", "--on_bad_rows", "drop"], "did you mean 'on_bad_row'"),
        (["FILE", "--task", "tlg", "--skip_bad_rows"], "was renamed: write 'on_bad_row: drop'"),
    ],
)
def test_mistakes_end_with_exit_code_2(outputs, capsys, arguments, message):
    path = outputs({"output": "x", "length": 10})
    assert main([path if word == "FILE" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err


def test_samples_of_a_run_are_scored_as_the_run_did(outputs, capsys):
    target = LengthTarget(min=100, max=200, relation="range").to_dict()
    row = {
        "id": "a",
        "doc": {"prompt": "write", "language": "en"},
        "resps": [words(150)],
        "requested": target,
        "finish_reason": "stop",
        "num_tokens": 190,
    }
    path = outputs(row, {**row, "resps": [words(50)]})
    assert main([path, "--task", "longen"]) == 0
    printed = capsys.readouterr()
    # Two replies to one prompt are one observation.
    assert table_row(printed.out, "all", "length_score")[3] == "0.5"
    assert "language en" not in printed.out  # the only language: the same rows as "all"
    assert printed.err == ""
