"""A request in vLLM's words, and what vLLM returns in ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lengthwise.engines.base import Likelihood, Sampling
from lengthwise.records import Completion, Usage


def sampling_params(sampling: Sampling, max_tokens: int) -> Any:
    """Return vLLM's parameters of a request that may generate `max_tokens` tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    structured = None
    if sampling.json_schema is not None:
        structured = StructuredOutputsParams(json=dict(sampling.json_schema))
    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or 0,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=max_tokens,
        stop=list(sampling.stop) or None,
        # A greedy request needs no generator of its own, and batches faster without one.
        seed=sampling.seed if sampling.temperature > 0 else None,
        logprobs=0 if sampling.logprobs else None,
        structured_outputs=structured,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def likelihood_params() -> Any:
    """Return vLLM's parameters of a request that is asked for the log-probabilities of its own prompt."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,  # vLLM generates at least one
        prompt_logprobs=1,  # of each token there is, and of the likeliest one in its place
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def likelihood_of(output: Any, start: int) -> Likelihood:
    """Return how likely the prompt's tokens from `start` on are, by a finished request's `prompt_logprobs`.

    Entry i holds the log-probability of token i given those before it, and of the likeliest token there.
    """
    ids = output.prompt_token_ids
    return _likelihood(ids[start:], output.prompt_logprobs[start:], len(ids))


def forced_token_params(token: int) -> Any:
    """Return vLLM's parameters of a request that writes one given token, and is asked how likely it was."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        allowed_token_ids=[token],  # what it tells is of the raw distribution, before this
        logprobs=1,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def likelihood_of_forced(outputs: Sequence[Any]) -> Likelihood:
    """Return how likely a text is, by one finished request for each of its tokens."""
    parts = [output.outputs[0] for output in outputs]
    tokens = [part.token_ids[0] for part in parts]
    num_prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    return _likelihood(tokens, [part.logprobs[0] for part in parts], num_prompt_tokens)


def _likelihood(tokens: Sequence[int], entries: Sequence[Any], num_prompt_tokens: int) -> Likelihood:
    """Sum up the tokens' log-probabilities; each entry has that of the token and of the likeliest one there."""
    own = [entry[token].logprob for token, entry in zip(tokens, entries, strict=True)]
    best = [max(other.logprob for other in entry.values()) for entry in entries]
    return Likelihood(
        logprob=sum(own),
        is_greedy=all(mine >= likeliest for mine, likeliest in zip(own, best, strict=True)),
        num_prompt_tokens=num_prompt_tokens,
    )


def completion_of(output: Any, index: int, model: str) -> Completion:
    """Return one of a finished request's completions; the prompt counts with the first."""
    part = output.outputs[index]
    logprobs = None
    if part.logprobs is not None:
        logprobs = tuple(
            entry[token].logprob for entry, token in zip(part.logprobs, part.token_ids, strict=True)
        )
    first = index == 0
    return Completion(
        text=part.text,
        finish_reason=part.finish_reason,
        num_tokens=len(part.token_ids),
        token_ids=tuple(part.token_ids),
        model=model,
        logprobs=logprobs,
        usage=Usage(
            prompt_tokens=len(output.prompt_token_ids) if first else 0,
            cached_tokens=(output.num_cached_tokens or 0) if first else 0,
            completion_tokens=len(part.token_ids),
        ),
    )
