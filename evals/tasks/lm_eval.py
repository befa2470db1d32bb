"""Any task of lm-eval (EleutherAI's lm-evaluation-harness 0.4.13): what did training cost elsewhere?

An entry of `tasks` names it: `{name: lm_eval, task: arc_easy, num_fewshot: 0}`. Documents, few-shot examples,
filters and scores are lm-eval's own code; the model is asked by our engine, so that the run resumes and is reported
like any other. The model is asked in chat, as with lm-eval's `--apply_chat_template`: the engine renders the turns.

Taken are tasks that generate, and those that compare the likelihoods of given answers (these need an engine that
tells them: vllm, hf). Refused, each with its reason: groups (name the members), perplexity of whole documents,
repeats that a filter votes over, code that would be executed, pictures and sound. Of the metrics those are taken
that are a mean over documents; others are named in a warning, and their values stand in each row's notes.

Two differences from lm-eval: a prompt that does not fit the context fails and is counted, where lm-eval cuts it;
and of a choice's tokens those are scored that follow the rendered prompt, where lm-eval scores white space at the
prompt's end with them, which adds the same number to every choice of a document.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from evals.base import Metric, Score
from evals.lm_eval_loading import (
    load_task,
    metric_name,
    read_metrics,
    read_sampling,
    refuse_unfit,
    set_fewshot,
)
from evals.sources import Entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.records import Completion, Message, Prompt, Role, Sample, Usage
from lengthwise.row_sources import RowSource
from lengthwise.row_values import without_nan

METRICS: tuple[Metric, ...] = ()
"""None before the lm-eval task is known: see `configured`."""


@dataclass(kw_only=True)
class LmEvalTask:
    """An lm-eval task as one of ours."""

    harness_task: Any
    """lm-eval's object."""
    LABEL: str
    METRICS: tuple[Metric, ...]
    SAMPLING: Sampling
    NUM_FEWSHOT: int
    REQUIRES: frozenset[str] = frozenset()
    """Capabilities that an engine must have."""
    VERSION: int = 1
    TEMPERATURE: float = 0.0
    MAX_TOKENS: int | None = None
    _documents: dict[str, tuple[Any, list[Any]]] = field(default_factory=dict)
    """By sample id: lm-eval's document and its requests."""
    _scoring: threading.Lock = field(default_factory=threading.Lock)

    def source(self, data: str | None) -> RowSource:
        """Return where lm-eval has its documents from.

        Raises:
            ConfigError: if the config names other data.
        """
        if data is not None:
            raise ConfigError(
                f"tasks: {self.LABEL} is lm-eval's and names its data itself: leave data out, or change its YAML"
            )
        config = self.harness_task.config
        files = _local_files((config.dataset_kwargs or {}).get("data_files"))
        if files:
            return RowSource(name=f"lm-eval's {self.LABEL}", files=files)
        path = config.dataset_path or f"lm-eval's {self.LABEL}"
        return RowSource(name=path, subset=config.dataset_name, split=config.test_split)

    def load(self, source: str | None, *, draw_seed: int = 0) -> list[Entry]:
        """Return a sample for each document of the task's test split, with the turns that lm-eval would render.

        `draw_seed` is not used: few-shot examples are drawn with lm-eval's own seed.
        """
        samples: list[Entry] = []
        for number, requests in self._requests():
            sample = self._sample(number, requests)
            self._documents[sample.id] = (requests[0].doc, requests)
            samples.append(sample)
        return samples

    def _requests(self) -> Iterator[tuple[int, list[Any]]]:
        grouped: dict[int, list[Any]] = {}
        for instance in self.harness_task.instances:
            grouped.setdefault(instance.doc_id, []).append(instance)
        yield from grouped.items()

    def _sample(self, number: int, requests: Sequence[Any]) -> Sample:
        doc = requests[0].doc
        given: dict[str, Any] = {"lm_eval_doc": _json_ready(doc)}
        if self.harness_task.OUTPUT_TYPE != "generate_until":
            given["choices"] = [request.args[1] for request in requests]
        contexts = [_turns(request) for request in requests]
        if len(set(contexts)) > 1:  # the choice stands in the question
            given["questions"] = [context[-1].content for context in contexts]
        return Sample(
            id=str(number),
            messages=contexts[0],
            target=_target(self.harness_task, doc),
            metadata=given,
        )

    def prompt(self, sample: Sample) -> Prompt:
        """Return the turns, few-shot examples included."""
        return sample.messages

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return what lm-eval's filters and `process_results` make of a reply."""
        return self._score(sample, [text])

    def _score(self, sample: Sample, replies: Sequence[Any]) -> Score:
        """Score a document by the replies to its requests, in their order, once for each of the task's filters."""
        from lm_eval.api.instance import Instance

        doc, requests = self._documents[sample.id]
        task = self.harness_task
        instances = []
        for request, reply in zip(requests, replies, strict=True):
            instance = Instance(request.request_type, doc, request.arguments, request.idx)
            instance.resps = [reply]
            instances.append(instance)
        found: dict[str, Any] = {}
        with self._scoring:  # lm-eval scores one document after another, and its metrics may rely on it
            for ensemble in task._filters:
                ensemble.apply(instances)
                filtered = [instance.filtered_resps[ensemble.name] for instance in instances]
                for name, value in task.process_results(doc, filtered).items():
                    found[metric_name(task, name, ensemble.name)] = value
        first = instances[0].filtered_resps[task._filters[0].name]
        return _as_score(found, [m.name for m in self.METRICS], first if isinstance(first, str) else None)

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return none: lm-eval's documents have no groups in common."""
        return {}


