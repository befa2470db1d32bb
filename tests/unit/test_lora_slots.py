from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lengthwise.engines.lora_slots import LoraSlots, lora_rank, served_rank, write_zero_adapter
from lengthwise.models import folder_digest

MODULE = "model.layers.0.self_attn.q_proj"
HIDDEN, HEADS = 12, 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    names = (MODULE, "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.q_proj", "lm_head")
    tensors = {f"{name}.weight": np.ones((HEADS, HIDDEN), np.float32) for name in names}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str = "adapter", *, rank: int = 4, value: float = 1.0, hidden: int = HIDDEN, **config
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        prefix = f"base_model.model.{MODULE}"
        tensors = {
            f"{prefix}.lora_A.weight": np.full((rank, hidden), value, np.float32),
            f"{prefix}.lora_B.weight": np.full((HEADS, rank), value, np.float32),
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 8} | config))
        return folder

    return make


@pytest.fixture
def slots(tmp_path: Path, base: Path) -> LoraSlots:
    (tmp_path / "scratch").mkdir()
    return LoraSlots(tmp_path / "scratch", base)


# --- one slot for each content --------------------------------------------------------------------


def test_a_slot_is_a_copy_named_by_content(slots, make):
    adapter = make()
    slot = slots.slot(adapter, 8)
    assert slot.folder != adapter
    assert folder_digest(slot.folder) == folder_digest(adapter)
    assert slot.name == slot.folder.name == f"adapter-{folder_digest(adapter)[:16]}"
    assert slot.number == 1
    assert slots.slot(adapter, 8) == slot


def test_new_content_at_the_old_path_is_a_new_slot_and_the_old_files_stay(slots, make):
    adapter = make(value=1.0)
    old = slots.slot(adapter, 8)
    make(value=2.0)
    new = slots.slot(adapter, 8)
    assert len({old.name, new.name}) == len({old.folder, new.folder}) == len({old.number, new.number}) == 2
    # Requests that still run with the old version may read it again.
    assert load_file(old.folder / "adapter_model.safetensors")[
        f"base_model.model.{MODULE}.lora_A.weight"
    ].max() == pytest.approx(1.0)
    make(value=1.0)
    assert slots.slot(adapter, 8) == old


def test_equal_content_in_two_places_shares_a_slot(slots, make):
    assert slots.slot(make("a"), 8) == slots.slot(make("b"), 8)


def test_checkpoints_and_optimizer_states_are_not_copied(slots, make):
    adapter = make()
    (adapter / "checkpoint-5").mkdir()
    (adapter / "checkpoint-5" / "adapter_model.safetensors").write_text("x")
    (adapter / "optimizer.pt").write_text("x")
    slot = slots.slot(adapter, 8)
    assert {file.name for file in slot.folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_copy_that_was_cut_short_is_made_again(slots, make, monkeypatch):
    import shutil

    adapter = make()
    copytree = shutil.copytree

    def full(source: Path, target: Path, **options) -> None:
        Path(target).mkdir()
        (Path(target) / "adapter_config.json").write_text("{}")
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="no space left"):
        slots.slot(adapter, 8)
    monkeypatch.setattr(shutil, "copytree", copytree)
    slot = slots.slot(adapter, 8)
    assert folder_digest(slot.folder) == folder_digest(adapter)


# --- what is refused before vLLM sees it ----------------------------------------------------------


def refusal(slots: LoraSlots, adapter: Path, max_rank: int = 8) -> str:
    with pytest.raises(ValueError) as error:
        slots.slot(adapter, max_rank)
    assert str(error.value).startswith("adapter: ") or "safetensors" in str(error.value)
    return str(error.value)


def test_a_rank_above_the_engines(slots, make):
    message = refusal(slots, make(rank=12))
    assert "has rank 12, above the engine's max_lora_rank 8: set engine.max_lora_rank to 16" in message
    assert slots.slot(make(rank=12), 16).number == 1
    assert "has rank 32" in refusal(slots, make(rank=4, rank_pattern={"q_proj": 32}))


