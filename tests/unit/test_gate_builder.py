"""`builder: gate` on anybody's rows: what stays, what goes and why, and that nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.run import main

BEES = "Bees fly from bloom to bloom and carry golden pollen."
CATS = "A cat sleeps on the warm stones of the old harbour wall."
FIELD = "A farmer has three fields of wheat and sells half of each to his neighbour in spring."


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def gate(tmp_path):
    def run(rows: list[dict[str, Any]], *more: str, code: int = 0, name: str = "run"):
        data, folder = write(tmp_path / f"{name}.jsonl", rows), tmp_path / name
        given = ["--builder.name=gate"] if not any(m.startswith("--builder=") for m in more) else []
        assert main([*given, f"--data={data}", f"--output_dir={folder}", *more]) == code
        if code:
            return [], {}
        return read(folder / "data.jsonl"), {row["id"]: row for row in read(folder / "dropped.jsonl")}

    return run


def row(key: str, prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "prompt": prompt, "completion": answer, **more}


def test_rows_of_every_shape_become_messages_and_keep_their_columns(gate):
    kept, dropped = gate(
        [
            row("a", "Write on bees.", BEES, topic="bees", scores={"judge": 4.0}),
            {"id": "b", "instruction": "Write.", "input": "On cats.", "output": CATS},
            {"id": "c", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello, you."}]},
            {"id": "d", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Joke?"},
                                     {"role": "assistant", "content": "No."}, {"role": "user", "content": "Please."},
                                     {"role": "assistant", "content": "A horse walks into a bar."}]},
        ]
    )  # fmt: skip
    assert not dropped and [r["id"] for r in kept] == ["a", "b", "c", "d"]
    assert kept[0]["topic"] == "bees" and kept[0]["scores"] == {"judge": 4.0, "s_l": None}
    assert kept[1]["messages"][0]["content"] == "Write.\n\nOn cats."
    assert [m["role"] for m in kept[3]["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert all(r["lineage"] == ["gate"] and "completion" not in r and "output" not in r for r in kept)


def test_prompts_that_are_nearly_the_same_stay_up_to_a_number(gate):
    asked = "Write a long letter to your old teacher on what you learned of the sea and its weather"
    texts = [
        BEES,
        CATS,
        "The harbour sleeps under a grey and heavy sky.",
        "No ship has come for seven long years.",
    ]
    rows = [row(str(i), prompt, text) for i, (prompt, text) in enumerate(
        zip([asked, f"{asked}!", f"{asked} now", "Write on ships."], texts, strict=True)
    )]  # fmt: skip
    kept, dropped = gate(rows)
    assert [r["id"] for r in kept] == ["0", "3"]
    assert {key: (r["reason"], r["detail"]) for key, r in dropped.items()} == {
        "1": ("duplicate prompt", "as 0"), "2": ("duplicate prompt", "as 0"),
    }  # fmt: skip
    kept, _ = gate(rows, "--builder.max_per_prompt=2", name="two")
    assert [r["id"] for r in kept] == ["0", "1", "3"]
    kept, _ = gate(rows, "--builder.max_per_prompt=null", name="all")
    assert len(kept) == 4
    kept, _ = gate(rows, "--builder.prompt_likeness=1", name="equal")
    assert [r["id"] for r in kept] == ["0", "2", "3"]


def test_prompts_with_other_numbers_are_other_prompts(gate):
    asked = "Write a long letter to your old teacher on the sea, in about {} words if you can"
    rows = [row("a", asked.format(10), BEES), row("b", asked.format(11), CATS)]
    assert [r["id"] for r in gate(rows)[0]] == ["a", "b"]


def test_a_system_prompt_makes_no_prompts_alike(gate):
    system = {"role": "system", "content": " ".join(f"rule{i}" for i in range(80))}
    rows = [
        {"id": str(i), "messages": [system, {"role": "user", "content": asked}, {"role": "assistant", "content": text}]}
        for i, (asked, text) in enumerate([("On bees, please.", BEES), ("On cats, please.", CATS)])
    ]  # fmt: skip
    assert len(gate(rows)[0]) == 2


def test_an_unfit_row_is_never_the_one_that_stays(gate):
    kept, dropped = gate([row("cut", "Write.", BEES, finish_reason="length"), row("whole", "Write.", BEES)])
    assert [r["id"] for r in kept] == ["whole"] and dropped["cut"]["reason"] == "truncation"
    assert dropped["cut"]["messages"][-1]["content"] == BEES


def test_a_row_that_falls_to_its_answer_leaves_its_prompts_place_to_the_next(gate):
    kept, dropped = gate([row("a", "One", BEES), row("b", "Two", BEES), row("c", "Two", CATS)])
    assert [r["id"] for r in kept] == ["a", "c"] and dropped["b"]["reason"] == "duplicate answer"
    assert (
        len(
            gate(
                [row("a", "One", BEES), row("b", "Two", BEES)], "--builder.answer_likeness=null", name="off"
            )[0]
        )
        == 2
    )


def test_rows_that_hold_an_evaluation_prompt_go(gate, tmp_path):
    evals = write(tmp_path / "evals.jsonl", [{"question": FIELD}, {"question": "Name a colour."}])
    given = json.dumps({"name": "gate", "decontaminate": [{"path": str(evals)}]})
    kept, dropped = gate(
        [
            row("near", f"Please solve this. {FIELD} How many?", BEES),
            row("answer", "Tell a story.", f"Once upon a time. {FIELD}"),
            row("short", "name a COLOUR", CATS),
            row("other", "Name a colour of the rainbow.", "The sky after rain is mostly blue."),
        ],
        f"--builder={given}",
    )
    assert [r["id"] for r in kept] == ["other"]
    assert {r["reason"] for r in dropped.values()} == {"evaluation prompt"} and len(dropped) == 3
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert str(evals) in [entry["path"] for entry in manifest["inputs"]]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| evaluation prompt | 3 |" in card and "written by" not in card


def test_evaluation_sets_in_chat_form_are_their_questions_alone(gate, tmp_path):
    turns = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue, " * 60}]
    evals = write(tmp_path / "evals.jsonl", [{"messages": turns}])
    given = json.dumps({"name": "gate", "decontaminate": [{"path": str(evals)}]})
    kept, dropped = gate([row("a", "name a colour", CATS)], f"--builder={given}")
    assert not kept and dropped["a"]["reason"] == "evaluation prompt"
    evals = write(tmp_path / "empty.jsonl", [{"question": " "}])
    given = json.dumps({"name": "gate", "decontaminate": [{"path": str(evals)}]})
    gate([row("a", "name a colour", CATS)], f"--builder={given}", code=2, name="none")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model=embedded:smollm2-135m"], "builder gate asks no model"),
        (['--builder={"name": "gate", "prompt_likeness": 0}'], "prompt_likeness is 0"),
        (['--builder={"name": "gate", "max_per_prompt": 0}'], "max_per_prompt is 0"),
        (['--builder={"name": "gate", "decontaminate": [{"path": "no.jsonl"}]}'], "no file or folder 'no.jsonl'"),
        (['--builder={"name": "agent_write"}'], "model is not set, and builder agent_write asks one"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(gate, capsys, more, message):
    gate([row("a", "One", BEES)], *more, code=2)
    assert message in capsys.readouterr().err


def test_an_evaluation_set_without_prompts_is_named(gate, tmp_path, capsys):
    evals = write(tmp_path / "evals.jsonl", [{"x": 1}])
    given = json.dumps({"name": "gate", "decontaminate": [{"path": str(evals)}]})
    gate([row("a", "One", BEES)], f"--builder={given}", code=2)
    assert "has none of prompt, question" in capsys.readouterr().err


def test_rows_that_are_no_conversation_are_counted(gate):
    rows = [
        row("a", "One", BEES),
        {"id": "b", "text": "plain"},
        {"id": "c", "messages": [{"role": "user", "content": "x"}]},
    ]
    kept, dropped = gate(rows, "--on_bad_row=drop")
    assert len(kept) == 1 and [r["reason"] for r in dropped.values()] == ["input: bad row"]
