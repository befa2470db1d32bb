"""Tasks of lm-eval run by our harness, against lm-eval's own run on the same replies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engines_that_count import Counting

from evals.base import score_completion
from evals.config import EvalConfig
from evals.plan import PlannedTask, plan_task
from evals.replies import ask
from evals.results import Tally, summarise
from evals.task_rows import answer
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, parse_config
from lengthwise.journal import Journal
from lengthwise.records import digest

pytest.importorskip("lm_eval")

DOCS = [
    {"question": f"What is {i}+{i}?", "options": [str(2 * i), str(2 * i + 1), "seven"], "gold": i % 2}
    for i in range(12)
]
BASE = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
"""
CHOICE = BASE + "output_type: multiple_choice\ndoc_to_choice: options\ndoc_to_target: gold\nnum_fewshot: 0\n"
GENERATE = (
    BASE
    + """
output_type: generate_until
doc_to_target: "{{{{options[gold]}}}}"
generation_kwargs: {{until: ["Question:"], do_sample: false, max_gen_toks: 20, min_p: 0.1}}
"""
)
FILTERS = """
filter_list:
  - {{name: last-number, filter: [{{function: regex, group_select: -1, regex_pattern: "([0-9]+)"}},
     {{function: take_first}}]}}
  - {{name: whole, filter: [{{function: take_first}}]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
PARTS = GENERATE + "process_results: !function parts.process_results\nmetric_list:\n"
FILES = {
    "choice": "task: lw_choice\n" + CHOICE,
    "inputs": "task: lw_inputs\n"
    + CHOICE.replace("doc_to_target: gold", 'doc_to_target: "right"').replace(
        'doc_to_text: "Question: {{{{question}}}}\\nAnswer:"', "doc_to_text: gold"
    ),
    "filters": "task: lw_filters\nfewshot_split: test\nnum_fewshot: 2\n" + GENERATE + FILTERS,
    "partly": "task: lw_partly\n"
    + PARTS
    + "  - {{metric: share, aggregation: mean, higher_is_better: false}}\n"
    + "  - {{metric: corpus, aggregation: f1, higher_is_better: true}}\n",
    "corpus": "task: lw_corpus\n"
    + PARTS
    + "  - {{metric: corpus, aggregation: f1, higher_is_better: true}}\n",
    "votes": "task: lw_votes\nrepeats: 8\n" + GENERATE,
    "unsafe": "task: lw_unsafe\nunsafe_code: true\n" + GENERATE,
    "documents": "task: lw_documents\noutput_type: loglikelihood_rolling\ndoc_to_target: question\n"
    + BASE.replace('doc_to_text: "Question: {{{{question}}}}\\nAnswer:"', 'doc_to_text: ""'),
    "lost": "task: lw_lost\n" + GENERATE.replace("{data}", "{data}.lost"),
    "members": "group: lw_group\ntask: [lw_choice, lw_filters]\n",
}
PARTS_PY = """
def process_results(doc, results):
    share = float("nan") if "4" in results[0] else len(results[0]) / 10
    return {"share": share, "corpus": (1, 0), "other": [1, 2]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A folder of task YAMLs: one for all tests, since lm-eval reads its 14,000 with each."""
    made = tmp_path_factory.mktemp("tasks")
    data = made / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, text in FILES.items():
        (made / f"{name}.yaml").write_text(text.format(data=data))
    (made / "parts.py").write_text(PARTS_PY)
    return str(made)


def plan(folder: str, task: str | None, **entry: Any) -> PlannedTask:
    given = {"name": "lm_eval", "include_path": folder, **entry}
    if task is not None:
        given["task"] = task
    words = ["--model", "m", "--engine.name", entry.pop("engine", "scripted"), "--tasks", "x"]
    given.pop("engine", None)
    return plan_task(given, parse_config(EvalConfig, words, prog="test"))


def run(planned: PlannedTask, tmp_path: Path, engine: Counting | None = None) -> tuple[list[dict], Counting]:
    """Answer each sample as the evaluation does; return the rows."""
    engine = engine or Counting()
    journal = Journal(tmp_path / "journal.jsonl")

    async def all_answers() -> list[dict]:
        rows = []
        for number, sample in enumerate(planned.samples):
            caller = Caller(engine=engine, journal=journal, sample_id=sample.id)

            async def replies(sample, planned, prompt, caller=caller):
                return await ask(sample, planned, prompt, caller)

            outcome: Any = await answer(sample, planned, replies, number)
            rows += outcome.record["rows"]
        return rows

    rows = asyncio.run(all_answers())
    journal.close()
    return rows, engine


def reply(turns: list[dict[str, str]]) -> str:
    """What the stand-ins say: sometimes right, sometimes not."""
    draw = int(digest(turns)[:8], 16)
    number = sum(map(int, turns[-1]["content"].split()[3].rstrip("?").split("+")))
    return [f"{number}", f"It is {number}", "seven", f"{number + 1}"][draw % 4]


def lm_evals_own(folder: str, task: str) -> dict[str, float]:
    """Return lm-eval's results of its own run in chat, by a stand-in that answers as ours does."""
    import lm_eval
    from lm_eval.api.model import LM

    from lengthwise.engines.scripted import Engine
    from lengthwise.records import Message

    class StandIn(LM):
        tokenizer_name = "none"

        def chat_template(self, chat_template=False):
            return ""

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return json.dumps(chat_history)

        def generate_until(self, requests, disable_tqdm=False):
            return [reply(json.loads(request.args[0])) for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            engine, found = Engine("m"), []
            for request in requests:
                prompt = tuple(Message(**turn) for turn in json.loads(request.args[0]))
                likelihood = asyncio.run(engine.loglikelihood(prompt, request.args[1]))
                found.append((likelihood.logprob, likelihood.is_greedy))
            return found

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

    from evals.lm_eval_loading import _manager

    found: Any = lm_eval.simple_evaluate(
        StandIn(),
        tasks=[task],
        task_manager=_manager(folder, False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return found["results"][task]


class TestGeneration:
    def test_prompts_sampling_and_scores_are_lm_evals_own(self, folder):
        planned = plan(folder, "lw_filters")
        assert planned.name == "lw_filters"
        assert (planned.sampling.stop, planned.sampling.max_tokens) == (("Question:",), 20)
        assert planned.sampling.temperature == 0.0
        first = planned.samples[0]
        assert [turn.role for turn in first.messages] == ["user", "assistant", "user", "assistant", "user"]
        assert first.instruction == "Question: What is 0+0?\nAnswer:"
        assert first.target == "0"
        tally = Tally()
        for sample in planned.samples:
            text = reply([turn.to_dict() for turn in sample.messages])
            scored = score_completion(planned.task, sample, text, "stop", 3)
            tally.add({"id": sample.id, "prompt_hash": sample.id, **scored})
        ours = summarise(planned.task, tally)["overall"]
        theirs = lm_evals_own(folder, "lw_filters")
        assert ours["exact_match_last-number"]["value"] == theirs["exact_match,last-number"]
        assert ours["exact_match_whole"]["value"] == theirs["exact_match,whole"]
        assert 0 < theirs["exact_match,whole"] < theirs["exact_match,last-number"] < 1

    def test_a_configs_own_sampling_wins_over_the_tasks(self, folder):
        planned = plan(folder, "lw_filters", sampling={"max_tokens": 7, "stop": ["."]}, num_fewshot=0)
        assert (planned.sampling.max_tokens, planned.sampling.stop) == (7, (".",))
        assert len(planned.samples[0].messages) == 1

    def test_examples_in_one_user_turn_under_a_system_turn(self, folder):
        planned = plan(folder, "lw_filters", fewshot_as_multiturn=False, system_instruction="Be brief.")
        system, user = planned.samples[3].messages
        assert (system.role, system.content, user.role) == ("system", "Be brief.", "user")
        assert user.content.count("Question:") == 3

    def test_the_answer_compared_is_kept(self, folder):
        planned = plan(folder, "lw_filters")
        found = score_completion(planned.task, planned.samples[1], "First 1, then 22.", "stop", 3)
        assert found["filtered_resps"] == ["22"]

    def test_what_is_no_mean_is_named_and_kept_in_the_notes(self, folder, caplog):
        planned = plan(folder, "lw_partly")
        assert [(m.name, m.higher_is_better, m.summary) for m in planned.task.METRICS] == [
            ("share", False, "mean")
        ]
        assert "corpus of lm-eval are no means" in caplog.text
        assert "min_p of lm-eval's task have no effect" in caplog.text
        found = score_completion(planned.task, planned.samples[0], "abc", "stop", 3)
        assert found["metrics"] == {"share": 0.3, "num_tokens": 3}
        assert found["notes"] == {"lm_eval": {"corpus": [1, 0], "other": [1, 2]}}

    def test_nan_is_unscored_and_never_a_number(self, folder):
        planned = plan(folder, "lw_partly")
        found = score_completion(planned.task, planned.samples[0], "4", "stop", 3)
        assert (found["metrics"], found["unscored"]) == (
            {"num_tokens": 3},
            {"share": "lm-eval's score is nan"},
        )

    def test_the_manifest_names_the_local_data(self, folder):
        (file,) = plan(folder, "lw_filters").inputs
        assert (file.path, file.num_rows) == (str(Path(folder) / "docs.jsonl"), 12)


class TestChoices:
    @pytest.mark.parametrize("task", ["lw_choice", "lw_inputs"])
    def test_scores_are_lm_evals_own(self, folder, tmp_path, task):
        planned = plan(folder, task)
        rows, engine = run(planned, tmp_path)
        tally = Tally()
        for row in rows:
            tally.add(row)
        ours = summarise(planned.task, tally)["overall"]
        theirs = lm_evals_own(folder, task)
        assert {name: found["value"] for name, found in ours.items()} == {
            "acc": theirs["acc,none"],
            "acc_norm": theirs["acc_norm,none"],
        }
        assert 0 < theirs["acc,none"] < 1
        assert len(engine.continuations) == 36 and engine.asked == []

    def test_a_row_holds_the_raw_response_and_the_choice(self, folder, tmp_path):
        rows, _ = run(plan(folder, "lw_choice"), tmp_path)
        replies = json.loads(rows[1]["resps"][0])
        assert [len(pair) for pair in replies] == [2, 2, 2]
        best = max(range(3), key=lambda index: replies[index][0])
        assert rows[1]["filtered_resps"] == [DOCS[1]["options"][best]]
        assert rows[1]["target"] == "3"
        assert rows[1]["doc"]["choices"] == ["2", "3", "seven"]

    def test_a_choice_within_the_question_is_asked_for_in_each(self, folder):
        first = plan(folder, "lw_inputs").samples[0]
        assert first.metadata["questions"] == ["0", "1", "seven"]
        assert first.metadata["choices"] == ["right"] * 3

    def test_a_second_start_asks_nothing_again(self, folder, tmp_path):
        planned = plan(folder, "lw_choice")
        before, _ = run(planned, tmp_path)
        after, engine = run(planned, tmp_path)
        assert (after, engine.continuations) == (before, [])

    def test_an_engine_that_tells_no_likelihoods_is_refused_before_it_starts(self, folder):
        with pytest.raises(ConfigError, match="needs an engine with prompt_logprobs, which openai_http"):
            plan(folder, "lw_choice", engine="openai_http")


REFUSED = [
    ("lw_chioce", {}, "no task 'lw_chioce'; did you mean 'lw_choice'"),
    ("lw_group", {}, "a group: give each member an entry of its own. They are lw_choice, lw_filters"),
    ("lw_votes", {}, "asks each question 8 times and votes"),
    ("lw_unsafe", {}, "executes what the model writes"),
    ("lw_documents", {}, "perplexity of whole documents"),
    ("lw_corpus", {}, "no metric of lm-eval's 'lw_corpus' is a mean over documents: it has corpus"),
    ("lw_lost", {}, "the data of lm-eval's 'lw_lost' are not to be had"),
    ("lw_choice", {"num_fewshot": 2}, "made for num_fewshot 0"),
    ("lw_choice", {"num_fewshot": -1}, "must be at least 0"),
    ("lw_choice", {"data": "docs.jsonl"}, "names its data itself"),
    ("lw_choice", {"num_fewshots": 1}, "no option 'num_fewshots'; did you mean 'num_fewshot'"),
    ("lw_choice", {"include_path": "/nowhere"}, "there is no folder '/nowhere'"),
    (None, {}, "lm_eval needs task: write {name: lm_eval, task: ...}"),
]


@pytest.mark.parametrize(("task", "entry", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_measured_is_refused_with_its_reason(folder, task, entry, message):
    with pytest.raises(ConfigError) as error:
        plan(folder, task, **entry)
    assert message in str(error.value)


def test_without_lm_eval_the_remedy_is_named(monkeypatch):
    from evals import lm_eval_loading

    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ConfigError, match=r"pip install -e .\[lm-eval\]"):
        lm_eval_loading._manager("another folder", True)


def test_a_hub_task_is_recorded_by_its_hub_id():
    from evals.lm_eval_loading import read_sampling
    from evals.tasks.lm_eval import LmEvalTask

    config = SimpleNamespace(
        dataset_path="allenai/ai2_arc", dataset_name="ARC-Easy", dataset_kwargs=None, test_split="test"
    )
    task = LmEvalTask(
        harness_task=SimpleNamespace(config=config),
        LABEL="arc_easy",
        METRICS=(),
        SAMPLING=read_sampling({"until": "\n", "max_new_tokens": 5}, "arc_easy"),
        NUM_FEWSHOT=0,
    )
    assert task.source(None).inputs(7)[0].path == "hub:allenai/ai2_arc/ARC-Easy@main#test"
    assert (task.SAMPLING.stop, task.SAMPLING.max_tokens) == (("\n",), 5)


@pytest.mark.slow
def test_by_the_evaluations_command_line(folder, tmp_path):
    entry = {"name": "lm_eval", "include_path": folder}
    config = {
        "model": "scripted",
        "engine": {"name": "scripted"},
        "output_dir": str(tmp_path / "run"),
        "limit": 5,
        "tasks": [{**entry, "task": "lw_choice"}, {**entry, "task": "lw_filters", "label": "few"}, "longen"],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    script = Path(__file__).parents[2] / "evals" / "run.py"
    command = [sys.executable, str(script), "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run").glob("results_*.json")
    results = json.loads(file.read_text())
    assert {name: row["scored"] for name, row in results["counts"].items()} == {
        "lw_choice": 5,
        "few": 5,
        "longen": 5,
    }
    assert set(results["results"]["lw_choice"]) >= {"acc,none", "acc_norm,none"}
    assert results["configs"]["few"]["generation_kwargs"]["stop"] == ["Question:"]
    assert results["configs"]["few"]["options"]["task"] == "lw_filters"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    paths = [item["path"] for item in manifest["inputs"]]
    assert str(Path(folder) / "docs.jsonl") in paths
    calls = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert len(calls) == 5 * 3 + 5 + 5  # three choices each