def test_a_missing_folder_or_file(slots, make, tmp_path):
    assert "has no adapter_config.json: give the folder of a PEFT adapter" in refusal(slots, tmp_path / "no")
    adapter = make()
    (adapter / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors: save the adapter again" in refusal(slots, adapter)


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_a_cut_file(slots, make, kept):
    adapter = make()
    weights = adapter / "adapter_model.safetensors"
    os.truncate(weights, kept if kept >= 0 else weights.stat().st_size - 1)
    message = refusal(slots, adapter)
    assert "is not a whole safetensors file" in message and "copy or save it again" in message


@pytest.mark.parametrize("data", [b"\xff" * 200, b"\x05" + b"\0" * 7 + b"[1,2]", b"\x02" + b"\0" * 7 + b"{}"])
def test_a_file_that_is_none(slots, make, data):
    adapter = make()
    (adapter / "adapter_model.safetensors").write_bytes(data)
    assert "safetensors file" in refusal(slots, adapter)


@pytest.mark.parametrize("config", ['{"peft_type": "IA3"}', "{", "[]", '{"r": null}'])
def test_what_is_no_lora_adapter(slots, make, config):
    adapter = make()
    (adapter / "adapter_config.json").write_text(config)
    assert "does not describe a LoRA adapter" in refusal(slots, adapter)


@pytest.mark.parametrize("hidden", [HIDDEN - 4, HIDDEN + 4])
def test_an_adapter_of_another_model(slots, make, hidden):
    """Without the check vLLM copies the smaller matrix into the larger one and serves it."""
    message = refusal(slots, make(hidden=hidden))
    assert f"{MODULE}.lora_A.weight is {hidden} wide where the model has {HIDDEN}" in message
    assert "give the base it was trained on" in message


def test_packed_weights_are_not_measured(slots, make, base):
    (base / "config.json").write_text('{"quantization_config": {}}')
    assert slots.slot(make(hidden=HIDDEN + 4), 8).number == 1


def test_a_refused_adapter_takes_no_number(slots, make):
    refusal(slots, make("large", rank=12))
    refusal(slots, make("wide", hidden=HIDDEN + 1))
    assert slots.slot(make("fine"), 8).number == 1


# --- ranks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "served"), [(1, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_ranks_are_rounded_up_to_what_vllm_serves(rank, served):
    assert served_rank(rank) == served


def test_a_rank_beyond_vllms():
    with pytest.raises(ValueError, match="up to rank 512, not 513: merge the adapter"):
        served_rank(513)


def test_the_rank_is_read_from_the_folder(make):
    assert lora_rank(make(rank=6)) == 6


# --- zeros ----------------------------------------------------------------------------------------


def test_the_zero_adapter_fits_the_base(slots, base, tmp_path):
    folder = write_zero_adapter(base, tmp_path / "zeros")
    tensors = load_file(folder / "adapter_model.safetensors")
    shapes = {name.rsplit(".", 2)[-2]: array.shape for name, array in tensors.items()}
    assert shapes == {"lora_A": (8, HIDDEN), "lora_B": (HEADS, 8)}
    assert not any(array.any() for array in tensors.values())
    assert all(name.startswith("base_model.model.model.layers.0.self_attn.") for name in tensors)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == 8
    assert config["target_modules"][0] in ("q_proj", "o_proj")
    assert slots.slot(folder, 8).number == 1


def test_a_sharded_base_is_searched(base, tmp_path):
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, base / "model-00001-of-00002.safetensors")
    save_file({f"{MODULE}.weight": tensors[f"{MODULE}.weight"]}, base / "model-00002-of-00002.safetensors")
    assert lora_rank(write_zero_adapter(base, tmp_path / "zeros")) == 8


def test_a_base_without_such_a_layer_is_named(tmp_path):
    with pytest.raises(ValueError, match="no safetensors weights with a layer-0 .* merge the adapter"):
        write_zero_adapter(tmp_path, tmp_path / "zeros")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"use_dora": True}, "a DoRA adapter"),
        ({"modules_to_save": ["lm_head"]}, r"modules trained in full \(\['lm_head'\]\)"),
        ({"bias": "all"}, "an adapter with biases"),
        ({"lora_bias": True}, "an adapter with biases"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
    ],
)
def test_adapters_that_vllm_does_not_serve_are_to_be_merged(make, config, kind):
    with pytest.raises(ValueError, match=rf"{kind}.*`lengthwise export .*adapter --merge`"):
        lora_rank(make(**config))


def test_rank_stabilised_adapters_are_served(make):
    served = {
        "use_rslora": True,
        "use_dora": False,
        "modules_to_save": None,
        "bias": "none",
        "lora_bias": False,
    }
    assert lora_rank(make(rank=6, **served)) == 6
