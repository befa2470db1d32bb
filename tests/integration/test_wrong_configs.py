"""What a hostile or hurried user may write, through the real command line: exit code 2, and a message that helps.

`python benchmarks/wrong_inputs.py` prints every case with its message and the seconds it took.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

# What each job's file holds before a case adds its own lines, so that these stand on line 4 and after.
BASE = {
    "grpo": "model: embedded:smollm2-135m\ndata: rows.jsonl\nrewards: {repetition: {}}\n",
    "sft": "model: embedded:smollm2-135m\ndata: rows.jsonl\nlora: {r: 4}\n",
    "build": "model: embedded:smollm2-135m\nengine: {name: scripted}\ndata: prompts.jsonl\n",
    "eval": "model: embedded:smollm2-135m\nengine: {name: scripted}\ntasks: [longbench_write]\n",
}

# job, lines added to its YAML file, flags, what stderr has to say
KEYS = [
    ("sft", "learnig_rate: 1e-4", "", ["sft.yaml:4: unknown key 'learnig_rate' (value 0.0001)", "'learning_rate'?"]),
    ("sft", "learning-rate: 1e-4", "", ["sft.yaml:4: unknown key 'learning-rate'", "'learning_rate'?"]),
    ("sft", "Learning_Rate: 1e-4", "", ["sft.yaml:4: unknown key 'Learning_Rate'", "'learning_rate'?"]),
    ("sft", "sequence_len: 5", "", ["sft.yaml:4: unknown key 'sequence_len'"]),
    ("sft", "zzz: 1", "", ["sft.yaml:4: unknown key 'zzz' (value 1)"]),
    ("sft", "max_seq_length: 512", "", ["sft.yaml:4", "'max_seq_length' (value 512) was renamed: write 'max_length'"]),
    ("sft", "evaluation_strategy: no", "", ["'evaluation_strategy' (value 'no') was renamed: write 'eval_strategy'"]),
    ("sft", "group_by_length: true", "", ["was renamed: write 'train_sampling_strategy: group_by_length'"]),
    ("sft", "lora_r: 8", "", ["was renamed: write 'lora.r'"]),
    ("sft", "", "--model_name_or_path x", ["--model_name_or_path", "was renamed: write 'model'"]),
    ("sft", "lora: {r: 8}", "", ["sft.yaml:4: key 'lora' is given twice (see line 3); delete one"]),
    ("sft", "optim_args: a=1\noptim_args: a=2", "", ["sft.yaml:5: key 'optim_args' is given twice (see line 4)"]),
    ("sft", "", "--seed 1 --seed 2", ["--seed is given twice; delete one"]),
    ("sft", "", "--lora.r 1 --lora {r:2}", ["--lora and --lora.r both set lora.r; delete one"]),
    ("sft", "", "--lora.alph 8", ["--lora.alph: unknown key 'alph'", "did you mean 'alpha'?"]),
    ("sft", "", "--no-such", ["--no-such: unknown key 'no-such'"]),
    ("sft", "", "--lerning_rate=1", ["--lerning_rate: unknown key", "'learning_rate'?"]),
    ("sft", "", "--no_lora", ["--no_lora: unknown key 'no_lora'"]),
    ("sft", "", "--größe 3", ["--größe: unknown key 'größe'"]),
    ("sft", "", "—seed 3", ["'—seed'", "--seed"]),
    ("sft", "", "-seed 3", ["'-seed'", "--seed"]),
    ("sft", "", "seed=3", ["unexpected argument 'seed=3'", "--seed"]),
    ("sft", "trainer: {weight_decay: 0.1}", "", ["sft.yaml:4: key 'trainer' cannot be given", "flat"]),
    ("sft", "hub_token: secret", "", ["hub_token is set", "hf auth login"]),
    ("grpo", "reward_weights: [1]", "", ["reward_weights is set", "each reward has its own"]),
    ("grpo", "max_prompt_length: 9", "", ["grpo.yaml:4: unknown key 'max_prompt_length'"]),
    ("grpo", "shaping: {name: grpo_lamda}", "", ["shaping.name is 'grpo_lamda'", "'grpo_lambda'?"]),
    ("grpo", "budget: {kind: linear, final: 9}", "", ["budget.num_decays is not set"]),
    ("grpo", "vllm_server: {devices: '1'}", "", ["vllm_server: there is no CUDA device", "use_vllm: true"]),
    ("grpo", "rewards: {}", "", ["key 'rewards' is given twice (see line 3)"]),
    ("build", "modle: x", "", ["build.yaml:4: unknown key 'modle'", "did you mean 'model'?"]),
    ("eval", "task: [tlg]", "", ["eval.yaml:4: unknown key 'task'", "did you mean 'tasks'?"]),
]  # fmt: skip

VALUES = [
    ("sft", "learning_rate: fast", "", ["sft.yaml:4: learning_rate is 'fast', expected float"]),
    ("sft", "", "--learning_rate fast", ["--learning_rate: learning_rate is 'fast', expected float"]),
    ("sft", "learning_rate: -1e-4", "", ["learning_rate is -0.0001: it must be at least 0"]),
    ("sft", "learning_rate: .nan", "", ["sft.yaml:4: learning_rate is nan, expected a finite number"]),
    ("sft", "", "--learning_rate .inf", ["learning_rate is inf, expected a finite number"]),
    ("sft", "per_device_train_batch_size: 2.5", "", ["sft.yaml:4", "is 2.5, expected int"]),
    ("sft", "per_device_train_batch_size: 2.0", "", ["is 2.0, expected int; write 2"]),
    ("sft", "per_device_train_batch_size: 0", "", ["per_device_train_batch_size is 0: it must be at least 1"]),
    ("sft", "gradient_accumulation_steps: -1", "", ["gradient_accumulation_steps is -1: it must be at least 1"]),
    ("sft", "num_train_epochs: 0", "", ["num_train_epochs is 0.0: it must be above 0"]),
    ("sft", "max_length: 0", "", ["max_length is 0: it must be at least 1"]),
    ("sft", "max_length: 1e3", "", ["max_length is 1000.0, expected int or null; write 1000"]),
    ("sft", "bf16: yes", "", ["bf16 is 'yes', expected bool", "write true or false"]),
    ("sft", "bf16: 1", "", ["bf16 is 1, expected bool", "write true or false"]),
    ("sft", "", "--model null", ["no folder 'null'"]),
    ("sft", "lora_: 1", "", ["unknown key 'lora_'", "did you mean 'lora'?"]),
    ("sft", "", "--lora 5", ["lora is 5, expected map"]),
    ("sft", "", "--lora.r 0", ["r is 0", "at least 1"]),
    ("sft", "", "--lora.dropout 1.5", ["dropout is 1.5", "below 1"]),
    ("sft", "", "--lora.target_modules []", ["target_modules", "empty"]),
    ("sft", "", "--lora.modules_to_save []", ["modules_to_save is an empty list"]),
    ("sft", "", "--lora.quantization 8bit", ["lora.quantization is '8bit', expected 'none' or '4bit'"]),
    ("sft", "", "--preflight maybe", ["preflight is 'maybe', expected bool or 'auto'"]),
    ("sft", "", "--seed.x 1", ["--seed.x: seed is not a map"]),
    ("sft", "report_to: 5", "", ["sft.yaml:4: report_to is 5"]),
    ("sft", "report_to: wandbb", "", ["report_to is 'wandbb'", "did you mean 'wandb'?"]),
    ("sft", "report_to: [tensorboard, foo]", "", ["report_to is ['tensorboard', 'foo']: there are azure_ml"]),
    ("sft", "report_to: null", "", ["report_to is None", "none or all"]),
    ("sft", "seed: -1", "", ["seed is -1: it must lie between 0 and 4294967295"]),
    ("sft", "model_init_kwargs: '{\"a\": 1}'", "", ["model_init_kwargs is '{\"a\": 1}': write a map"]),
    ("sft", "model_init_kwargs: {dtype: float16}", "", ["model_init_kwargs has dtype: float16: write dtype: float16"]),
    ("sft", "", "--model_init_kwargs.torch_dtype auto", ["model_init_kwargs has torch_dtype: auto: write dtype: auto"]),
    ("sft", "over_length: cut", "", ["over_length is 'cut', expected 'raise' or 'drop' or 'truncate'"]),
    ("sft", "save_strategy: step", "", ["save_strategy is 'step'", "did you mean 'steps'?"]),
    ("sft", "save_steps: -3", "", ["save_steps is -3.0: it must be above 0"]),
    ("sft", "optim: adamw_torhc", "", ["optim is 'adamw_torhc'", "did you mean 'adamw_torch'?"]),
    ("sft", "lr_scheduler_type: cosin", "", ["lr_scheduler_type is 'cosin'", "did you mean 'cosine'?"]),
    ("sft", "train_sampling_strategy: grouped", "", ["train_sampling_strategy is 'grouped'", "group_by_length"]),
    ("sft", "name: ../x", "", ["name is '../x'", "output_dir"]),
    ("sft", "name: ''", "", ["neither a name nor an output_dir"]),
    ("sft", "", "--output_dir rows.jsonl", ["rows.jsonl is a file"]),
    ("sft", "", "--output_dir rows.jsonl/x", ["rows.jsonl is no folder"]),
    ("sft", "", "--resume_from_checkpoint nowhere", ["nowhere is no complete checkpoint"]),
    ("sft", "", "--resume_from_checkpoint true", ["holds no complete checkpoint"]),
    ("build", "limit: 0", "", ["limit is 0: it must be at least 1"]),
    ("build", "min_kept_frac: 2", "", ["min_kept_frac is 2.0: it must lie between 0 and 1"]),
    ("build", "seed: '3'", "", ["build.yaml:4: seed is '3', expected int"]),
    ("build", "data_revision: 1.0", "", ["data_revision is 1.0, expected str or null; put it in quotes: '1.0'"]),
    ("eval", "limit: -5", "", ["limit must be at least 1, not -5"]),
    ("eval", "num_samples: 2", "--sampling.temperature 0", ["num_samples is 2", "sampling.temperature"]),
    ("eval", "sampling: {temperature: -1}", "", ["temperature is -1"]),
    ("eval", "sampling: {temperature: .nan}", "", ["temperature is nan"]),
    ("eval", "sampling: {top_p: 3}", "", ["top_p is 3"]),
    ("eval", "sampling: {max_tokens: 0}", "", ["max_tokens"]),
    ("eval", "sampling: {max_token: 5}", "", ["unknown key 'max_token'", "did you mean 'max_tokens'?"]),
    ("eval", "", "--tasks tlg tlg", ["tasks names one task twice"]),
    ("eval", "", "--tasks []", ["tasks is empty"]),
    ("eval", "", "--tasks 5", ["tasks: 5 is neither a name nor a map"]),
]  # fmt: skip

CHOICES = [
    ("sft", "packing: true\npacking_strategy: wrapped", "", ["lets them attend to each other: use bfd"]),
    ("sft", "packing: true", "--batching.name token_budget", ["packing is True", "{name: packed}"]),
    ("sft", "batching: {max_tokens: 100}", "", ["batching.max_tokens", "only token_budget has a budget"]),
    ("sft", "batching: {name: tokens}", "", ["batching.name", "token_budget"]),
    ("sft", "", "--lora.quantization 4bit --use_cpu", ["lora.quantization is 4bit, but there is no CUDA device"]),
    ("sft", "eval_packing: true", "", ["eval_packing is true, but packing is not"]),
    ("sft", "eval_strategy: steps", "", ["eval_strategy is set", "set eval_data"]),
    ("sft", "mixture_rows: 10", "", ["give each source a weight"]),
    ("sft", "fp16: true\nbf16: true", "", ["fp16 and bf16"]),
    ("sft", "load_best_model_at_end: true", "", ["load_best_model_at_end is set", "set eval_strategy too"]),
    ("sft", "ignore_data_skip: true", "", ["ignore_data_skip is set", "remove the key"]),
    ("sft", "max_steps: 0", "", ["max_steps is 0: it must be at least 1"]),
    ("sft", "", "--data nowhere.jsonl", ["no file or folder 'nowhere.jsonl'"]),
    ("sft", "", "--data rows.txt", ["no file or folder 'rows.txt'"]),
    ("sft", "", "--model nowhere", ["no folder 'nowhere'"]),
    ("sft", "", "--model .", ["has no config.json"]),
    ("sft", "", "--model embedded:gpt4", ["'embedded:gpt4' is not an embedded model"]),
    ("sft", "", "--chat_template_path no.jinja", ["no file 'no.jinja'"]),
    ("sft", "", "--accelerate_config fsdp3", ["--accelerate_config fsdp3", "did you mean 'fsdp2'?"]),
    ("sft", "", "--accelerate_config", ["--accelerate_config needs a value"]),
    ("build", "builder: {name: agent_wirte}", "", ["'agent_wirte'", "did you mean 'agent_write'?"]),
    ("build", "builder: agent_write", "", ["builder is 'agent_write', expected map; write builder: {name: "]),
    ("build", "builder: {}", "", ["builder is {}: it needs a name"]),
    ("build", "builder:\n  name: agent_write\n  min_wrods: 3", "", ["build.yaml:6: unknown key 'min_wrods'"]),
    ("build", "roles: {panner: {model: x}}", "", ["'panner' is no role of this builder", "planner"]),
    ("build", "roles: {planner: x}", "", ["roles.planner is 'x'", "model, adapter and engine"]),
    ("build", "", "--engine.name vlm", ["'vlm'", "did you mean 'vllm'?"]),
    ("build", "", "--engine.name 5", ["engine", "name"]),
    ("build", "", "--engine.nmae hf", ["unknown key 'nmae'", "'name'?"]),
    ("build", "", "--data nowhere.jsonl", ["no file or folder 'nowhere.jsonl'"]),
    ("build", "", "--prompt_column text", ["prompts.jsonl, line 1", "no column 'text'", "prompt_column"]),
    ("build", "", "--data broken.jsonl", ["broken.jsonl, line 2: not valid JSON"]),
    ("build", "", "--data empty.jsonl", ["empty.jsonl", "holds no rows"]),
    ("build", "", "--accelerate_config cpu", ["unknown key 'accelerate_config'"]),
    ("eval", "", "--tasks longbench_wirte", ["'longbench_wirte'", "did you mean 'longbench_write'?"]),
    ("eval", "", "--tasks no_such_task.py", ["no_such_task.py", "no such file"]),
    ("eval", "", "--engine {}", ["engine is {}: it needs a name"]),
    ("eval", "", "--engine {name:", ["--engine"]),
    ("eval", "", "--engine.name hf --engine.dtpe float32", ["unknown key 'dtpe'", "did you mean 'dtype'?"]),
    ("eval", "", "--engine.name hf --model nowhere", ["no folder 'nowhere'"]),
]  # fmt: skip

# content of the file given with --config; what stderr has to say
FILES = [
    ("", ["c.yaml: the file is empty"]),
    ("# nothing here\n", ["c.yaml: the file is empty"]),
    ("- name: x\n", ["c.yaml:1: the file must be a map"]),
    ("just words\n", ["c.yaml:1: the file must be a map"]),
    ("name: x\n\tseed: 1\n", ["c.yaml:2: not valid YAML", "indent with spaces, not with tabs"]),
    ("name: [x\n", ["c.yaml:2: not valid YAML"]),
    ("name: x\n---\nname: y\n", ["c.yaml:2: not valid YAML", "a config is one document"]),
    ("name: !!python/object:os.system x\n", ["c.yaml:1: not valid YAML"]),
    ("1: x\n", ["c.yaml:1: key 1 is not a word"]),
    ("name: &a [*a]\n", ["c.yaml:1: an alias contains itself"]),
    ("name: 5\n", ["c.yaml:1: name is 5, expected str; put it in quotes: '5'"]),
    ("name: x\nmodel:\ndata: rows.jsonl\n", ["c.yaml:2: model is None, expected str"]),
    ("name: x\n", ["c.yaml: missing: model", "data"]),
    (b"\xff\xfe\x00name", ["c.yaml: cannot be read as UTF-8 text"]),
    (b"\x7fELF\x02\x01\x01\x00\x00", ["c.yaml", "not valid YAML"]),
    ('{"name": "x", "nam": 1}', ["c.yaml:1: unknown key 'nam'", "did you mean 'name'?"]),
]

# other command lines
COMMANDS = [
    ("sft", ["usage: lengthwise sft --config FILE.yaml", "still needed: name"]),
    ("sft --config", ["--config takes one file"]),
    ("sft --config=", ["--config takes one file"]),
    ("sft --config nowhere.yaml", ["nowhere.yaml: there is no such file"]),
    ("sft --config .", ["--config .: it is a folder"]),
    ("sft --config a.yaml b.yaml", ["--config takes one file, not 2"]),
    ("sft --config sft.yaml --config=sft.yaml", ["--config is given twice"]),
    ("sft --help me", ["--help takes no value, not 'me'"]),
    ("sft --dry_run=false", ["--dry_run takes no value, not 'false'"]),
    ("build", ["model is not set, and builder agent_write asks one", "lengthwise build --config"]),
    ("eval --tasks tlg", ["model is missing: give one of model, models and rescore", "lengthwise eval --config"]),
    ("tarin", ["unknown verb 'tarin'", "there are build, sft, dpo, kto, orpo, grpo, eval"]),
    ("evla", ["unknown verb 'evla': did you mean 'eval'?"]),
    ("schema sfft", ["no job 'sfft'", "sft"]),
    ("report nowhere", ["nowhere"]),
    ("export nowhere --merge", ["RUN: there is no folder nowhere: give the run folder of a training"]),
    ("export . --merge", ["RUN: . holds neither an adapter (adapter_config.json) nor a model"]),
    ("score nowhere.jsonl --task tlg", ["nowhere.jsonl"]),
    ("score prompts.jsonl --task tgl", ["'tgl'", "did you mean 'tlg'?"]),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command line that must be refused."""

    name: str
    words: tuple[str, ...]
    says: tuple[str, ...]
    config: tuple[str, bytes] | None = None


