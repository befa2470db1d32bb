"""What is said to an OpenAI-compatible server and what its replies mean: pure functions, no network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from lengthwise.engines.base import ContextOverflow, EngineError, Sampling
from lengthwise.records import FinishReason, Prompt, Usage, digest

_TOO_LONG = re.compile(r"context|maximum model length|max_model_len|too long", re.IGNORECASE)
_MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_FINISH: Mapping[str | None, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "stop",
}


class Fault(Exception):
    """A request that a server did not serve, though it or another server may when asked again.

    `overloaded` is a 429, `unreachable` no connection at all, `slow` no answer in time, `bad` anything else: 5xx, a
    connection lost in the middle, an answer that is none.
    """

    def __init__(
        self,
        kind: Literal["overloaded", "unreachable", "slow", "bad"],
        message: str,
        *,
        retry_after_seconds: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Keep what the engine needs to know; `usage` is what the useless answer cost."""
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage or Usage()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One choice of a server, as it was said."""

    text: str
    finish_reason: FinishReason
    reasoning: str | None
    num_tokens: int | None
    """None if the server told no usage."""
    num_reasoning_tokens: int | None
    model: str
    usage: Usage


def chat_request(
    prompt: Prompt, sampling: Sampling, model: str, *, seeds: bool, extra_body: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of the client's call for one completion.

    Args:
        prompt: the turns; a last one of the assistant is to be continued.
        sampling: how to sample; `n` is not sent (see the engine).
        model: the served name.
        seeds: whether the server takes a seed.
        extra_body: further fields.
    """
    request: dict[str, Any] = {
        "model": model,
        "messages": [m.to_dict() for m in prompt],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.max_tokens is not None:
        request["max_tokens"] = sampling.max_tokens
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.seed is not None and seeds:
        request["seed"] = sampling.seed
    if sampling.json_schema is not None:
        request["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": dict(sampling.json_schema), "strict": True},
        }
    extra = dict(extra_body)
    if sampling.top_k is not None:
        extra["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        extra["repetition_penalty"] = sampling.repetition_penalty
    if prompt[-1].role == "assistant":
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    if extra:
        request["extra_body"] = extra
    return request


def is_base_url(url: str) -> bool:
    """Return whether a text can be the address of a server.

    Example:
        >>> is_base_url("http://127.0.0.1:8000/v1"), is_base_url("127.0.0.1:8000"), is_base_url("http://h:PORT/v1")
        (True, False, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def seed_of_choice(seed: int | None, index: int) -> int | None:
    """Return the seed of one of several completions: the first has the request's own, the rest follow from it."""
    if seed is None or index == 0:
        return seed
    return int(digest(["choice", seed, index])[:8], 16) & 0x7FFFFFFF


def read_answer(response: Any) -> Answer:
    """Return the first choice of a chat completion.

    Raises:
        Fault: if it is not one; with the tokens it cost, where the server tells.
    """
    told = getattr(response, "usage", None)
    usage = _usage(told)
    choices = getattr(response, "choices", None)  # the client hands on a page of text as a str
    if not isinstance(choices, list) or not choices:
        raise Fault("bad", "an answer without a single choice", usage=usage)
    choice = choices[0]
    message = getattr(choice, "message", None)
    text = getattr(message, "content", None)
    if message is None or not isinstance(text, str | None):
        raise Fault("bad", "an answer without a message", usage=usage)
    if usage is not None and text and not usage.completion_tokens:
        usage = None  # zeros in place of counts
    # Not a field of OpenAI's: vLLM calls it reasoning, other servers reasoning_content.
    reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    if not isinstance(reasoning, str | None):
        raise Fault("bad", "an answer whose reasoning is no text", usage=usage)
    finish_reason = getattr(choice, "finish_reason", None)
    return Answer(
        text=text or "",
        finish_reason=_FINISH.get(finish_reason if isinstance(finish_reason, str) else None, "abort"),
        reasoning=reasoning,
        num_tokens=None if usage is None else usage.completion_tokens,
        num_reasoning_tokens=_reasoning_tokens(told),
        model=str(getattr(response, "model", None) or ""),
        usage=usage or Usage(),
    )


def _usage(told: Any) -> Usage | None:
    prompt_tokens = _count(told, "prompt_tokens")
    completion_tokens = _count(told, "completion_tokens")
    if prompt_tokens is None or completion_tokens is None:
        return None
    reasoning_tokens = _reasoning_tokens(told) or 0
    if reasoning_tokens > completion_tokens:  # some servers count the answer alone
        completion_tokens += reasoning_tokens
    cached = _count(getattr(told, "prompt_tokens_details", None), "cached_tokens")
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cached_tokens=cached or 0)


