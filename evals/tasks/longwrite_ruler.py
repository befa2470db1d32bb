"""LongWrite-Ruler: the longest text a model writes (LongWriter, arXiv 2408.07055).

Sources have the paper's fields {prompt, type, length} or those of the shipped prompts. The paper's 48 rows ask for
1,000 to 30,000 words, eight times each; it plots what was written against what was asked, and no scorer is released.
Per asked length `words` is the mean of the words written, and `ratio` the median of written / asked: where `words`
stops to grow while the length goes on, there is the longest that the model writes. The longest single reply is not
here, since a maximum grows with the number of replies and has no interval; `counts` of the samples file has each.

`s_l` is LongBench-Write's score, and `refusal` the share of replies that open by declining, which rises with the
length asked. All by the paper's counter `cjk_alpha`, an empty reply is 0 words. "More is better" of `words` and
`ratio` belongs to what is tested here; how well a length was met is in `s_l`. A reply cut at the token cap
is no limit of the model's: read it beside the truncated count.
"""

from __future__ import annotations

from evals.base import Metric, asked_length
from evals.sources import Entry
from evals.tasks import longbench_write
from lengthwise.degeneration import is_refusal, language
from lengthwise.lengths import count_cjk_alpha, longbench_length_score
from lengthwise.records import Prompt, Sample

VERSION = 1
METRICS = (
    Metric(name="words", counter="cjk_alpha"),
    Metric(name="ratio", counter="cjk_alpha", summary="median"),
    Metric(name="s_l", counter="cjk_alpha", worst=0.0, best=100.0),
    Metric(name="refusal", counter="cjk_alpha", higher_is_better=False, summary="proportion"),
)
TEMPERATURE = 0.5
MAX_TOKENS = None
DATA_FILE = "longwrite_ruler.jsonl"


def load(source: str | None, *, draw_seed: int = 0) -> list[Entry]:
    """Return the rows of data with the paper's fields, or those of the shipped fields that ask for "about" a length.

    `draw_seed` is not used.

    Raises:
        ConfigError: the data is not there, or the whole of it is unreadable.
    """
    return longbench_write.load(source, draw_seed=draw_seed)


def prompt(sample: Sample) -> Prompt:
    """Return the prompt as it is: it holds the wish in words."""
    return sample.messages


def score(sample: Sample, text: str, finish_reason: str | None) -> dict[str, float]:
    """Return how many words one reply has, of how many asked, its S_l, and whether it declines.

    Example:
        A reply of 5,000 words to a wish for 20,000 has words 5000, ratio 0.25, s_l 0 and refusal 0.
    """
    requested = asked_length(sample, "longwrite_ruler").nominal
    words = count_cjk_alpha(text)
    return {
        "words": float(words),
        "ratio": words / requested,
        "s_l": longbench_length_score(requested, words),
        "refusal": float(is_refusal(text)),
    }


def slices(sample: Sample) -> dict[str, str]:
    """Return the asked length, the language of the prompt and the source's type of text."""
    stated = sample.metadata.get("language")
    found = {
        "length": f"{asked_length(sample, 'longwrite_ruler').nominal:g}",
        "language": str(stated) if stated else language(sample.instruction),
    }
    if sample.metadata.get("type"):
        found["type"] = str(sample.metadata["type"])
    return found
