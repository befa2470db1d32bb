"""A judge: any model behind any engine that is asked for a verdict on a text, and is believed only if it gives one.

It is greedy by default, is held to a JSON schema where its engine can do that, and has a few attempts; then the
text is unscored, with the fault's name. Its name in a metric holds its prompt's digest: another model or another
wording is another measure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lengthwise.caller import Caller, CallTimeout
from lengthwise.config import ConfigError, option
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.models import EMBEDDED
from lengthwise.records import Completion, Prompt
from lengthwise.templates import PromptTemplate
from lengthwise.verdicts import FaultKind, Form, JudgeFault, json_schema_of, parse_verdict

RETRY_TEMPERATURE = 0.3
"""At least this from the second attempt on: a greedy judge would repeat its fault word for word."""


@dataclass(kw_only=True)
class JudgeSettings:
    """One entry of `judges`: who judges, and how it is asked."""

    model: str = option(help="the judge: hub id, folder, embedded:smollm2-135m, or the served name")
    adapter: str | None = option(None, help="folder or hub id of a LoRA adapter on it")
    engine: dict[str, Any] | None = option(
        None, help="what runs it, {name: ..., its options}; null: the run's engine"
    )
    name: str | None = option(None, help="what it is called in metrics; null: the short name of the model")
    temperature: float = option(0.0, help="0 is greedy; a further attempt has at least 0.3")
    max_tokens: int = option(1024, help="cap on a verdict's tokens, thinking included")
    max_attempts: int = option(3, help="calls for one verdict, each with a seed of its own (at least 1)")
    timeout_seconds: float = option(
        600.0, help="time for one call, the engine's queue included; then the attempt has failed"
    )

    def __post_init__(self) -> None:
        """Refuse settings under which no verdict can come, and names that break a metric's."""
        for name, least in (("max_tokens", 1), ("max_attempts", 1), ("temperature", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"judges: {name} must be at least {least}, not {getattr(self, name)}")
        if self.timeout_seconds <= 0:
            raise ConfigError(f"judges: timeout_seconds must be above 0, not {self.timeout_seconds}")
        if not re.fullmatch(r"[\w.+-]+", self.label):
            raise ConfigError(
                f"judges: name {self.label!r} is a part of a metric's: use letters, digits, . - + _"
            )

    @property
    def label(self) -> str:
        """What the judge is called in metrics and in the journal."""
        return short_name(self.model, self.adapter) if self.name is None else self.name


def short_name(model: str, adapter: str | None = None) -> str:
    """Return a name for a model that fits into a metric's: the last part of its id, in small letters.

    Example:
        >>> short_name("Qwen/Qwen2.5-7B-Instruct"), short_name("outputs/sft/mine/checkpoint-8")
        ('qwen2.5-7b-instruct', 'mine_checkpoint-8')
    """
    spec = "smollm2-135m-instruct" if model == EMBEDDED else model
    parts = spec.strip("/").split("/")
    kept = parts[-2:] if parts[-1].startswith("checkpoint") else parts[-1:]
    name = "_".join(kept) if adapter is None else f"{'_'.join(kept)}+{short_name(adapter)}"
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.").lower() or "judge"


def judge_id(label: str, prompts: Iterable[PromptTemplate]) -> str:
    """Return what names a judge in a metric: its label and 8 hex digits of its prompts' digest."""
    text = "\0".join(prompt.text for prompt in prompts)
    return f"{label}.{hashlib.sha256(text.encode('utf-8')).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a judge found, by the keys of the form it was given."""

    values: Mapping[str, Any]
    attempts: tuple[Mapping[str, Any], ...]
    """Every reply, raw, and what was wrong with it: verdicts can be read again without the judge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unscored:
    """No attempt gave a verdict: the judge's or the harness's fault, not the text's."""

    reason: FaultKind
    """The fault of the last attempt."""
    attempts: tuple[Mapping[str, Any], ...]


@dataclass(kw_only=True)
class Judge:
    """A judge as one reply meets it: its calls are journalled under that reply."""

    id: str
    """See `judge_id`; what stands behind the @ of its metrics."""
    settings: JudgeSettings
    caller: Caller
    num_calls: int = field(default=0, init=False)
    """Calls so far, replayed and failed ones included: the same in a run and in its resumption."""

    async def ask(self, prompt: Prompt, form: Form, *, step: str) -> Verdict | Unscored:
        """Return the verdict on what `prompt` shows.

        Args:
            prompt: with the text to judge, and the form described in words for engines without schemas.
            form: what the verdict holds.
            step: tells this question from others on the same reply.

        Raises:
            EngineDead: the judge's engine is gone for good.
            LimitReached: a limit of the run is used up.
        """
        attempts: list[Mapping[str, Any]] = []
        for attempt in range(self.settings.max_attempts):
            reply: Completion | None = None
            self.num_calls += 1
            try:
                reply = await self._call(prompt, form, step, attempt)
                values = parse_verdict(reply.text, reply.finish_reason, form)
            except JudgeFault as fault:
                attempts.append({**_raw(reply), "fault": str(fault)})
                if fault.kind == "no room" or attempt + 1 == self.settings.max_attempts:
                    return Unscored(reason=fault.kind, attempts=tuple(attempts))
            else:
                return Verdict(values=values, attempts=(*attempts, _raw(reply)))
        raise AssertionError("max_attempts is at least 1")

    async def _call(self, prompt: Prompt, form: Form, step: str, attempt: int) -> Completion:
        """Ask once; what the engine or the clock does to the call is a fault, too."""
        caller, settings = self.caller, self.settings
        room = caller.context_length - caller.count_tokens(prompt)
        if caller.capabilities.exact_token_counts and room < 1:
            raise JudgeFault("no room", f"the context of {caller.context_length} tokens is full")
        sampling = Sampling(
            temperature=max(settings.temperature, RETRY_TEMPERATURE) if attempt else settings.temperature,
            max_tokens=min(settings.max_tokens, room) if room > 0 else settings.max_tokens,
            json_schema=json_schema_of(form) if caller.capabilities.json_schema else None,
        )
        try:
            (completion,) = await caller(prompt, sampling, step=step, attempt=attempt)
        except EngineDead:
            raise
        except CallTimeout as error:
            raise JudgeFault("timeout", str(error)) from None
        except ContextOverflow as error:
            raise JudgeFault("no room", str(error)) from None
        except EngineError as error:
            raise JudgeFault("engine error", str(error)) from None
        return completion


def _raw(reply: Completion | None) -> dict[str, Any]:
    return {} if reply is None else {"text": reply.text, "finish_reason": reply.finish_reason}