def all_cases() -> list[Case]:
    """Return the tables as commands; what a case writes stands in a folder of its own."""
    cases = []
    for job, lines, flags, says in [*KEYS, *VALUES, *CHOICES]:
        text = BASE[job] + lines + "\n" * bool(lines)
        name = [] if "name:" in lines.split("\n")[0] and job == "sft" else ["--name=run"]
        words = (job, "--config", f"{job}.yaml", *name, *flags.split(" " if flags else None))
        shown = f"{job}: {' | '.join(filter(None, [lines, flags]))}".replace("\n", " | ")
        cases.append(Case(shown, words, tuple(says), (f"{job}.yaml", text.encode())))
    for content, says in FILES:
        data = content if isinstance(content, bytes) else content.encode()
        cases.append(
            Case(f"file: {data[:40]!r}", ("sft", "--config", "c.yaml"), tuple(says), ("c.yaml", data))
        )
    return cases + [Case(line, tuple(line.split()), tuple(says)) for line, says in COMMANDS]


def run(case: Case, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one case through the command line, in a folder with the files that the base configs name.

    A case that wrongly gets through would start a training: it is ended.
    """
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"prompt": "Hi", "completion": "Yo"}\n', encoding="utf-8")
    (folder / "prompts.jsonl").write_text('{"prompt": "Write."}\n', encoding="utf-8")
    (folder / "broken.jsonl").write_text('{"prompt": "Write."}\n{"prompt":\n', encoding="utf-8")
    (folder / "empty.jsonl").write_text("\n", encoding="utf-8")
    (folder / "sft.yaml").write_text(BASE["sft"], encoding="utf-8")
    if case.config is not None:
        (folder / case.config[0]).write_bytes(case.config[1])
    return subprocess.run(
        [sys.executable, "-m", "lengthwise.cli", *case.words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        timeout=60,
    )


CASES = all_cases()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases side by side: most of their time goes into starting Python."""
    folder = tmp_path_factory.mktemp("wrong")
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda item: run(item[1], folder / str(item[0])), enumerate(CASES))
        return dict(zip([case.name for case in CASES], done, strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_is_refused_with_a_message_that_helps(case, outcomes):
    done = outcomes[case.name]
    assert done.returncode == 2, done.stderr
    assert [part for part in case.says if part not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count(case.says[0]) == 1
