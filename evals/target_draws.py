"""Which of the nine targets of Target Length Generation (arXiv 2409.18943) an instruction is asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator

from lengthwise.lengths import TLG_TARGETS

PAPER_SEED = 10


def draw_targets(seed: int) -> Iterator[str]:
    """Yield one of the nine targets for each row, uniform and independent.

    Example:
        >>> next(draw_targets(0)) == next(draw_targets(0))
        True
    """
    stream = random.Random(seed)
    while True:
        yield stream.choice(TLG_TARGETS)


def paper_stream(num_rows: int, num_draws: int = 2000) -> tuple[list[int], list[str]]:
    """Return which rows the paper's script takes, and their targets (Ruler's released code).

    One random stream of seed 10 shuffles all rows, then draws a target for each of the first `num_draws`. With the
    612,687 two-turn conversations of OpenHermes-2.5 these are the published rows.

    Example:
        >>> positions, targets = paper_stream(612_687)
        >>> positions[0], targets[0], targets.count(">800")
        (236709, '50', 212)
    """
    stream = random.Random(PAPER_SEED)
    positions = list(range(num_rows))
    stream.shuffle(positions)
    taken = positions[:num_draws]
    return taken, [stream.choice(TLG_TARGETS) for _ in taken]
