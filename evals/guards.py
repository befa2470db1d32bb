"""What spoils a score without an error: looked for before the first reply, and said beside the numbers.

Nothing here changes a score or stops a run. What could not be checked is said as well, since silence would
read as "checked and fine".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.engines.base import Engine, ShowsModel
from lengthwise.engines.chat_tokenizer import ChatTokenizer, template_digest
from lengthwise.models import ModelRef
from lengthwise.records import Prompt
from lengthwise.training_data import TrainingRun, trained_template, training_runs
from lengthwise.untrained_tokens import untrained_sign

_MAX_RESERVED = 512
"""Tokens whose rows are held against that of the end of a turn; some vocabularies reserve thousands."""


@dataclass(kw_only=True)
class ModelCheck:
    """What a look at the model's tokenizer, template and weights gave."""

    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""
    first_prompt: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each task's first prompt as the model reads it: text and token_ids."""
    chat_template: str | None = None
    """sha256 of the template that renders the prompts."""
    end_token_ids: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map for the results file."""
        return dict(vars(self))


def check_model(engine: Engine, first_prompts: Mapping[str, Prompt]) -> ModelCheck:
    """Look at how a started engine renders prompts and ends replies.

    Args:
        engine: started.
        first_prompts: the first prompt of each task, by the task's name.
    """
    found = ModelCheck()
    if not isinstance(engine, ShowsModel):
        found.unchecked.append(
            f"{engine.model}: its engine shows neither tokenizer nor weights, so chat template, BOS and end of turn "
            "were not checked; the first prompt is not shown as the model reads it"
        )
        return found
    chat, ref = engine.chat_tokenizer, engine.model_ref
    found.chat_template = template_digest(chat.tokenizer)
    found.end_token_ids = sorted(engine.end_token_ids)
    found.first_prompt = {task: chat.rendered(prompt).to_dict() for task, prompt in first_prompts.items()}
    found.warnings += _double_bos(chat, found.first_prompt)
    runs, notes = training_runs(ref)
    found.unchecked += notes
    _compare_template(found, runs)
    _check_turn_end(found, chat, ref, engine.end_token_ids)
    return found


def _double_bos(chat: ChatTokenizer, rendered: Mapping[str, Mapping[str, Any]]) -> list[str]:
    bos = chat.tokenizer.bos_token_id
    doubled = [
        task for task, prompt in rendered.items() if bos is not None and prompt["token_ids"][:2] == [bos, bos]
    ]
    if not doubled:
        return []
    return [
        f"the prompts of {', '.join(doubled)} begin with two {chat.tokenizer.bos_token!r}: the chat template writes "
        "one and so does the prompt itself or the template again; take it out of one of them"
    ]


def _compare_template(found: ModelCheck, runs: Sequence[TrainingRun]) -> None:
    """Hold the template against that of the last training run; those before it may have had others."""
    if not runs:
        return  # not one of ours: nothing to hold it against
    trained = trained_template(runs[0])
    if trained is None:
        found.unchecked.append(f"{runs[0].folder} does not say with which chat template it was trained")
    elif trained != found.chat_template:
        found.warnings.append(
            f"the chat template that renders the prompts is not the one {runs[0].folder} was trained with: the "
            "model reads prompts of a kind it never saw. Put the run's chat_template.jinja into the folder of the "
            "model (for an adapter: of its base)"
        )


def _check_turn_end(found: ModelCheck, chat: ChatTokenizer, ref: ModelRef, ends: frozenset[int]) -> None:
    """Check that replies can end: the template's end of turn is one the engine stops at, and was ever trained."""
    try:
        end = chat.turn_end()
    except ValueError as error:
        found.unchecked.append(f"the end of a turn: {error}")
        return
    if end.token_id is None:
        shown = f"only {end.text!r}, no special token" if end.text.strip() else "nothing"
        found.warnings.append(
            f"the chat template writes {shown} behind an assistant turn: a model trained with it was not taught to "
            "end its replies"
        )
        return
    if end.token_id not in ends:
        found.warnings.append(
            f"the chat template ends a turn with {end.token!r} ({end.token_id}), but the engine stops only at "
            f"{sorted(ends)}: replies will run to the token cap. Add it to eos_token_id in the model's "
            "generation_config.json"
        )
    if ref.adapter is not None and _trains_rows(ref.adapter):
        found.unchecked.append("whether the end of a turn was trained: the adapter brings rows of its own")
        return
    padding = range(len(chat.tokenizer), len(chat.tokenizer) + 4)  # rows that no token has
    reserved = [*padding, *sorted(chat.tokenizer.get_added_vocab().values())][:_MAX_RESERVED]
    try:
        sign = untrained_sign(ref.path, end.token_id, reserved)
    except ValueError as error:
        found.unchecked.append(f"whether the end of a turn was trained: {error}")
        return
    if sign is not None:
        found.warnings.append(
            f"{end.token!r} ({end.token_id}), which ends a turn, seems never trained: {sign}. A base model with a "
            "chat template does not end its replies; use the instruct model, or train with this template"
        )


def _trains_rows(adapter: Path) -> bool:
    """Tell whether a LoRA adapter changes rows of the embedding or output matrix."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("trainable_token_indices"):
        return True
    named = [config.get("modules_to_save"), config.get("target_modules")]
    return any(part in str(entry) for entry in named for part in ("embed", "lm_head", "wte", "output"))
