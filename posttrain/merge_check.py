"""Whether an exported model is the model that was trained: log-probabilities, rendered prompts, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.records import Message
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.rows import BadRow, Row, converted
from posttrain.pair_formats import read_pair
from posttrain.row_formats import read_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.trained_model import TrainedModel

NUM_CONVERSATIONS = 20
MAX_TOKENS = 256
"""Of a conversation, its first ones are compared."""
LEAST_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 5e-3}
"""Mean absolute difference of log-probabilities (nats a token) allowed in any case, by the type of the weights."""
TIMES_ARITHMETIC = 3.0
"""Rounded weights may move log-probabilities this many times as far as arithmetic in their type does."""

Conversation = tuple[Message, ...]

_SENTENCES = (
    "The kettle was still warm when we came back.",
    "Write two lines about a bridge in the rain.",
    "Rain fell on the bridge, and the bridge held.",
    "How many legs do three spiders have?",
    "Three spiders have twenty-four legs.",
    "Explain in one paragraph why bread rises.",
    "Yeast eats sugar and gives off gas, which the dough holds.",
    "She closed the book at page 212.",
    "Name a city on the Danube.",
    "Vienna, Budapest and Belgrade all lie on it.",
    "def area(width, height): return width * height",
    "Translate 'good morning' into Spanish.",
    "Buenos días.",
    "The meeting moved to Thursday at 9:30.",
    "List four colours, separated by commas.",
    "red, green, blue, yellow",
    "What is 17 + 26?",
    "17 + 26 = 43",
    "Summer ended early that year, and nobody minded.",
    "Answer with a single word.",
)


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


def conversations(trained: TrainedModel) -> tuple[list[Conversation], str]:
    """Return 20 conversations to compare on, and where they are from: the training's own data, or built-in sentences.

    Only local files are read, each up to its share of the rows; rows that the training could not read are left out.
    """
    found: list[Conversation] = []
    reason = "no run is known"
    if trained.run is not None:
        try:
            found = list(islice(_of_run(trained.run.job, trained.run.config), NUM_CONVERSATIONS))
            reason = "the run's data is not on this machine"
        except (ConfigError, OSError) as error:
            reason = f"the run's data cannot be read: {error}"
    if found:
        return found, "the run's training data"
    turns = zip(_SENTENCES, (*_SENTENCES[1:], _SENTENCES[0]), strict=True)
    return (
        [(Message(role="user", content=a), Message(role="assistant", content=b)) for a, b in turns],
        f"built-in sentences ({reason})",
    )


def _of_run(job: str, config: Mapping[str, Any]) -> Iterator[Conversation]:
    """Yield the first rows of each local source of a run's data."""
    data = config["data"]
    names = [data] if isinstance(data, str) else [entry["path"] for entry in data]
    sources = [source for name in names if (source := find_rows(name)).files]
    for source in sources:
        rows = converted(read_rows(source), _pair_as_conversation if job == "dpo" else _messages)
        good = (row for row in rows if not isinstance(row, BadRow))
        yield from islice(good, -(-NUM_CONVERSATIONS // len(sources)))


def _messages(row: Row) -> Conversation:
    return read_row(row).messages


def _pair_as_conversation(row: Row) -> Conversation:
    pair = read_pair(row)
    return (*pair.prompt, *pair.chosen)


def rendered(tokenizer: PreTrainedTokenizerBase, found: Sequence[Conversation]) -> list[list[int]]:
    """Return the first tokens of each conversation, as the template writes it; without a template, of its bare text.

    A conversation that the template refuses is left out.
    """
    from jinja2.exceptions import TemplateError

    sequences = []
    for conversation in found:
        try:
            text = (
                tokenizer.apply_chat_template([m.to_dict() for m in conversation], tokenize=False)
                if tokenizer.chat_template
                else "\n".join(m.content for m in conversation)
            )
        except (TemplateError, ValueError):
            continue
        ids = tokenizer.encode(str(text), add_special_tokens=False, verbose=False)
        sequences.append(ids[:MAX_TOKENS])
    return [ids for ids in sequences if len(ids) > 1]


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
