"""What an exported model is compared on: conversations of the training's own data, or built-in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.records import Message
from lengthwise.row_files import read_rows
from lengthwise.row_formats import read_row
from lengthwise.row_sources import find_rows
from lengthwise.rows import BadRow, Row, converted
from posttrain.pair_formats import read_pair
from posttrain.prompt_data import read_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.trained_model import TrainedModel

NUM_CONVERSATIONS = 20
MAX_TOKENS = 256
"""Of a conversation, its first ones are compared."""

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
        rows = converted(read_rows(source), _READERS.get(job, _messages))
        good = (row for row in rows if not isinstance(row, BadRow))
        yield from islice(good, -(-NUM_CONVERSATIONS // len(sources)))


def _messages(row: Row) -> Conversation:
    return read_row(row).messages


def _pair_as_conversation(row: Row) -> Conversation:
    pair = read_pair(row)
    return (*pair.prompt, *pair.chosen)


_READERS = {
    "dpo": _pair_as_conversation,
    "orpo": _pair_as_conversation,
    "grpo": lambda row: read_prompt(row).messages,
}
"""How rows of a job become conversations, where they are none."""


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
