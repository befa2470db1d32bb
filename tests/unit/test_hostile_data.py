"""Data files as they are met in the wild, through the command lines of build, eval and score."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_builders import run as build
from evals import run as evaluate
from evals import score
from lengthwise.config import ConfigError
from lengthwise.row_formats import read_row
from posttrain.row_sources import DataSource, load_source

ROOT = Path(__file__).resolve().parents[2]


def good(number: int, **more: Any) -> dict[str, Any]:
    """A row that every reader takes: a prompt, a length, an output to score, a completion to train on."""
    text = " ".join(["word"] * 300)
    prompt = f"Write about 300 words on rain, take {number}."
    return {"prompt": prompt, "length": 300, "output": text, "completion": text, **more}


def line(number: int, **more: Any) -> str:
    return json.dumps(good(number, **more), ensure_ascii=False)


def spoiled(old: str, new: str, number: int = 2) -> str:
    text = line(number)
    assert old in text
    return text.replace(old, new, 1)


A, B, C = line(1), line(2), line(3)
ALL = ("build", "eval", "score", "sft")
NO_SFT = ("build", "eval", "score")


@dataclass
class Case:
    content: str | bytes | Callable[[Path], None]
    num_good: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    """Line to a part of the reason."""
    refused: str = ""
    """Part of the message when nothing of the file can be used."""
    name: str = "data.jsonl"
    jobs: tuple[str, ...] = ALL

    def write(self, folder: Path) -> Path:
        path = folder / "in" / self.name
        path.parent.mkdir()
        if callable(self.content):
            self.content(path)
        elif isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            path.write_text(self.content, encoding="utf-8", newline="")
        return path


def parquet(*rows: dict[str, Any], schema: Any = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), path)

    return write


def truncated_parquet(path: Path) -> None:
    parquet(good(1), good(2))(path)
    path.write_bytes(path.read_bytes()[:-50])


def damaged_parquet(path: Path) -> None:
    parquet(*(good(i, noise=str(i) * 50) for i in range(50)))(path)
    content = bytearray(path.read_bytes())
    content[10:400] = b"\xff" * 390
    path.write_bytes(content)


def latin1_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    raw = [b"caf\xc3\xa9", b"caf\xe9"]
    notes = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, pyarrow.array(raw, pyarrow.binary()).buffers()
    )  # arrow does not look whether a string is UTF-8
    table = pyarrow.Table.from_pylist([good(1), good(2)]).append_column("note", notes)
    pyarrow.parquet.write_table(table, path)


RICH = {
    "day": datetime.date(2024, 5, 1),
    "at": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
    "tags": ["a", None],
    "deep": {"list": [{"x": None}], "none": None},
    "share": float("nan"),
    "raw": b"text",
}

NO_LENGTHS = (
    "{}",
    '{"words": 5}',
    '{"min": NaN, "max": 5}',
    '{"min": [5], "max": 5}',
    '{"min": 5, "max": 3, "relation": "range"}',
    '{"min": 5, "max": 5, "relation": "exactly"}',
    '{"min": 5, "max": 5, "relation": ["about"]}',
    '{"min": 5, "max": 5, "unit": "pages"}',
)

CASES = {
    "empty": Case("", refused="holds no rows"),
    "blank lines only": Case("\n \n\t\r\n", refused="holds no rows"),
    "a mark and nothing else": Case("\ufeff\n", refused="holds no rows"),
    "no such column": Case(
        B.replace("prompt", "promt") + "\n", refused="did you mean 'promt'", jobs=("build", "eval")
    ),
    "some rows without the column": Case(
        f"{A}\n{B.replace('prompt', 'promt')}\n{C}\n", 2, {2: "did you mean 'promt'"}, jobs=("build", "eval")
    ),
    "broken JSON": Case(f"{A}\n\n{B[:-5]}\n{C}", 2, {3: "not valid JSON"}),
    "two objects on a line": Case(f"{A}\n{B}{C}\n", 1, {2: "not valid JSON: Extra data at column"}),
    "a key twice": Case(f'{A}\n{B[:-1]}, "prompt": "x"}}\n', 1, {2: "the key 'prompt' stands twice"}),
    "no objects": Case(f'[1]\n"x"\n5\nnull\n{A}', 1, dict.fromkeys((1, 2, 3, 4), "must be an object")),
    "no UTF-8": Case(f"{A}\n".encode() + b'{"prompt": "caf\xe9"}\n' + C.encode(), 2, {2: "byte 16 is 0xe9"}),
    "NUL bytes": Case(A.encode() + b"\n\x00\x00\x00\n" + C.encode() + b"\n", 2, {2: "not valid JSON"}),
    "UTF-16": Case(f"{A}\n{B}\n".encode("utf-16"), refused="is UTF-16: convert it"),
    "byte order mark": Case(f"\ufeff{A}\n{B}\n", 2),
    "CRLF": Case(f"{A}\r\n{B}\r\n\r\n{C}\r\n", 3),
    "line separators in text": Case(spoiled("rain", "rain\u2028\u0085") + f"\n{A}\n", 2),
    "half a surrogate pair": Case(
        f'{spoiled("rain", chr(92) + "ud83d")}\n{A}\n{B[:-1]}, "note": ["\\udc00x"]}}\n',
        1,
        {1: "half a surrogate pair, '\\ud83d', at character", 3: "column 'note' holds half"},
    ),
    "a whole surrogate pair": Case(f"{spoiled('rain', chr(92) + 'ud83d' + chr(92) + 'ude00')}\n", 1),
    "half a surrogate pair in a key": Case(f'{A}\n{B[:-1]}, "\\ud83d": 1}}\n', 1, {2: "half a surrogate"}),
    "lengths that are none": Case(
        "\n".join(
            [A, *(spoiled('"length": 300', f'"length": {v}') for v in ("NaN", "-Infinity", "1e999", "true"))]
            + [spoiled('"length": 300', f'"length": {v}') for v in ("[300]", "-3", "9" * 400, '"long"')]
        ),
        1,
        dict.fromkeys(range(2, 10), "length"),
        jobs=NO_SFT,
    ),
    "length maps that are none": Case(
        "\n".join([A, *(spoiled('"length": 300', f'"length": {value}') for value in NO_LENGTHS)]),
        1,
        dict.fromkeys(range(2, 2 + len(NO_LENGTHS)), "length target"),
        jobs=("build", "score"),
    ),
    "NaN in other columns": Case(f'{A[:-1]}, "share": NaN, "all": [{{"x": -Infinity}}]}}\n{B}\n', 2),
    "nested nulls": Case(f'{A[:-1]}, "a": null, "b": [null, {{"c": null}}]}}\n', 1),
    "turns that are none": Case(
        "\n".join(
            [A]
            + [
                f'{{"prompt": {value}, "length": 300}}'
                for value in ("[null]", '[{"role": "user", "content": null}]', "5", "NaN", '{"a": 1}', "[[]]")
            ]
        ),
        1,
        dict.fromkeys(range(2, 8), "prompt"),
        jobs=("build", "eval"),
    ),
    "too deep": Case(
        f'{A}\n{B[:-1]}, "x": {"[" * 90}{"]" * 90}}}\n{B[:-1]}, "x": {"[" * 90_000}{"]" * 90_000}}}\n',
        1,
        {2: "nested deeper than 64 levels", 3: "nested too deeply"},
    ),
    "a number of thousands of digits": Case(f'{A}\n{B[:-1]}, "x": {"7" * 5000}}}\n', 1, {2: "digits"}),
    "ids of all kinds": Case(
        "\n".join(line(n, id=v) for n, v in enumerate((1, "1", 1.0, None, "", [1], {"a": 1}, True))), 8
    ),
    "a list": Case(f"[{A},\n{B}, 5]", 2, {3: "must be an object"}, name="data.json"),
    "an empty list": Case("[]", refused="holds no rows", name="data.json"),
    "an empty .json": Case("", refused="holds no rows", name="data.json"),
    "a list cut off": Case(f"[{A},\n{B}, ", refused="of line 2", name="data.json"),
    "a list that is no UTF-8": Case(b'[1,\n "\xe9"]', refused="byte 3 of line 2", name="data.json"),
    "a map in place of a list": Case(f'{{"data": [{A}]}}', refused="must hold a list", name="data.json"),
    "lines in a .json": Case(f"{A}\n{B}\n", refused="name it .jsonl", name="data.json"),
    "Parquet": Case(parquet(good(1, **RICH), good(2)), 2, name="data.parquet"),
    "Parquet with a NaN length": Case(
        parquet(good(1, length=300.0), good(2, length=float("nan")), good(3, length=None)),
        2,
        {2: "nan"},
        name="data.parquet",
        jobs=("build", "score"),
    ),
    "Parquet that is cut off": Case(truncated_parquet, refused="not a readable Parquet", name="data.parquet"),
    "Parquet that is damaged": Case(damaged_parquet, refused="not a readable Parquet", name="data.parquet"),
    "no Parquet at all": Case("PAR1", refused="not a readable Parquet", name="data.parquet"),
    "Parquet that is no UTF-8": Case(latin1_parquet, 1, {2: "a value cannot be read"}, name="data.parquet"),
    "Parquet with bytes": Case(
        parquet(good(1, raw=b"x"), good(2, raw=b"\xff\xd8")), 1, {2: "column 'raw'"}, name="data.parquet"
    ),
}

ENGINE = json.dumps({"name": "scripted"})


def arguments(job: str, path: Path, folder: Path, *more: str) -> list[str]:
    if job == "score":
        return [str(path), "--task", "longbench_write", "--output", str(folder / "scores.json"), *more]
    given = ["--model", "script", "--engine", ENGINE, "--output_dir", str(folder / "run"), *more]
    if job == "build":
        return ["--data", str(path), *given]
    return ["--tasks", json.dumps([{"name": "longbench_write", "data": str(path)}]), *given]


MAIN = {"build": build.main, "eval": evaluate.main, "score": score.main}


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines(path: Path) -> list[dict[str, Any]]:
    return [strict(text) for text in path.read_text(encoding="utf-8").split("\n") if text]


def check_account(job: str, folder: Path, case: Case) -> list[dict[str, Any]]:
    """Assert that every row ended once; return the bad ones as they were written out."""
    num_bad = len(case.bad)
    if job == "score":
        document = strict((folder / "scores.json").read_text(encoding="utf-8"))
        counts = document["counts"]["longbench_write"]
        assert (counts["scored"], counts["bad_rows"]) == (case.num_good, num_bad)
        return document["dropped"]
    run = folder / "run"
    manifest = strict((run / "manifest.json").read_text(encoding="utf-8"))
    dropped = lines(run / "dropped.jsonl")
    if job == "build":
        counts = manifest["counts"]
        assert counts["inputs"] == counts["rows_in_source"] == case.num_good + num_bad
        assert counts["kept"] + counts["rejected"] + counts["failed"] == counts["inputs"]
        assert counts["reasons"].get("input: bad row", 0) == counts["bad_rows"] == num_bad
        assert counts["kept"] == case.num_good == len(lines(run / "data.jsonl"))
    else:
        (results,) = run.glob("results_*.json")
        sizes = strict(results.read_text(encoding="utf-8"))["n-samples"]["longbench_write"]
        assert sizes["rows"] == case.num_good + num_bad
        assert (sizes["original"], sizes["bad_rows"]) == (case.num_good, num_bad)
        counts = manifest["counts"]["longbench_write"]
        assert (counts["scored"], counts["failed"], counts["bad_rows"]) == (case.num_good, 0, num_bad)
        (samples,) = run.glob("samples_*.jsonl")
        assert len(lines(samples)) == case.num_good
    assert len(dropped) == num_bad
    return dropped


PAIRS = [(job, name) for name, case in CASES.items() for job in case.jobs if job != "sft"]


@pytest.mark.parametrize(("job", "name"), PAIRS)
def test_a_hostile_file(tmp_path, capsys, job, name):
    case = CASES[name]
    path = case.write(tmp_path)
    code = MAIN[job](arguments(job, path, tmp_path))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if case.refused or case.bad:
        assert code == 2 and path.name in said
        assert not (tmp_path / "run").exists() and not (tmp_path / "scores.json").exists()
        assert case.refused in said
        for number, part in list(case.bad.items())[:5]:
            (stated,) = [text for text in said.splitlines() if f"{path.name}, {unit(case)} {number}:" in text]
            assert part in stated
        code = MAIN[job](arguments(job, path, tmp_path, "--on_bad_row", "drop"))
        said = capsys.readouterr().err
        assert "Traceback" not in said
    if case.refused:
        assert code == 2 and case.refused in said
        return
    assert code == 0
    dropped = check_account(job, tmp_path, case)
    assert [(row["line"], row["source"]) for row in dropped] == [(n, str(path)) for n in case.bad]
    assert all(part in row["detail"] for part, row in zip(case.bad.values(), dropped, strict=True))


def unit(case: Case) -> str:
    return "line" if case.name.endswith(".jsonl") else "row"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "sft" in case.jobs])
def test_a_hostile_file_to_train_on(tmp_path, name):
    case = CASES[name]
    path = case.write(tmp_path)
    if case.refused:
        with pytest.raises(ConfigError, match=path.name) as error:
            load_source(DataSource(path=str(path)), read_row)
        assert case.refused in str(error.value)
        return
    loaded = load_source(DataSource(path=str(path)), read_row)
    assert len(loaded.rows) == case.num_good
    assert [(row.line, row.source) for row in loaded.refused] == [(n, str(path)) for n in case.bad]
    assert all(part in row.reason for part, row in zip(case.bad.values(), loaded.refused, strict=True))


@pytest.mark.parametrize("job", ["build", "eval", "score"])
def test_as_a_process(tmp_path, job):
    case = CASES["half a surrogate pair"]
    path = case.write(tmp_path)
    script = {"build": "data_builders/run.py", "eval": "evals/run.py", "score": "evals/score.py"}[job]
    command = [sys.executable, str(ROOT / script), *arguments(job, path, tmp_path)]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert "data.jsonl, line 1: column 'prompt' holds half a surrogate pair, '\\ud83d'" in stopped.stderr
    done = subprocess.run([*command, "--on_bad_row", "drop"], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert len(check_account(job, tmp_path, case)) == 2
