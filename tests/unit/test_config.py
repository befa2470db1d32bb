from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from lengthwise.config import (
    ConfigError,
    build_component,
    component_name,
    config_to_dict,
    option,
    parse_config,
    result_affecting,
)
from lengthwise.schemas import FieldSpec


@dataclass(kw_only=True)
class Curriculum:
    cycles: int = option(1, help="how often")
    kind: Literal["up", "down"] = option("up", help="direction")


@dataclass(kw_only=True)
class DemoConfig:
    """A demo job."""

    EXAMPLE: ClassVar[str] = "demo --config configs/demo.yaml"
    RENAMED: ClassVar[dict[str, str]] = {"max_seq_length": "max_length"}
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"logging_steps"})

    name: str = option(help="the run's name")
    learning_rate: float = option(1e-4, help="step size")
    max_length: int | None = option(1024, help="tokens")
    eval_strategy: Literal["no", "steps"] = option("no", help="when")
    tasks: list[str] = option(default_factory=list, help="which tasks")
    engine: dict[str, Any] = option(default_factory=lambda: {"name": "vllm", "seed": 1}, help="the engine")
    curriculum: Curriculum | None = option(None, help="order of the data")
    packing: bool = option(True, help="pack rows")
    data: Path | None = option(None, help="a file")
    max_concurrent_samples: int = option(8, help="at once", operational=True)
    trainer: dict[str, Any] = option(default_factory=dict, help="passed through")

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length <= 0:
            raise ValueError(f"max_length is {self.max_length}: it must be positive")


TRL = {
    "weight_decay": FieldSpec("weight_decay", "float", 0.0, "decay"),
    "logging_steps": FieldSpec("logging_steps", "float", 10, "every so many steps"),
    "report_to": FieldSpec("report_to", "str | list[str] | None", "none", "where to"),
    "save_strategy": FieldSpec("save_strategy", "Literal['no', 'steps']", "steps", "when"),
    "max_length": FieldSpec("max_length", "int | None", 1024, "shadowed by the job's own"),
    "model_init_kwargs": FieldSpec("model_init_kwargs", "dict[str, Any] | str | None", None, "arguments"),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(text: str) -> str:
        Path("demo.yaml").write_text(text, encoding="utf-8")
        return "demo.yaml"

    return _write


def parse(*argv: str) -> DemoConfig:
    return parse_config(DemoConfig, argv, prog="demo", passthrough=TRL)


def error(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    return str(caught.value)


def test_values_come_from_yaml_in_their_types(write):
    config = parse(
        "--config",
        write(
            "name: run\nlearning_rate: 1e-3\nmax_length: null\neval_strategy: no\ntasks: [a, b]\n"
            "engine: {name: hf, dtype: float32}\ncurriculum:\n  cycles: 4\npacking: false\ndata: rows.jsonl\n"
        ),
    )
    assert config.learning_rate == 0.001 and type(config.learning_rate) is float
    assert config.max_length is None
    assert config.eval_strategy == "no"
    assert config.tasks == ["a", "b"]
    assert config.engine == {"name": "hf", "dtype": "float32"}
    assert config.curriculum == Curriculum(cycles=4)
    assert config.packing is False
    assert config.data == Path("rows.jsonl")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--learning_rate", "2e-5"], "learning_rate", 2e-5),
        (["--learning_rate=3"], "learning_rate", 3.0),
        (["--max_length", "None"], "max_length", None),
        (["--tasks", "a", "b"], "tasks", ["a", "b"]),
        (["--tasks", "a"], "tasks", ["a"]),
        (["--tasks", "[a, b]"], "tasks", ["a", "b"]),
        (["--tasks=[]"], "tasks", []),
        (["--tasks", "1", "2"], "tasks", ["1", "2"]),
        (["--no_packing"], "packing", False),
        (["--packing"], "packing", True),
        (["--packing", "false"], "packing", False),
        (["--name", "123"], "name", "123"),
        (["--name=--odd"], "name", "--odd"),
        (["--eval_strategy", "no"], "eval_strategy", "no"),
        (["--engine.max_model_len", "4096"], "engine", {"name": "vllm", "seed": 1, "max_model_len": 4096}),
        (["--engine.extra.depth", "2"], "engine", {"name": "vllm", "seed": 1, "extra": {"depth": 2}}),
        (["--engine", '{"name": "hf"}'], "engine", {"name": "hf"}),
        (["--curriculum.cycles", "3"], "curriculum", Curriculum(cycles=3)),
        (["--data", "1.5"], "data", Path("1.5")),
    ],
)
def test_flags(words, field, value):
    name = [] if field == "name" else ["--name", "run"]
    assert getattr(parse(*name, *words), field) == value


