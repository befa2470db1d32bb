"""A DoRA run on the embedded model: refused by vLLM as it is, exported, and served by vLLM and transformers alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lengthwise.config import ConfigError
from lengthwise.engines.lora_slots import lora_rank

REPO = Path(__file__).parents[2]
FLAGS = [
    "--name=x",
    "--model=embedded:smollm2-135m",
    "--learning_rate=5e-4",
    "--lr_scheduler_type=constant",
    "--per_device_train_batch_size=2",
    "--gradient_checkpointing=false",
    "--save_strategy=no",
    "--max_steps=4",
    "--lora.r=8",
    "--lora.use_dora",
    "--lora.use_rslora",
    "--preflight",
]


def run(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=REPO,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


ASK = """
import asyncio, json, sys
from lengthwise.engines import build_engine
from lengthwise.engines.base import Sampling
from lengthwise.records import user

async def main():
    engine = build_engine({"name": sys.argv[1], "max_model_len": 256, "dtype": "float32"}, sys.argv[2], None)
    await engine.start()
    try:
        (reply,) = await engine.generate(user("Red?"), Sampling(max_tokens=12, temperature=0.0))
        print("REPLY " + json.dumps([list(reply.token_ids), reply.finish_reason]))
    finally:
        await engine.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""


def reply_of(engine: str, model: Path, folder: Path):
    script = folder / "ask.py"
    script.write_text(ASK, encoding="utf-8")
    code, output = run(script, engine, model)
    assert code == 0, output
    return json.loads(output.rpartition("REPLY ")[2].splitlines()[0])


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dora_run_is_exported_and_served(tmp_path):
    rows = tmp_path / "rows.jsonl"
    pairs = [("Hi", "Yo"), ("One?", "Two."), ("Red?", "Blue."), ("Cat?", "Dog."), ("Up?", "Down.")]
    rows.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs))
    trained, output = tmp_path / "run", tmp_path / "merged"
    code, said = run("posttrain/sft.py", *FLAGS, f"--data={rows}", f"--output_dir={trained}")
    assert code == 0, said
    assert "rsLoRA + DoRA (r=8, alpha=32) of embedded:smollm2-135m" in said
    assert "preflight   the longest batch, 2 rows of up to" in said
    with pytest.raises(ConfigError, match=r"is a DoRA adapter, which vLLM does not serve.*export .* --merge"):
        lora_rank(trained)

    code, said = run(
        "-m", "lengthwise.cli", "export", trained, "--merge", f"--output_dir={output}", "--dtype=float32"
    )
    assert code == 0, said
    assert "5 conversations of the run's training data" in said
    record = json.loads((output / "export.json").read_text(encoding="utf-8"))
    log_probs = record["checks"]["log_probs"]
    assert log_probs["mean_difference"] < 1e-4 < 0.1 < log_probs["effect"]
    assert record["lineage"]["base_model"]["name"] == "embedded:smollm2-135m"
    assert record["method"] == "rsLoRA + DoRA (r=8, alpha=32)"

    by_adapter = reply_of("hf", trained, tmp_path)
    assert reply_of("hf", output, tmp_path) == by_adapter
    assert reply_of("vllm", output, tmp_path) == by_adapter
