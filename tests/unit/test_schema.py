from __future__ import annotations

import json
from typing import Literal

import pytest

from lengthwise.schemas import FOLDER, load_schema
from lengthwise.schemas.generate import generate, spell
from lengthwise.value_types import Misfit, coerce


def check(name: str, value):
    return coerce(value, load_schema("sft")[name].hint, lambda _, mapping: mapping)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", 1, 1.0),
        ("max_length", None, None),
        ("packing", True, True),
        ("lr_scheduler_type", "cosine", "cosine"),
        ("report_to", ["wandb"], ["wandb"]),
        ("report_to", "none", "none"),
        ("pad_to_multiple_of", 8, 8),
        ("pad_to_multiple_of", "auto", "auto"),
        ("gradient_checkpointing_kwargs", {"use_reentrant": False}, {"use_reentrant": False}),
        ("liger_kernel_config", {"rope": True}, {"rope": True}),
        ("trackio_static_space_id", False, False),
    ],
)
def test_good_values(name, value, expected):
    assert check(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "fast", "float"),
        ("max_length", 10.5, "int or null"),
        ("packing", 1, "bool"),
        ("save_strategy", "often", "'no' or 'steps' or 'epoch' or 'best'"),
        ("include_for_metrics", [1], "str"),
        ("parallelism_config", {}, "null"),
    ],
)
def test_bad_values(name, value, message):
    with pytest.raises(Misfit, match=message):
        check(name, value)


def test_spelling_of_types():
    assert spell(str | None) == "str | None"
    assert spell(Literal["a", "b"]) == "Literal['a', 'b']"
    assert spell(dict[str, bool] | None) == "dict[str, bool] | None"


def test_schema_equals_the_live_class():
    stored = json.loads((FOLDER / "sft.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(generate("sft"))), "run python -m lengthwise.schemas.generate"


def test_known_trackers_are_those_of_transformers():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    from posttrain.trl_keys import REPORT_TO

    assert set(INTEGRATION_TO_CALLBACK) == REPORT_TO
