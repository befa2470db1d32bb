"""`lengthwise grpo` as its users have it: a config, a folder of what was written, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model

from lengthwise.config import ConfigError
from posttrain import grpo
from posttrain.grpo import FEWEST_GENERATIONS, GRPOJob
from posttrain.run_log import read_metrics
from posttrain.stages import STAGE_OVER
from posttrain.trainers.rollout_log import read_rollouts

ROWS = [{"id": f"p{i}", "prompt": f"Say {i}.", "answer": str(i % 3)} for i in range(9)]
MINE = '''
"""Right if the sum of its tokens is even; asks for a stop where a file says so."""
from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Config:
    stop_file: str = ""


def score(completion, config):
    if config.stop_file and Path(config.stop_file).exists():
        calls = int(Path(config.stop_file).read_text()) - 1
        Path(config.stop_file).write_text(str(calls))
        if calls == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            Path(config.stop_file).unlink()
    return float(len(completion.text) % 2 == 0)
'''


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def flags(tmp_path, base, monkeypatch):
    """Return the flags of a run in a folder, with a reward of the user's own."""
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    data, mine = tmp_path / "rows.jsonl", tmp_path / "even_length.py"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    mine.write_text(MINE)

    def given(folder: str, *more: str, stop_after: int = 0) -> list[str]:
        stop_file = tmp_path / "stop_here"
        if stop_after:
            stop_file.write_text(str(stop_after))
        rewards = {str(mine): {"stop_file": str(stop_file)}, "repetition": {"weight": 0.5}}
        plain = {
            "name": "x", "model": base, "data": data, "output_dir": tmp_path / folder, "rewards": json.dumps(rewards),
            "correctness": "even_length", "shaping": json.dumps({"name": "grpo_lambda", "top": 0.5}),
            "budget": json.dumps({"kind": "uniform", "initial": 8, "final": 4}), "num_generations": 4,
            "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_completion_length": 16,
            "max_steps": 6, "save_steps": 2, "learning_rate": 0.01, "dtype": "float32", "bf16": "false",
        }  # fmt: skip
        changed = {flag.removeprefix("--").partition("=")[0] for flag in more}
        return [*(f"--{key}={value}" for key, value in plain.items() if key not in changed), *more]

    return given


