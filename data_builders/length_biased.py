"""Which texts of a set stay where long ones are to prevail: Self-Lengthen's length-biased sampling (2410.23933).

Texts are ranked by characters, and stay with probability max(0, 1 - 2 r^3), r being 0 for the longest and 1 for the
shortest: about 60 % stay, none of the shortest fifth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_builders.rows import length_entry, scores_of, turns
from data_builders.self_lengthen_sampling import keeps_long
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import option
from lengthwise.degeneration import language
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample

ROLES: tuple[str, ...] = ()
WITH_ANSWERS = True


@dataclass(kw_only=True)
class Config:
    """Options of the sampling."""

    draw_seed: int = option(0, help="of the draws")


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows that chance and their length refuse."""
    lengths = [len(sample.completion or "") for sample in samples]
    stays = keeps_long(lengths, config.draw_seed)
    return {
        sample.id: Refusal("length-biased sampling", f"{length} characters")
        for sample, length, is_kept in zip(samples, lengths, stays, strict=True)
        if not is_kept
    }


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return a row that stays, as it came."""
    text = sample.completion or ""
    return Kept(
        {
            **sample.metadata,
            "id": sample.id,
            "builder": sample.metadata.get("builder") or "length_biased",
            "messages": turns(sample),
            "language": language(text),
            "length": length_entry(text, requested=sample.length, tokens=sample.metadata.get("num_tokens")),
            "scores": scores_of(sample),
            "lineage": [*sample.lineage, "length_biased"],
        }
    )