@dataclass(kw_only=True)
class LikelihoodTask(LmEvalTask):
    """An lm-eval task whose answers are given: the model says how likely it holds each.

    Such a document's reply is a JSON list with [log-probability, greedy decoding would write it] for each choice,
    lm-eval's own raw response.
    """

    REQUIRES: frozenset[str] = frozenset({"prompt_logprobs"})

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Ask for the likelihood of each choice; return them as one reply. `sampling` has no say in it.

        Raises:
            EngineError: if the engine has no answer to one of them.
        """
        likelihoods = [
            await caller.loglikelihood(_turns(request), request.args[1], step=f"choice {index}")
            for index, request in enumerate(self._documents[sample.id][1])
        ]
        usage = Usage(prompt_tokens=sum(found.num_prompt_tokens for found in likelihoods))
        text = json.dumps([[found.logprob, found.is_greedy] for found in likelihoods])
        return [Completion(text=text, finish_reason="stop", num_tokens=0, model=caller.model, usage=usage)]

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return lm-eval's metrics of one document; the answer is the likeliest choice."""
        replies = [(float(logprob), bool(is_greedy)) for logprob, is_greedy in json.loads(text)]
        found = self._score(sample, replies)
        best = max(range(len(replies)), key=lambda index: replies[index][0])
        choice = sample.metadata["choices"][best].strip()
        answer = sample.metadata["questions"][best] if "questions" in sample.metadata else choice
        return Score(metrics=found.metrics, answer=answer, unscored=found.unscored, notes=found.notes)


def configured(
    *,
    task: str,
    num_fewshot: int | None = None,
    include_path: str | None = None,
    system_instruction: str | None = None,
    fewshot_as_multiturn: bool = True,
) -> LmEvalTask:
    """Return the task of an entry of `tasks`, its documents loaded and its prompts built.

    Args:
        task: lm-eval's name of it.
        num_fewshot: solved examples before each question; None takes the task's own number.
        include_path: folder with task YAMLs of your own, as lm-eval's `--include_path`.
        system_instruction: text of a system turn.
        fewshot_as_multiturn: examples as turns of their own, lm-eval's default in chat; else all in one user turn.

    Raises:
        ConfigError: lm-eval is not installed, has no such task, cannot reach its data, or it is none for us.
    """
    found = load_task(task, include_path)
    refuse_unfit(found, task)
    num_shots = set_fewshot(found, task, num_fewshot)
    found.build_all_requests(
        system_instruction=system_instruction,
        apply_chat_template=True,
        fewshot_as_multiturn=fewshot_as_multiturn,
        # In place of a text, the turns it would be made of: our engine renders them.
        chat_template=lambda turns, add_generation_prompt: json.dumps(turns),
    )
    generates = found.OUTPUT_TYPE == "generate_until"
    made = LmEvalTask if generates else LikelihoodTask
    return made(
        harness_task=found,
        LABEL=task,
        METRICS=read_metrics(found, task),
        SAMPLING=read_sampling(found.config.generation_kwargs, task)
        if generates
        else Sampling(temperature=0.0),
        NUM_FEWSHOT=num_shots,
    )


def _turns(request: Any) -> Prompt:
    """Return a request's turns, as `configured` had them written."""
    turns = json.loads(request.args[0])
    return tuple(Message(role=cast(Role, turn["role"]), content=turn["content"]) for turn in turns)


def _as_score(found: Mapping[str, Any], wanted: Sequence[str], answer: str | None) -> Score:
    """Sort lm-eval's values of one document into metrics, failures and what is for the reader only."""
    metrics: dict[str, float] = {}
    unscored: dict[str, str] = {}
    for name in wanted:
        if name not in found:
            continue  # lm-eval leaves the document out of this metric
        value = float(found[name])
        if math.isfinite(value):
            metrics[name] = value
        else:
            unscored[name] = f"lm-eval's score is {value}"
    others = {name: _json_ready(value) for name, value in found.items() if name not in wanted}
    return Score(
        metrics=metrics, answer=answer, unscored=unscored, notes={"lm_eval": others} if others else {}
    )


def _target(task: Any, doc: Any) -> str:
    """Return the right answer as text; lm-eval knows it by its number where the choices are given."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(doc)
        return str(choices[target]) if target < len(choices) else str(target)
    return str(target)


def _json_ready(value: Any) -> Any:
    """Return a value of a data set or a metric as JSON has it; what JSON has no word for, as text."""
    return without_nan(json.loads(json.dumps(value, default=_plain)))


def _plain(value: Any) -> Any:
    """Return an array of numpy as a list, anything else that JSON does not know as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _local_files(data_files: Any) -> tuple[Path, ...]:
    """Return the files of a `data_files` map, list or name that are on this machine."""
    if isinstance(data_files, Mapping):
        return tuple(file for value in data_files.values() for file in _local_files(value))
    if isinstance(data_files, list | tuple):
        return tuple(file for value in data_files for file in _local_files(value))
    return (Path(data_files),) if isinstance(data_files, str) and Path(data_files).is_file() else ()
