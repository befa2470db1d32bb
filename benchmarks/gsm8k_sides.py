"""The two sides of `gsm8k_vs_lm_eval.py`: each a process that answers all items whenever it is told to."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return vLLM's arguments that both sides set."""
    return {
        "dtype": args.dtype,
        "max_model_len": args.max_model_len,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 1 << 30,
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": 4096,
    }


def planned_task(args: argparse.Namespace) -> Any:
    """Return our task with its items drawn."""
    from evals.config import EvalConfig
    from evals.plan import plan_task
    from lengthwise.config import parse_config

    config = parse_config(EvalConfig, ["--model", args.model, "--tasks", "gsm8k"], prog="benchmark")
    sampling = {"temperature": 0.0, "max_tokens": args.max_tokens, "stop": args.stop}
    entry = {"name": "gsm8k", "data": args.data, "limit": args.num_items, "last_number": True}
    return plan_task({**entry, "sampling": sampling}, config)


def serve(folder: Path, side: str, answer: Callable[[int], dict[str, Any]]) -> None:
    """For each "round number_of_items" on stdin answer so many items; the result goes to a file of the round."""
    print("ready", file=sys.stderr, flush=True)
    (folder / f"{side}_ready").touch()
    for line in sys.stdin:
        number, num_items = line.split()
        found = json.dumps(answer(int(num_items)))
        part = folder / f"{side}_{number}.part"
        part.write_text(found, encoding="utf-8")
        part.rename(part.with_suffix(".json"))


def run_ours(args: argparse.Namespace) -> None:
    """Be the process of our side."""
    import asyncio

    from evals.base import score_completion
    from lengthwise.budget import Meter
    from lengthwise.caller import Caller
    from lengthwise.engines import build_engine
    from lengthwise.journal import Journal
    from lengthwise.outcomes import Kept, Outcome
    from lengthwise.records import Completion, Sample
    from lengthwise.workflow import run_samples

    options = engine_options(args)
    own = {key: options.pop(key) for key in ("dtype", "max_model_len", "enforce_eager")}
    engine: Any = build_engine({"name": "vllm", **own, "options": options}, args.model)
    planned = planned_task(args)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.start())

    async def generate(samples: list[Sample]) -> tuple[float, dict[str, Completion]]:
        meter, replies = Meter(), {}
        with tempfile.TemporaryDirectory() as scratch:
            journal = Journal(Path(scratch) / "journal.jsonl")

            async def worker(sample: Sample) -> Outcome:
                caller = Caller(engine=engine, journal=journal, sample_id=sample.id, meter=meter)
                prompt = planned.task.prompt(sample)
                (replies[sample.id],) = await caller(prompt, planned.sampling, step="generate")
                return Kept({})

            started = time.perf_counter()
            await run_samples(
                samples,
                worker,
                max_concurrent_samples=256,
                label="ours",
                on_outcome=lambda *_: None,
                meter=meter,
            )
            seconds = time.perf_counter() - started
            journal.close()
        return seconds, replies

    def answer(num_items: int) -> dict[str, Any]:
        samples = planned.samples[:num_items]
        seconds, replies = loop.run_until_complete(generate(samples))
        items = []
        for sample in samples:
            reply = replies[sample.id]
            scored = score_completion(planned.task, sample, reply.text, reply.finish_reason, reply.num_tokens)
            ids = engine._tokenizer.encode(planned.task.prompt(sample))
            items.append(
                {
                    "id": sample.id,
                    "prompt_ids": ids,
                    "text": reply.text,
                    "num_tokens": reply.num_tokens,
                    "answer": scored["filtered_resps"][0],
                    "right": scored["metrics"]["accuracy"],
                }
            )
        return {"seconds": seconds, "items": items}

    try:
        serve(Path(args.folder), "ours", answer)
    finally:
        loop.run_until_complete(engine.stop())


def run_lm_eval(args: argparse.Namespace) -> None:
    """Be the process of lm-eval's side."""
    import lm_eval
    from lm_eval.models.vllm_causallms import VLLM
    from lm_eval.tasks import TaskManager

    from lengthwise.models import resolve_model

    class TimedVLLM(VLLM):
        """lm-eval's model with a clock."""

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            started = time.perf_counter()
            texts = super().generate_until(requests, disable_tqdm=disable_tqdm)
            self.seconds = time.perf_counter() - started
            return texts

        def _model_generate(self, *given: Any, **named: Any) -> Any:
            outputs = super()._model_generate(*given, **named)
            self.outputs = {
                tuple(output.prompt_token_ids): len(output.outputs[0].token_ids) for output in outputs
            }
            return outputs

    folder = Path(args.folder)
    model = TimedVLLM(
        pretrained=str(resolve_model(args.model).path), batch_size="auto", **engine_options(args)
    )
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)

    def answer(num_items: int) -> dict[str, Any]:
        found: Any = lm_eval.evaluate(
            model,
            task_dict=manager.load(["gsm8k_side_by_side"]),
            limit=num_items,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=0,
        )
        items = []
        for row in sorted(found["samples"]["gsm8k_side_by_side"], key=lambda row: row["doc_id"]):
            ids = model.tok_encode(row["arguments"][0][0])
            items.append(
                {
                    "id": row["doc"]["id"],
                    "prompt_ids": ids,
                    "text": row["resps"][0][0],
                    "num_tokens": model.outputs[tuple(ids)],
                    "answer": row["filtered_resps"][0],
                    "right": row["exact_match"],
                }
            )
        return {"seconds": model.seconds, "items": items}

    try:
        serve(folder, "lm_eval", answer)
    finally:
        model.model.llm_engine.engine_core.shutdown()
