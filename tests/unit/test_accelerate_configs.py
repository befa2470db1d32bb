"""Each shipped launcher config, read by accelerate as `accelerate launch` reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lengthwise.config import ConfigError

FOLDER = Path(__file__).parents[2] / "configs" / "accelerate"

EXPECTED = {
    "cpu": {"use_cpu": True, "num_processes": 1},
    "one_gpu": {"use_cpu": False, "num_processes": 1, "gpu_ids": "0"},
    "ddp": {"multi_gpu": True, "use_fsdp": False, "use_deepspeed": False, "num_processes": 8},
    "fsdp2": {"use_fsdp": True, "fsdp_version": 2, "fsdp_offload_params": False},
    "deepspeed_zero2": {"use_deepspeed": True, "zero_stage": 2, "offload_optimizer_device": "none"},
    "deepspeed_zero3": {"use_deepspeed": True, "zero_stage": 3, "zero3_save_16bit_model": True},
    "ulysses": {
        "use_deepspeed": True,
        "zero_stage": 3,
        "use_parallelism_config": True,
        "parallelism_config_sp_size": 4,
        "parallelism_config_dp_shard_size": 2,
        "parallelism_config_sp_backend": "deepspeed",
        "num_processes": 8,
    },
}


def test_each_config_is_checked_here():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it_as_meant(name, monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    file = str(FOLDER / f"{name}.yaml")
    load_config_from_file(file)  # raises for a key that it does not know
    given = launch_command_parser().parse_args(["--config_file", file, "posttrain/sft.py"])
    found, _, _ = _validate_launch_command(given)
    shown = {key: getattr(found, key) for key in EXPECTED[name]}
    assert shown == EXPECTED[name]


def test_the_parts_of_a_row_and_the_shards_make_up_all_processes():
    """accelerate leaves this to DeepSpeed, which says so only once all processes have started."""
    import yaml

    config = yaml.safe_load((FOLDER / "ulysses.yaml").read_text(encoding="utf-8"))
    parallel = config["parallelism_config"]
    sizes = [
        parallel[f"parallelism_config_{kind}_size"] for kind in ("dp_replicate", "dp_shard", "tp", "cp", "sp")
    ]
    product = 1
    for size in sizes:
        product *= size
    assert product == config["num_processes"]


@pytest.mark.parametrize("name", EXPECTED)
def test_each_says_when_to_choose_it(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and len(text.split("compute_environment")[0]) > 100


@pytest.mark.parametrize(
    ("name", "verb", "kind", "refused"),
    [
        ("padded", "sft", "SP", None),
        ("token_budget", "sft", "SP", "to 4 devices, and batching.name is token_budget"),
        ("packed", "sft", "CP", "choose padded"),
        ("padded", "dpo", "SP", "the job is dpo"),
        ("token_budget", "sft", "TP", None),
    ],
)
def test_rows_in_parts_are_for_padded_sft(name, verb, kind, refused):
    from posttrain.batching import Batching, check_row_shards

    environment = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", f"PARALLELISM_CONFIG_{kind}_SIZE": "4"}
    if refused is None:
        check_row_shards(Batching(name=name), verb, environment)
        return
    with pytest.raises(ConfigError, match=refused):
        check_row_shards(Batching(name=name), verb, environment)
    check_row_shards(Batching(name=name), verb, {})
