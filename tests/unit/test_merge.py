"""Exports on a model of a few thousand weights: what is written, what is refused, and when nothing is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_model import TEMPLATE, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lengthwise import cli
from lengthwise.config import ConfigError
from lengthwise.job import merged
from lengthwise.models import resolve_model, run_of_model
from lengthwise.run_dir import RunDir
from lengthwise.training_data import training_runs
from posttrain import merge
from posttrain.merge_check import agreement
from posttrain.trained_model import find_trained

TRAINING = {
    "num_rows": 3,
    "num_tokens": 90,
    "num_supervised_tokens": 30,
    "longest_row": 40,
    "max_length": 256,
    "over_length": {"rows": 0, "tokens": 0, "policy": "raise"},
    "sources": [{"path": "rows.jsonl", "read": 3, "failed": 0, "over_length": 0, "drawn": 3}],
    "supervised": "all assistant turns of a conversation, with the end-of-turn token",
    "method": "LoRA (r=4, alpha=8)",
    "dtype": "float32",
    "steps": 1,
    "train_loss": 2.5,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "base", torch.bfloat16)


def adapt(base: Path, folder: Path, **options) -> Path:
    """Write an adapter whose matrices are far from zero."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and weight.requires_grad):
                weight.add_(torch.randn_like(weight) * 0.2)
    adapted.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """A finished run of SFT with an adapter, and its data."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in ("ab", "cd", "ef")))
    opened = RunDir.open_for(
        "sft", tmp_path / "run", {"model": str(base), "data": str(rows), "lora": {"r": 4}}
    )
    adapt(base, opened.path)
    identity = find_trained(opened_adapter(opened.path, tmp_path)).lineage()["base_model"]["identity"]
    entry = TRAINING | {"base_model": {"name": str(base), "identity": identity}}
    opened.finish(seed=0, extra={"training": entry})
    return opened.path


def opened_adapter(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / name, copy)
    return copy


def logprobs(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits.log_softmax(-1)


IDS = [5, 9, 200, 31, 77, 140]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_folder_answers_as_base_and_adapter_do(run, base, tmp_path, capsys, dtype):
    output = tmp_path / "out"
    assert cli.main(["export", str(run), "--merge", f"--output_dir={output}", f"--dtype={dtype}"]) == 0
    said = capsys.readouterr().out
    assert "equal       log-probs" in said and "3 conversations of the run's training data" in said
    merged = AutoModelForCausalLM.from_pretrained(output)
    assert merged.dtype == getattr(torch, dtype)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(run)
    ).eval()
    difference = (logprobs(merged.float().eval(), IDS) - logprobs(adapted, IDS)).abs().mean()
    assert difference < {"float32": 1e-4, "bfloat16": 0.02}[dtype]
    with adapted.disable_adapter():
        assert (logprobs(merged, IDS) - logprobs(adapted, IDS)).abs().mean() > 0.1

    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.chat_template == TEMPLATE
    generation = json.loads((output / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [3, tokenizer.convert_tokens_to_ids("<|end|>")]
    record = json.loads((output / "export.json").read_text())
    assert record["lineage"]["run"] == str(run) and record["lineage"]["base_model"]["name"] == str(base)
    assert record["dtype"] == dtype and record["method"] == "LoRA (r=4, alpha=8)"
    assert record["checks"]["log_probs"]["effect"] > 0.1 > record["checks"]["log_probs"]["mean_difference"]
    card = (output / "README.md").read_text()
    assert "LoRA (r=4, alpha=8), merged into one model" in card and "library_name: transformers" in card
    assert not list(tmp_path.glob(".out*"))


def test_what_a_merged_model_was_trained_on_is_found_and_a_new_training_is_noticed(run, tmp_path, capsys):
    output = Path(f"{run}_merged")
    assert cli.main(["export", str(run), "--merge", f"--output_dir={output}"]) == 0
    assert run_of_model(output) == run and merged(run) == output
    (found,), notes = training_runs(resolve_model(str(output)))
    assert (
        found.folder == run.resolve() and found.config["data"] == str(tmp_path / "rows.jsonl") and notes == []
    )
    shutil.move(run, tmp_path / "moved")
    assert run_of_model(output) == run  # a manifest that names it is shown as one whose parent is gone
    shutil.move(tmp_path / "moved", run)
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ConfigError, match="was not merged from .* as it is"):
        merged(run)
    (output / "export.json").unlink()
    with pytest.raises(ConfigError, match="delete it, or move it away"):
        merged(run)


def test_a_model_of_others_has_no_run(base, tmp_path):
    assert run_of_model(base) is None and run_of_model("org/model") is None and run_of_model(None) is None
    (base / "export.json").write_text('{"lineage": {"run": null}}')
    assert run_of_model(base) is None


@pytest.mark.parametrize(
    "options", [{"use_rslora": True}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}]
)
def test_other_kinds_of_adapters_are_merged_too(base, tmp_path, options):
    output = tmp_path / "out"
    adapter = adapt(base, tmp_path / "adapter", **options)
    assert merge.main([str(adapter), "--merge", f"--output_dir={output}", "--dtype=float32"]) == 0
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter)
    ).eval()
    merged: Any = AutoModelForCausalLM.from_pretrained(output).eval()
    assert (logprobs(merged, IDS) - logprobs(adapted, IDS)).abs().max() < 1e-4
    tied = merged.get_output_embeddings().weight.equal(merged.get_input_embeddings().weight)
    assert tied != ("modules_to_save" in options)
    record = json.loads((output / "export.json").read_text())
    assert record["checks"]["log_probs"]["source"] == "built-in sentences (no run is known)"


def test_a_full_model_is_written_in_another_type(run, base, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (run / name).unlink()
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).save_pretrained(run)
    output = tmp_path / "out"
    assert merge.main([str(run), "--merge", f"--output_dir={output}", "--dtype=bfloat16"]) == 0
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.bfloat16
    assert json.loads((output / "export.json").read_text())["checks"]["log_probs"]["effect"] is None


def test_a_model_that_answers_otherwise_is_not_left_there(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    output = tmp_path / "out"
    assert merge.main([str(run), "--merge", f"--output_dir={output}"]) == 1
    said = capsys.readouterr().out
    assert "DIFFERS     log-probs" in said and f"stopped: {output} is not written" in said
    assert not output.exists() and not list(tmp_path.glob(".out*"))


def test_a_tokenizer_that_comes_back_changed_is_a_difference(run, tmp_path, monkeypatch, capsys):
    from transformers import PreTrainedTokenizerFast

    save = PreTrainedTokenizerFast.save_pretrained

    def damaged(self, folder, *args, **kwargs):
        save(self, folder, *args, **kwargs)
        (Path(folder) / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>", "<|end|> "))

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", damaged)
    assert merge.main([str(run), "--merge", f"--output_dir={tmp_path / 'out'}"]) == 1
    assert "DIFFERS     template" in capsys.readouterr().out


def test_nothing_is_overwritten(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert merge.main([str(run), "--merge", f"--output_dir={tmp_path / 'out'}"]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err


def test_a_checkpoint_and_an_unfinished_run_give_the_checkpoint(run, tmp_path):
    checkpoint = run / "checkpoint-7"
    checkpoint.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.move(run / name, checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    found = find_trained(checkpoint)
    assert (found.name, found.training["steps"]) == ("run-checkpoint-7", 1)
    (run / "manifest.json").unlink()
    assert find_trained(run).folder == checkpoint


def refusal(folder: Path, base: str | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        find_trained(folder, base)
    return str(refused.value)


def test_what_is_no_trained_model_is_refused_with_the_remedy(run, base, tmp_path):
    assert "there is no folder" in refusal(tmp_path / "nowhere")
    assert "there is nothing to merge" in refusal(base)
    RunDir.open_for("eval", tmp_path / "eval", {"model": "m"}).close()
    refused = refusal(tmp_path / "eval")
    assert "is the run folder of 'eval'" in refused and "--format" in refused
    RunDir.open_for("dpo", tmp_path / "begun", {"model": "m"}).close()
    assert "is not finished" in refusal(tmp_path / "begun")
    (tmp_path / "begun" / "checkpoint-1").mkdir()
    assert "was not written to its end" in refusal(tmp_path / "begun" / "checkpoint-1")
    (tmp_path / "begun" / "checkpoint-1" / "trainer_state.json").write_text("{}")
    assert "a sharded checkpoint" in refusal(tmp_path / "begun")
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "PREFIX_TUNING"}))
    assert "only LORA is merged" in refusal(run)


def test_a_base_that_is_gone_moved_changed_or_packed(run, base, tmp_path):
    moved = shutil.move(base, tmp_path / "moved")
    assert "--base MODEL" in refusal(run)
    assert find_trained(run, str(moved)).model.path == Path(moved).resolve()
    config = json.loads((tmp_path / "moved" / "config.json").read_text())
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config | {"rope_theta": 7}))
    assert "is not the one that" in refusal(run, str(moved))
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    assert "is quantised" in refusal(run, str(moved))


def compared(trained: float, exported: float, base: float | None, in_dtype: float, dtype: str):
    of_base = None if base is None else [[base]]
    return agreement([[trained]], [[exported]], base=of_base, in_dtype=[[in_dtype]], dtype=dtype)


def test_how_far_rounding_may_move_a_model():
    found = compared(-1.0, -1.2, -2.0, -1.1, "bfloat16")
    assert (found.tolerance, found.effect, found.is_close) == (pytest.approx(0.3), 1.0, True)
    assert not compared(-1.0, -1.4, -2.0, -1.1, "bfloat16").is_close
    assert compared(-1.0, -1.2, -1.3, -1.1, "bfloat16").drowns_training
    assert compared(-1.0, -1.0, None, -1.0, "float32").tolerance == 1e-4
    assert not compared(float("nan"), -1.0, None, -1.0, "float32").is_close


def test_the_help_of_each_export_names_the_other(capsys):
    for flags, other in ((["--help"], "export --merge"), (["--merge", "--help"], "export --help")):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["export", *flags])
        assert other in capsys.readouterr().out.replace("\n", " ")
