"""Past-generation masking: parts of a faulty draft in the prompt are hidden, so that it is not copied (CYCLE).

In a row whose prompt holds a draft and what was said of it, each token of that part is hidden from attention with a
small probability, anew in every epoch (arXiv 2403.18746, section 3.3). The rest of the prompt, above all the task, is
never hidden, nor is anything in an evaluation. Tokens stay where they are and keep their positions; loss is on the
answer alone, as always.

The part is found in the characters of the rendered prompt, between two marks, and not among token ids, where a heading
may be cut otherwise. The original draws the masks once, hides the task where it finds no heading, and hides tokens in
evaluation too. Its probability is not published; 0.05 to 0.15 is a sensible start.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lengthwise.config import option

if TYPE_CHECKING:
    import numpy as np

    from posttrain.training_mask import Span


@dataclass(kw_only=True)
class PastGeneration:
    """Which part of a prompt is hidden, and how much of it."""

    frac: float = option(help="probability of each token of the part to be hidden, anew in every epoch")
    start: str = option(
        "### Bad solution:", help="text that the part begins with; a row without it is left whole"
    )
    end: str = option("### Good solution:", help="text before which it ends")

    def __post_init__(self) -> None:
        """Refuse what hides nothing, or everything."""
        if not 0 < self.frac < 1:
            raise ValueError(
                f"frac is {self.frac}: it must lie between 0 and 1; without masking leave the key out"
            )
        for name in ("start", "end"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty: name the text that marks the part")

    def span(self, text: str, answer: int) -> Span | None:
        r"""Return where the part stands in a rendered conversation; None where it has none.

        Args:
            text: the conversation.
            answer: where its last answer begins; what a model wrote there is never hidden.

        Returns:
            From the first line that begins with `start` to the last one before the answer that begins with `end`: a
            draft may quote the marks.

        Example:
            >>> masking = PastGeneration(frac=0.1, start="BAD", end="GOOD")
            >>> masking.span("task\nBAD x\nGOOD\nanswer", 16), masking.span("task", 4)
            ((5, 11), None)
        """
        end = text.rfind(f"\n{self.end}", 0, answer) + 1
        start = text.find(f"\n{self.start}", 0, end) + 1 if end else 0
        return (start, end) if start else None


def hidden_tokens(
    past: np.ndarray, input_ids: np.ndarray, *, frac: float, seed: int, epoch: int
) -> np.ndarray:
    """Return which tokens of a row are hidden in an epoch, shape [T], bool.

    The draw depends on seed, epoch and the row's tokens alone: not on the batch, the process or a resumption.

    Args:
        past: shape [T]; true where a token may be hidden.
        input_ids: shape [T].
        frac: probability of each.
        seed: the run's.
        epoch: counted from 0.
    """
    import numpy as np

    row = np.ascontiguousarray(input_ids, dtype=np.int32).tobytes()
    key = hashlib.sha256(f"{seed} {epoch} ".encode() + row).digest()
    draws = np.random.default_rng(int.from_bytes(key[:16], "little")).random(len(past))
    return past.astype(bool) & (draws < frac)
