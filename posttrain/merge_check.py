"""Whether an exported model is the model that was trained: log-probabilities, rendered prompts, and where it stops."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.merge_texts import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 5e-3}
"""Mean absolute difference of log-probabilities (nats a token) allowed in any case, by the type of the weights."""
TIMES_ARITHMETIC = 3.0
"""Rounded weights may move log-probabilities this many times as far as arithmetic in their type does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far two models' log-probabilities of the same tokens lie apart, in nats a token."""

    num_tokens: int
    mean_difference: float
    largest_difference: float
    arithmetic: float
    """Mean difference between the trained model, not merged, computed in the export's type and in float32."""
    tolerance: float
    effect: float | None
    """Mean difference between the base and the trained model: what a merge that did nothing would leave."""

    @property
    def is_close(self) -> bool:
        """Whether the mean difference is within the tolerance; one that is no number is not."""
        return self.mean_difference <= self.tolerance

    @property
    def drowns_training(self) -> bool:
        """Whether rounding moved the model about as far as the training did."""
        return self.effect is not None and 2 * self.mean_difference > self.effect

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, JSON-ready."""
        return asdict(self)


def agreement(
    trained: Sequence[Sequence[float]],
    exported: Sequence[Sequence[float]],
    *,
    base: Sequence[Sequence[float]] | None,
    in_dtype: Sequence[Sequence[float]],
    dtype: str,
) -> Agreement:
    """Compare log-probabilities, a list of numbers a conversation.

    Args:
        trained: of the trained model, not merged, in float32.
        exported: of the exported model, its weights rounded to `dtype`, in float32.
        base: of the base without the adapter; None if there is none.
        in_dtype: of the trained model, not merged, in `dtype`.
        dtype: of the exported weights.

    Example:
        >>> trained = [[-1.0, -2.0]]
        >>> found = agreement(
        ...     trained, [[-1.5, -2.0]], base=[[-3.0, -4.0]], in_dtype=[[-1.1, -2.1]], dtype="bfloat16"
        ... )
        >>> found.mean_difference, found.largest_difference, found.effect, found.is_close
        (0.25, 0.5, 2.0, True)
    """
    gaps = list(_gaps(trained, exported))
    arithmetic = _mean(list(_gaps(trained, in_dtype)))
    effects = None if base is None else list(_gaps(trained, base))
    return Agreement(
        num_tokens=len(gaps),
        mean_difference=_mean(gaps),
        largest_difference=max(gaps),
        arithmetic=arithmetic,
        tolerance=max(LEAST_TOLERANCE[dtype], TIMES_ARITHMETIC * arithmetic),
        effect=None if effects is None else _mean(effects),
    )


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _gaps(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> Iterator[float]:
    for one, other in zip(left, right, strict=True):
        yield from (abs(a - b) for a, b in zip(one, other, strict=True))


def token_logprobs(model: Any, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the log-probability of each token after the first, of each sequence by itself.

    Args:
        model: a causal language model of transformers or PEFT.
        sequences: token ids, at least two each.
    """
    import torch

    found = []
    model.eval()
    with torch.inference_mode():
        for ids in sequences:
            inputs = torch.tensor([list(ids)], device=model.device)
            logits = model(inputs, use_cache=False).logits[0, :-1].float()
            own = logits.log_softmax(-1).gather(1, inputs[0, 1:, None])[:, 0]
            found.append(own.tolist())
    return found


def prompts_differ(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, found: Sequence[Conversation]
) -> list[str]:
    """Return what differs between two tokenizers: template, end-of-sequence token, or the tokens of a prompt."""
    differences = [
        f"{name}: {getattr(before, name)!r} became {getattr(after, name)!r}"
        for name in ("chat_template", "bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(before, name) != getattr(after, name)
    ]
    if before.chat_template and after.chat_template:
        differences += [
            f"prompt {number} is rendered to other tokens"
            for number, conversation in enumerate(found)
            if _prompt(before, conversation) != _prompt(after, conversation)
        ]
    return differences


def _prompt(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Any:
    from jinja2.exceptions import TemplateError

    turns = [m.to_dict() for m in conversation[:-1]]
    try:
        return tokenizer.apply_chat_template(
            turns, tokenize=True, return_dict=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError) as error:
        return str(error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the exported folder has to give again."""

    tokenizer: PreTrainedTokenizerBase
    found: list[Conversation]
    source: str
    """Where the conversations are from."""
    sequences: list[list[int]]
    logprobs: list[list[float]]
    in_dtype: list[list[float]]
    base_logprobs: list[list[float]] | None
    generation: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the comparison."""

    name: str
    found: str
    problem: str | None = None


def compare(
    expected: Expected, folder: Path, dtype: str, device: str, trusts: bool
) -> tuple[list[Check], Agreement]:
    """Read the folder back as its users will, and hold it against the trained model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trusts)
    model.to(device)
    written = token_logprobs(model, expected.sequences)
    generation = generation_settings(model.generation_config)
    release(model)
    close = agreement(
        expected.logprobs, written, base=expected.base_logprobs, in_dtype=expected.in_dtype, dtype=dtype
    )
    differences = prompts_differ(
        expected.tokenizer, AutoTokenizer.from_pretrained(folder, trust_remote_code=trusts), expected.found
    )
    changed = sorted(
        key
        for key in expected.generation.keys() | generation
        if expected.generation.get(key) != generation.get(key)
    )
    checks = [
        _logprob_check(close, dtype, f"{len(expected.sequences)} conversations of {expected.source}"),
        Check(
            name="template",
            found=f"{len(expected.found)} prompts, same tokens"
            if not differences
            else "; ".join(differences),
            problem=f"the tokenizer changed ({'; '.join(differences)})" if differences else None,
        ),
        Check(
            name="end",
            found=f"generation stops at {expected.generation.get('eos_token_id')}",
            problem=f"generation_config changed: {', '.join(changed)}" if changed else None,
        ),
    ]
    return checks, close


def _logprob_check(close: Agreement, dtype: str, source: str) -> Check:
    found = (
        f"{close.num_tokens:,} tokens of {source}: mean difference {close.mean_difference:.2g} nats (allowed in "
        f"{dtype}: {close.tolerance:.2g}), largest {close.largest_difference:.2g}"
    )
    if close.effect is not None:
        found += f"; the training changed them by {close.effect:.2g}"
    if close.is_close and close.drowns_training and close.mean_difference > LEAST_TOLERANCE["float32"]:
        found += f"\nWARNING     rounding to {dtype} is about as large as what was trained: --dtype float32 keeps it"
    problem = None
    if not close.is_close:
        problem = (
            f"its log-probabilities differ from the trained model's by {close.mean_difference:.2g} nats a token, above "
            f"{close.tolerance:.2g}: try --dtype float32"
        )
    return Check(name="log-probs", found=found, problem=problem)


def table(checks: Sequence[Check]) -> list[str]:
    """Return the comparisons as lines: the verdict, what was compared, what was found."""
    return [f"{'DIFFERS' if check.problem else 'equal':<12}{check.name:<12}{check.found}" for check in checks]


def generation_settings(config: Any) -> dict[str, Any]:
    """Return what a generation config sets, without the version that wrote it."""
    return {key: value for key, value in config.to_diff_dict().items() if key != "transformers_version"}


def release(model: Any) -> None:
    """Free a model's memory before the next one is loaded."""
    import torch

    model.to("meta")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