def _reasoning_tokens(told: Any) -> int | None:
    return _count(getattr(told, "completion_tokens_details", None), "reasoning_tokens")


def _count(told: Any, name: str) -> int | None:
    """Return a number of tokens as a server told it; None for what is no count."""
    value = getattr(told, name, None)
    return value if type(value) is int and value >= 0 else None


def share_of_reasoning(num_tokens: int, reasoning: str, answer: str) -> int:
    """Estimate the tokens of a thinking part from its share of the characters.

    Example:
        >>> share_of_reasoning(100, "a" * 300, "b" * 100)
        75
    """
    num_characters = len(reasoning) + len(answer)
    return round(num_tokens * len(reasoning) / num_characters) if num_characters else 0


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long a server asks to be left alone, from `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3).

    Args:
        headers: of the reply; names in lower case, or a map that ignores case.
        now: the time, with its zone: the header may be a date.

    Returns:
        Seconds, not below 0; None without a header that can be read.

    Example:
        >>> retry_after_seconds({"retry-after": "7"}, datetime.now(UTC))
        7.0
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                continue
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            seconds = (date - now).total_seconds()
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def fault_of_status(status: int, text: str, headers: Mapping[str, str], now: datetime) -> Fault | None:
    """Return the fault behind an HTTP error; None if the request itself was refused, which no retry mends."""
    message = f"HTTP {status} {brief(text)}".rstrip()
    if status == 429:
        return Fault("overloaded", message, retry_after_seconds=retry_after_seconds(headers, now))
    if status in (408, 409) or status >= 500:
        return Fault("bad", message)
    return None


def status_words(error: Any) -> str:
    """Return what a server said with an HTTP error: its message, or the body as it is."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return message if isinstance(message, str) else error.response.text


def connection_fault(error: BaseException, timeout_seconds: float) -> Fault:
    """Return the fault behind a connection that failed, at its start or later."""
    import httpx2
    from openai import APITimeoutError

    cause = error.__cause__
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Fault("unreachable", connection_words(error))
    if isinstance(error, TimeoutError | APITimeoutError):
        return Fault("slow", f"no answer in {timeout_seconds:g} s (engine.timeout_seconds)")
    return Fault("bad", connection_words(error))


def connection_words(error: BaseException) -> str:
    """Return why there is no answer, with the cause that the client's error hides."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.__cause__
    return f"{error} ({cause})" if cause is not None and str(cause) else f"{error} ({type(cause).__name__})"


def refusal(status: int, text: str, url: str) -> EngineError:
    """Return the error of a request that a server refused."""
    if status in (400, 413, 422) and _TOO_LONG.search(text):
        return ContextOverflow(f"{url} refused the prompt as too long: {brief(text)}")
    return EngineError(f"{url} refused the request with HTTP {status}: {brief(text)}")


def brief(text: str, most: int = 300) -> str:
    r"""Return a server's words on one line, without markup, cut to `most` characters.

    Example:
        >>> brief("<html><h1>502 Bad Gateway</h1>\n<hr>nginx</html>")
        '502 Bad Gateway nginx'
    """
    words = " ".join(_MARKUP.sub(" ", text).split())
    return words if len(words) <= most else words[:most] + " ..."