def test_flags_win_over_yaml_and_merge_into_its_maps(write):
    path = write("name: run\nengine: {name: hf, dtype: float32}\nlearning_rate: 1\n")
    config = parse("--config", path, "--engine.dtype", "bfloat16", "--learning_rate", "0.5")
    assert config.engine == {"name": "hf", "dtype": "bfloat16"}
    assert config.learning_rate == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: run\nlearnig_rate: 1e-4\n",
            "demo.yaml:2: unknown key 'learnig_rate' (value 0.0001): did you mean 'learning_rate'?",
        ),
        (
            "name: run\nname: other\n",
            "demo.yaml:2: key 'name' is given twice (see line 1); delete one",
        ),
        (
            "name: run\nengine:\n  seed: 1\n  seed: 2\n",
            "demo.yaml:4: key 'seed' is given twice (see line 3); delete one",
        ),
        ("name: 5\n", "demo.yaml:1: name is 5, expected str; put it in quotes: '5'"),
        ("name: run\nmax_length: 1e3\n", "max_length is 1000.0, expected int or null; write 1000"),
        ("name: run\nmax_length: true\n", "demo.yaml:2: max_length is True, expected int or null"),
        ("name: run\npacking: yes\n", "packing is 'yes', expected bool; write true or false"),
        ("name: run\neval_strategy: stps\n", "expected 'no' or 'steps'; did you mean 'steps'?"),
        ("name: run\ntasks: a\n", "demo.yaml:2: tasks is 'a', expected list of str"),
        (
            "name: run\nengine: vllm\n",
            "engine is 'vllm', expected map; write engine: {name: ..., its options}",
        ),
        (
            "name: run\nmax_seq_length: 5\n",
            "demo.yaml:2: key 'max_seq_length' (value 5) was renamed: write 'max_length'",
        ),
        (
            "name: run\ncurriculum:\n  cycels: 4\n",
            "demo.yaml:3: unknown key 'cycels' (value 4): did you mean 'cycles'?",
        ),
        (
            "name: run\ncurriculum: {kind: sideways}\n",
            "curriculum.kind is 'sideways', expected 'up' or 'down'",
        ),
        ("learning_rate: 1\n", "demo.yaml: missing: name (the run's name)"),
        ("name: run\nmax_length: -1\n", "demo.yaml: max_length is -1: it must be positive"),
        ("name: run\ntrainer: {}\n", "key 'trainer' cannot be given: write the trainer's keys flat"),
        ("name: run\nweight_decay: high\n", "demo.yaml:2: weight_decay is 'high', expected float"),
        ("", "demo.yaml: the file is empty"),
        ("- a\n- b\n", "demo.yaml:1: the file must be a map"),
        ("name: [a\n", "demo.yaml:2: not valid YAML"),
        ("name: run\n\tpacking: true\n", "demo.yaml:2: not valid YAML"),
        ("1: a\n", "demo.yaml:1: key 1 is not a word"),
        ("name: &a [*a]\n", "an alias contains itself"),
    ],
)
def test_wrong_files_name_line_value_and_remedy(write, text, message):
    assert message in error("--config", write(text))


