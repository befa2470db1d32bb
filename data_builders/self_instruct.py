"""New writing instructions from a few examples: the first step of Self-Lengthen (arXiv 2410.23933).

Each row of the data is a slot, which one instruction may fill; its text is not read. The model sees two examples as if
it had written them, and writes the third. An instruction stays if it has 4 to 499 words, and the same model says that
it calls for a long text. Near duplicates are the recipe's business, which sees all slots.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_builders.rows import length_entry
from data_builders.self_lengthen_sampling import SamplingOptions
from data_builders.sources import Columns, Refusal, read_source
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.lengths import count_cjk_ws
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Message, Prompt, Sample, digest, user
from lengthwise.row_sources import find_rows
from lengthwise.run_dir import InputFile
from lengthwise.templates import load_prompt

ROLES = ("model",)
SEEDS = Path(__file__).parent / "prompts" / "self_instruct_seeds.jsonl"
NUM_EXAMPLES = 2
MIN_WORDS, MAX_WORDS = 4, 499

_LABEL = {"en": "Task", "zh": "任务"}
_YES = {"en": "yes", "zh": "是"}


@dataclass(kw_only=True)
class Config(SamplingOptions):
    """Options of new instructions."""

    language: Literal["en", "zh"] = option("en", help="of the instructions")
    seeds: str = option(
        str(SEEDS), help="file with the examples: rows with prompt, and language where it has several"
    )
    pool: list[str] = option(
        default_factory=list,
        help="builds whose instructions are examples too, such as those of earlier rounds",
    )
    tries: int = option(10, help="how often a slot is tried")


@dataclass(frozen=True)
class WithExamples:
    """The options, and the examples that they name."""

    config: Config
    examples: tuple[str, ...]


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return nothing: slots may be equal."""
    return {}


def inputs(config: Config) -> list[InputFile]:
    """Return the files that hold the examples."""
    return [file for source in (config.seeds, *config.pool) for file in find_rows(source).inputs()]


def settled(samples: Sequence[Sample], config: Config) -> WithExamples:
    """Return the options with the examples.

    Raises:
        ConfigError: a file that cannot be read.
    """
    found = []
    for source in (config.seeds, *config.pool):
        for sample in read_source(source, Columns(length=None)).samples:
            if sample.metadata.get("language", config.language) == config.language:
                found.append(sample.instruction)
    examples = tuple(dict.fromkeys(found))
    if len(examples) < NUM_EXAMPLES:
        raise ConfigError(
            f"builder.seeds: {config.seeds} has {len(examples)} instructions in {config.language}, and a slot is shown "
            f"{NUM_EXAMPLES}: add some, or set builder.language"
        )
    return WithExamples(config, examples)


async def build(sample: Sample, callers: Mapping[str, Caller], given: WithExamples) -> Outcome:
    """Fill one slot."""
    model, config = callers["model"], given.config
    fault = ""
    try:
        for attempt in range(config.tries):
            stream = random.Random(digest([sample.id, attempt]))
            examples = stream.sample(given.examples, NUM_EXAMPLES)
            prompt, stop = asked(examples, config.language, prefilled=model.capabilities.prefill)
            sampling = config.sampling(stop=stop, max_tokens=1024)
            (reply,) = await model(prompt, sampling, step="instruction", attempt=attempt)
            instruction = cleaned(reply.text, config.language)
            fault = "cut" if reply.finish_reason != "stop" else instruction_fault(instruction, given.examples)
            if not fault and not await calls_for_length(instruction, model, config, attempt):
                fault = "not for a long text"
            if not fault:
                return Kept(_record(sample, model, config, instruction, examples))
    except EngineError as error:
        return of_engine_error(error, {"calls": model.calls})
    return Rejected(f"instruction: {fault}", {"calls": model.calls})


def asked(examples: Sequence[str], language: str, *, prefilled: bool) -> tuple[Prompt, tuple[str, ...]]:
    """Return the request with the examples as the model's own beginning, and what ends its reply.

    Where an engine cannot go on with a beginning, the examples stand in the request.
    """
    label = _LABEL[language]
    request = load_prompt("data_builders", f"self_instruct.{language}").render().strip()
    listed = "".join(f"{label} {number}: {text}\n" for number, text in enumerate(examples, 1))
    begun = f"{listed}{label} {len(examples) + 1}:"
    stop = (f"{label} {len(examples) + 2}", "\n\n")
    if prefilled:
        return (*user(request), Message(role="assistant", content=begun)), stop
    return user(f"{request}\n\n{begun}"), stop


def cleaned(text: str, language: str) -> str:
    """Return an instruction without the label that a model may have repeated.

    Example:
        >>> cleaned(" Task 3: Write a poem. ", "en")
        'Write a poem.'
    """
    return re.sub(rf"^\s*{_LABEL[language]}\s*\d+\s*[:：]\s*", "", text).strip()


def instruction_fault(text: str, examples: Sequence[str]) -> str:
    """Return why a text is no new instruction; empty where it is one."""
    if not MIN_WORDS <= count_cjk_ws(text) <= MAX_WORDS:
        return "too short or too long"
    return "an example again" if text in examples else ""


async def calls_for_length(instruction: str, model: Caller, config: Config, attempt: int) -> bool:
    """Ask the model whether an instruction calls for a long text; anything but a plain yes is a no."""
    prompt = load_prompt("data_builders", f"self_instruct_judge.{config.language}").render(
        instruction=instruction
    )
    (reply,) = await model(
        user(prompt), Sampling(temperature=0.0, max_tokens=8), step="judge", attempt=attempt
    )
    return reply.text.strip().strip(".。!！").lower() == _YES[config.language]


def _record(
    sample: Sample, model: Caller, config: Config, instruction: str, examples: Sequence[str]
) -> dict[str, Any]:
    return {
        "id": sample.id,
        "builder": "self_instruct",
        "messages": [{"role": "user", "content": instruction}],
        "language": config.language,
        "length": length_entry(instruction, requested=None, tokens=None),
        "scores": {},
        "examples": list(examples),
        "prefilled": model.capabilities.prefill,
        "calls": model.calls,
        "lineage": [*sample.lineage, "self_instruct"],
    }
