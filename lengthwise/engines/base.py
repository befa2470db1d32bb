"""What every engine offers, and how one is opened by name.

An engine turns prompts into completions. It is one file in this folder; the file's name is its name in a
config: `engine: {name: vllm, max_model_len: 4096}`. Each file defines a dataclass `Config` with the engine's
options and a class `Engine(model, config)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lengthwise.records import Completion, Prompt
from lengthwise.value_types import ConfigError

if TYPE_CHECKING:
    from lengthwise.engines.chat_tokenizer import ChatTokenizer
    from lengthwise.models import ModelRef


class EngineError(RuntimeError):
    """A call that failed for a reason of the engine's, after its own retries: the sample fails, siblings go on."""


class ContextOverflow(EngineError):
    """The prompt, or the prompt and the wanted completion, does not fit the model's context."""


class EngineDead(EngineError):
    """The engine is gone for good: the run must stop (and can be resumed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an engine can do beyond plain chat completions."""

    prefill: bool = False
    """Continue a partial assistant turn."""
    json_schema: bool = False
    """Constrain the reply to a JSON schema."""
    seeds: bool = False
    adapters: bool = False
    """Serve several LoRA adapters beside the base model."""
    logprobs: bool = False
    prompt_logprobs: bool = False
    """Tell how likely a given continuation is: it has `loglikelihood`, see `LikelihoodEngine`."""
    exact_token_counts: bool = True
    """`count_tokens` is no estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to sample, in vLLM's and OpenAI's own words."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    """Cap on generated tokens; None means what is left of the context, never a hidden default."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; a thinking part does not stop at them."""
    seed: int | None = None
    json_schema: Mapping[str, Any] | None = None
    logprobs: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map, the part of a journal key that names the sampling."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """How likely a model holds a given text to be the continuation of a prompt."""

    logprob: float
    """Natural logarithm of its probability: the sum over its tokens, of the raw distribution."""
    is_greedy: bool
    """Whether greedy decoding would write it: each of its tokens is the likeliest."""
    num_prompt_tokens: int
    """Tokens that were read, those of the continuation included."""


def room_for(num_prompt_tokens: int, sampling: Sampling, context_length: int) -> int:
    """Return the tokens that a completion may have: `max_tokens`, or what the prompt leaves of the context.

    Raises:
        ContextOverflow: if they do not fit: nothing is cut silently.

    Example:
        >>> room_for(100, Sampling(), 4096), room_for(100, Sampling(max_tokens=50), 4096)
        (3996, 50)
    """
    room = context_length - num_prompt_tokens
    wanted = room if sampling.max_tokens is None else sampling.max_tokens
    if room < 1 or wanted > room:
        raise ContextOverflow(
            f"a prompt of {num_prompt_tokens} tokens and max_tokens {sampling.max_tokens} do not fit the "
            f"context of {context_length}: lower max_tokens, or serve a longer context (engine.max_model_len)"
        )
    return wanted


class Engine(Protocol):
    """A started engine. `generate` may be called from many tasks at once; it batches by itself."""

    model: str
    capabilities: Capabilities
    context_length: int
    """Tokens of prompt and completion together."""

    def weights_identity(self, adapter: str | None = None) -> str:
        """Return the content digest of the weights that would answer, never just their name."""
        ...

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of tokens of the rendered prompt (an estimate where the tokenizer is remote)."""
        ...

    async def start(self) -> None:
        """Load the model or reach the server; raise `EngineError` with the remedy if that fails."""
        ...

    async def stop(self) -> None:
        """Free everything; no process is left behind."""
        ...

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Return `sampling.n` completions of `prompt`; raise `EngineError` if there are none."""
        ...


@runtime_checkable
class ShowsModel(Protocol):
    """What a started engine also has whose model is on this machine: what is needed to check it."""

    @property
    def chat_tokenizer(self) -> ChatTokenizer:
        """What renders the prompts."""
        ...

    @property
    def model_ref(self) -> ModelRef:
        """The folders of base and adapter."""
        ...

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens at which every reply ends."""
        ...


class LikelihoodEngine(Engine, Protocol):
    """An engine with the capability `prompt_logprobs`."""

    async def loglikelihood(
        self, prompt: Prompt, continuation: str, *, adapter: str | None = None
    ) -> Likelihood:
        """Return how likely `continuation` follows the rendered prompt, where a reply would begin.

        Raises:
            ContextOverflow: if both together do not fit the context.
            EngineError: if there is no answer, or the continuation is empty.
        """
        ...


def require(engine: Engine, wanted: frozenset[str], what: str) -> None:
    """Refuse at start a job that needs a capability which its engine lacks.

    Raises:
        ConfigError: naming the missing capabilities and the job.
    """
    known = {f.name for f in fields(Capabilities)}
    missing = sorted(name for name in wanted if name not in known or not getattr(engine.capabilities, name))
    if missing:
        from lengthwise.engines.vllm import Engine as Vllm

        offered = sorted(name for name in known if getattr(Vllm.capabilities, name))
        raise ConfigError(
            f"{what} needs an engine with {', '.join(missing)}, which {type(engine).__module__.split('.')[-1]} "
            f"does not offer: choose another engine (vllm offers {', '.join(offered)})"
        )