def test_all_wrong_keys_are_listed_at_once(write):
    message = error("--config", write("nam: run\nlearning_rate: fast\n"), "--packng")
    assert [line.split(":")[0] for line in message.splitlines()] == ["--packng", "demo.yaml", "demo.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.yaml"], "none.yaml: there is no such file"),
        (["--config"], "--config takes one file"),
        (["run"], "unexpected argument 'run'"),
        (["--learning-rate", "1"], "--learning-rate: unknown key 'learning-rate' (value '1'): did you mean"),
        (["--name", "a", "--name", "b"], "--name is given twice"),
        (["--name"], "--name : expected str after the flag"),
        (["--learning_rate", "1", "2"], "expected one value (float), not 2"),
        (["--name.x", "1"], "name is not a map"),
        (["--curriculum.cycles", "x"], "--curriculum.cycles: curriculum.cycles is 'x', expected int"),
    ],
)
def test_wrong_command_lines(words, message):
    assert message in error(*words)


def test_a_folder_as_config_is_an_error(tmp_path):
    assert "it is a folder; name a file" in error("--config", str(tmp_path))


def test_passthrough_keys_are_checked_and_collected(write):
    path = write("name: run\nweight_decay: 1\nsave_strategy: no\nmax_length: 5\n")
    config = parse("--config", path, "--report_to", "none", "--model_init_kwargs.dtype", "float32")
    assert config.trainer == {
        "weight_decay": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "model_init_kwargs": {"dtype": "float32"},
    }
    assert config.max_length == 5


def test_without_config_and_required_field_comes_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        parse()
    assert caught.value.code == 2
    assert "demo --config configs/demo.yaml" in capsys.readouterr().err


def test_help_shows_fields_and_passthrough_keys(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    page = capsys.readouterr().out
    assert "--learning_rate  float, default 0.0001" in page
    assert "--name  str, required" in page
    assert "--weight_decay  float = 0.0  decay" in page
    assert "--trainer" not in page
    assert page.count("--max_length ") == 1


def test_print_config_is_read_back_equal(write, capsys):
    text = "name: 'no'\nengine: {name: hf, tag: '1e-4'}\ncurriculum: {cycles: 2}\nweight_decay: 1\n"
    path = write(text)
    expected = parse("--config", path)
    with pytest.raises(SystemExit) as caught:
        parse("--config", path, "--print_config")
    assert caught.value.code == 0
    assert parse("--config", write(capsys.readouterr().out)) == expected


def test_print_schema_refuses_unknown_keys(capsys):
    import json

    with pytest.raises(SystemExit):
        parse("--print_schema")
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name"]
    assert schema["properties"]["eval_strategy"]["enum"] == ["no", "steps"]
    assert schema["properties"]["weight_decay"]["type"] == "number"
    assert "trainer" not in schema["properties"]


def test_dump_is_flat_and_operational_keys_do_not_affect_results():
    config = parse("--name", "run", "--weight_decay", "0.1", "--logging_steps", "5")
    full = config_to_dict(config)
    assert full["weight_decay"] == 0.1 and "trainer" not in full
    decisive = result_affecting(DemoConfig, config)
    assert set(full) - set(decisive) == {"max_concurrent_samples", "logging_steps"}


def test_component_errors_name_field_and_line(write):
    path = write("name: run\nengine:\n  name: hf\n  kind: up\n  cycels: 3\n")
    engine = parse("--config", path).engine
    with pytest.raises(ConfigError, match=r"demo\.yaml:5: unknown key 'cycels'.*did you mean 'cycles'"):
        build_component(Curriculum, engine, where="engine")


def test_component_from_a_plain_map():
    assert build_component(Curriculum, {"name": "x", "cycles": 2}, where="c") == Curriculum(cycles=2)
    with pytest.raises(ConfigError, match=r"c: c\.cycles is 'two', expected int"):
        build_component(Curriculum, {"cycles": "two"}, where="c")


def test_component_name():
    assert component_name({"name": "hf"}, where="engine") == "hf"
    with pytest.raises(ConfigError, match=r"engine is \{\}: it needs a name"):
        component_name({}, where="engine")


def test_component_with_missing_field():
    @dataclass(kw_only=True)
    class Needs:
        model: str = option(help="which model")

    with pytest.raises(ConfigError, match=r"judge\.model is missing \(which model\)"):
        build_component(Needs, {"name": "x"}, where="judge")