def steps_of(run: Path) -> list[dict[str, Any]]:
    """Return what each step was trained on and came to, without what took how long."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    return [
        {key: line[key] for key in ("step", "loss", "reward", "token_budget", "completions/mean_length")}
        | {"rollouts": read_rollouts(run, line["step"])}
        for line in lines
    ]


def test_a_run_says_and_keeps_what_it_did(flags, tmp_path, capsys):
    assert grpo.main(flags("run", "--log_step_rows")) == 0
    said = capsys.readouterr().out
    assert "GRPO (1 even_length, 1 repetition" not in said and "0.5 repetition, shaped by grpo_lambda" in said
    assert "2 prompts x 4 answers = 8 a generation" in said
    assert "1 prompts, others in each epoch, do not fill a generation" in said
    assert "padding stands before the prompts" in said
    run = tmp_path / "run"
    for step in range(1, 7):
        rows = read_rollouts(run, step)
        assert len(rows) == 8
        groups = [rows[:4], rows[4:]]
        for group in groups:
            assert len({row["row_id"] for row in group}) == 1
            assert len({row["token_budget"] for row in group}) == 1 and 4 <= group[0]["token_budget"] <= 8
            assert f"exactly {group[0]['token_budget']} tokens" in group[0]["prompt"][-1]["content"]
            assert len({row["is_selected"] for row in group}) == 1
        for row in rows:
            assert row["num_tokens"] == 16 or row["finish_reason"] == "stop"
            assert {
                "rewards/even_length",
                "rewards/repetition",
                "rewards/length_shaping",
                "advantage",
            } <= set(row)
        assert {row["row_id"] for row in rows} == set(read_metrics(run / "step_rows.jsonl")[step - 1]["rows"])
    (line, *_) = read_metrics(run / "metrics.jsonl")
    for key in (
        "time/generation",
        "time/loss",
        "time/rewards",
        "entropy",
        "completions/repeated_frac",
        "alarm/cut",
    ):
        assert key in line, key
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["training"]["steps"] == 6 and manifest["training"]["num_rows"] == len(ROWS)


@pytest.mark.parametrize("stop_at", [2, 5], ids=["first_epoch", "second_epoch"])
def test_a_stopped_run_goes_on_to_the_same_answers_and_losses(flags, tmp_path, stop_at):
    """9 prompts, 2 a step: an epoch has 4 steps. The reward, called 8 times a step, asks for a stop within one."""
    assert grpo.main(flags("whole")) == 0
    assert grpo.main(flags("parts", stop_after=8 * stop_at - 3)) == 128 + 15
    assert (tmp_path / "parts" / f"checkpoint-{stop_at}").is_dir()
    assert grpo.main(flags("parts")) == 0
    assert steps_of(tmp_path / "parts") == steps_of(tmp_path / "whole")


def test_a_stop_amid_a_generation_keeps_prompts_and_budgets(flags, tmp_path):
    """A generation is used for 3 steps; the stop comes after step 4, so the rest of it is answered anew."""
    more = ["--num_iterations=3", "--save_steps=3", "--max_steps=9"]
    assert grpo.main(flags("whole", *more)) == 0
    assert grpo.main(flags("parts", *more, stop_after=8 + 5)) == 128 + 15
    assert (tmp_path / "parts" / "checkpoint-4").is_dir()
    assert grpo.main(flags("parts", *more)) == 0
    asked = {}
    for run in ("whole", "parts"):
        steps = sorted(int(path.stem[-6:]) for path in (tmp_path / run / "rollouts").glob("*.parquet"))
        asked[run] = {
            step: [(row["row_id"], row["token_budget"]) for row in read_rollouts(tmp_path / run, step)]
            for step in steps
        }
    assert set(asked["whole"]) == {1, 4, 7} and set(asked["parts"]) == {1, 4, 5, 7}
    assert asked["parts"][7] == asked["whole"][7]
    assert [row for row, _ in asked["parts"][5]] == [row for row, _ in asked["whole"][4]]


@pytest.mark.parametrize("save_steps", [2, 4], ids=["saved_as_it_ends", "saved_later"])
def test_a_stage_ends_with_its_process_and_the_same_command_goes_on(flags, tmp_path, capsys, save_steps):
    given = flags("run", '--stages={"lengths": [16, 24], "most_steps": 2}', f"--save_steps={save_steps}")
    given = [flag for flag in given if not flag.startswith("--max_completion_length")]
    assert grpo.main(given) == STAGE_OVER
    assert "stage 1 of 2 is over, it had 2 steps" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert grpo.main(given) == 0
    longest = [
        max(row["num_tokens"] for row in read_rollouts(tmp_path / "run", step)) for step in range(1, 7)
    ]
    assert max(longest[:3]) <= 16 < max(longest[3:]) <= 24
    entries = (tmp_path / "run" / "stages.jsonl").read_text().splitlines()
    assert [json.loads(entry) for entry in entries] == [{"from_step": 3, "max_completion_length": 24}]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["training"]["steps"] == 6


def test_files_of_steps_that_are_done_again_go(flags, tmp_path):
    assert grpo.main(flags("run", "--max_steps=3", "--save_steps=3")) == 0
    stale = tmp_path / "run" / "rollouts" / "step_000004.parquet"
    stale.write_bytes(b"of a step that no checkpoint holds")
    (tmp_path / "run" / "manifest.json").unlink()
    assert grpo.main(flags("run", "--max_steps=3", "--save_steps=3")) == 0
    assert not stale.exists() and (stale.parent / "step_000003.parquet").exists()


def test_too_many_cut_answers_end_the_training_with_a_reason(flags, tmp_path, capsys):
    code = grpo.main(
        flags("run", "--guards.cut_frac=0", "--guards.cut_steps=2", "--max_completion_length=16")
    )
    said = capsys.readouterr().out
    assert code == 1 and "ran into max_completion_length" in said and "stopped at step" in said
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rewards={}"], "rewards is empty"),
        (["--rewards={answer_corect: {}}"], "did you mean 'answer_correct'"),
        (["--rewards={answer_correct: {colum: x}}"], "did you mean 'column'"),
        (["--rewards={answer_correct: {weight: heavy}}"], "rewards.answer_correct.weight is 'heavy'"),
        (["--rewards={answer_correct: {column: no}}", "--correctness=answer_correct"], "9 of 9 rows have none"),
        (["--correctness=right"], "correctness is 'right', which is none of the rewards"),
        (["--shaping={name: grpo_lamda}"], "did you mean 'grpo_lambda'"),
        (["--shaping={name: grpo_lambda, top: 2}"], "top is 2.0: it must lie between 0 and 1"),
        (["--budget={kind: uniform, initial: 9}"], "budget.final is not set"),
        (["--max_completion_length=15"], "set max_completion_length to 16 or lower the budget"),
        (["--num_generations=2"], f"needs at least {FEWEST_GENERATIONS}"),
        (["--reward_weights=[1]"], "each reward has its own"),
        (["--batching={name: token_budget}"], "the model writes its rows itself"),
        (["--curriculum={name: length_buckets}"], "lengths are not known before they are written"),
        (["--per_device_train_batch_size=64"], "there are 9 prompts, and a generation takes 32"),
        (["--num_iterations=3", "--save_steps=2"], "set save_steps to a multiple of 3"),
        (["--num_generations=5"], "TRL refuses these settings"),
        (["--vllm_server={devices: '1'}"], "there is no CUDA device"),
        (["--vllm_server={devices: '1'}", "--use_vllm"], "vllm_server and use_vllm are both set"),
        (["--rewards={answer_correct: {last_number: false}, length_range: {limit: 9}}",
          "--correctness=answer_correct"], "9 of 9 rows have none"),
        (["--rewards={soft_overlong: {limit: 10, buffer: 20}}"], "buffer is 20"),
        (["--shaping={name: kimi, weight: 4}"], "weight is 4"),
        (["--shaping={name: grpo_lambda, top: 0.2, rounding: floor}"], "of which 0 would be penalised"),
        (["--gradient_accumulation_steps=1"], "a generation has 1 prompt, of which 1 would be penalised"),
        (["--budget={kind: constant, initial: 8, at_evaluation: 0}"], "at_evaluation is 0"),
        (["--stages={lengths: [16, 24]}"], "max_completion_length and stages are both set"),
        (["--stages={lengths: [24, 16]}"], "write at least two lengths, ascending"),
        (["--guards.cut_steps=-1"], "guards.cut_steps is -1"),
        (["--budget={kind: constant, sentence: Be brief.}"], "lacks {token_budget}"),
    ],
)  # fmt: skip
def test_what_would_fail_late_is_refused_at_once(flags, capsys, more, message):
    assert grpo.main([*flags("run", *more), "--dry_run"]) == 2
    assert message in capsys.readouterr().err


def test_too_few_prompts_for_lambda_are_warned_of(flags, capsys):
    assert grpo.main([*flags("run", "--shaping={name: grpo_lambda, top: 0.2}"), "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert (
        "WARNING     shaping.top is 0.2, and a generation has 2 prompts, of which 1 would be penalised, 50%"
        in said
    )
    assert grpo.main([*flags("run"), "--dry_run"]) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_rows_of_an_evaluation_are_looked_at_too(flags, tmp_path, capsys):
    rows = tmp_path / "eval.jsonl"
    rows.write_text('{"prompt": "Hi"}\n')
    more = [
        f"--eval_data={rows}",
        "--eval_strategy=steps",
        "--rewards={answer_correct: {}}",
        "--shaping=null",
    ]
    assert grpo.main([*flags("run", *more), "--dry_run"]) == 2
    assert "1 of 1 rows have none" in capsys.readouterr().err


def test_an_answer_that_cannot_be_compared_says_where_it_is(flags, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "Hi", "answer": "7"}\n{"prompt": "Ho", "answer": "see ####"}\n'
    )
    more = ["--rewards={answer_correct: {}}", "--correctness=answer_correct"]
    assert grpo.main([*flags("run", *more), "--dry_run"]) == 2
    assert "rows.jsonl, line 2" in capsys.readouterr().err


def test_an_evaluation_states_the_last_budget_and_is_not_shaped(flags, tmp_path):
    budget = {"kind": "exponential", "initial": 8, "gamma": 0.5, "interval": 1}
    more = [f"--eval_data={tmp_path / 'rows.jsonl'}", "--eval_strategy=steps", "--eval_steps=2", "--max_steps=2",
            f"--budget={json.dumps(budget)}", "--per_device_eval_batch_size=3", "--num_generations_eval=1"]  # fmt: skip
    assert grpo.main(flags("run", *more)) == 0
    (line,) = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval_reward" in row]
    assert line["eval_token_budget"] == 4 and line["eval_rewards/length_shaping/mean"] == 0


def test_several_generations_of_a_step_are_all_kept(flags, tmp_path):
    assert grpo.main(flags("run", "--steps_per_generation=1", "--max_steps=2", "--shaping=null")) == 0
    for step in (1, 2):
        rows = read_rollouts(tmp_path / "run", step)
        assert len(rows) == 8 and len({row["row_id"] for row in rows}) == 2


def test_an_adapter_learns_too(flags, tmp_path):
    assert grpo.main(flags("run", "--lora.r=4", "--max_steps=2")) == 0
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_budget_rewards_need_a_budget(flags, capsys):
    given = [flag for flag in flags("run") if not flag.startswith(("--budget", "--rewards", "--shaping"))]
    assert grpo.main([*given, "--rewards={budget_length: {}}", "--dry_run"]) == 2
    assert "no prompt states a budget: set budget" in capsys.readouterr().err


def test_the_defaults_that_are_known_without_trl_are_trls():
    from trl.trainer.grpo_config import GRPOConfig

    known = GRPOConfig.__dataclass_fields__
    for key, value in grpo._DEFAULTS.items():
        assert known[key].default == value, key


def test_a_shaped_answer_has_to_be_worth_one():
    with pytest.raises((ValueError, ConfigError), match="weight is 2"):
        GRPOJob(
            name="x",
            model="m",
            data="d",
            rewards={"answer_correct": {"weight": 2}},
            shaping={"name": "kimi"},
        )
