"""How well a completion keeps to tags: thinking in one pair, the answer in another behind it.

Train Long, Think Short (arXiv 2508.08940, section 3.2) gives a part of the reward for each well-formed pair. A pair is
well formed if each of its tags stands once, in order, with something between them; pairs that overlap are not. A
prompt that ends with the opening tag has written it for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """The tags, and what each pair is worth."""

    think: tuple[str, str] = ("<think>", "</think>")
    answer: tuple[str, str] = ("<answer>", "</answer>")
    think_share: float = 0.5
    answer_share: float = 0.5


def score(completion: Rewarded, config: Config) -> float:
    """Return the sum of the shares of well-formed pairs.

    Example:
        >>> score(Rewarded(text="2+2 is 4.</think> <answer>4</answer>", num_tokens=9, prompt_end="<think>"), Config())
        1.0
        >>> score(Rewarded(text="<think></think><answer>4</answer>", num_tokens=9), Config())
        0.5
    """
    text = completion.text
    is_open = completion.prompt_end.rstrip().endswith(config.think[0])
    thought = pair_span(f"{config.think[0]}{text}" if is_open else text, config.think)
    answer = pair_span(f"{config.think[0]}{text}" if is_open else text, config.answer)
    if thought and answer and not (thought[1] <= answer[0]):
        return 0.0
    return config.think_share * bool(thought) + config.answer_share * bool(answer)


def pair_span(text: str, tags: tuple[str, str]) -> tuple[int, int] | None:
    """Return start and end of the one pair of tags with something between them, else None."""
    opening, closing = tags
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    start, end = text.index(opening), text.index(closing)
    if not text[start + len(opening) : end].strip():
        return None
    return start, end + len(closing)
