"""The options of AgentWrite, and what no text could meet."""

from __future__ import annotations

from dataclasses import dataclass

from data_builders.sections import CHECKS
from lengthwise.config import ConfigError, option


@dataclass(kw_only=True)
class Config:
    """Options of AgentWrite."""

    target_words: int | None = option(
        None,
        help="words of every text; null: the row's own, else those its prompt states, else the plan's",
    )
    language: str = option("auto", help="language of the prompts and the texts: auto, en or zh")
    min_sections: int = option(2, help="fewest sections of a plan")
    max_sections: int = option(50, help="most sections of a plan")
    min_section_words: int = option(
        200, help="fewest words of a planned section; shorter texts get shorter ones"
    )
    max_section_words: int = option(1000, help="most words of a planned section")
    plan_tolerance: float = option(
        0.15, help="share by which a plan's sum may miss the length before it is rescaled"
    )
    plan_candidates: int = option(1, help="plans sampled at once; the first valid one is taken")
    max_plan_repairs: int = option(2, help="how often the planner may correct an invalid plan")
    section_candidates: int = option(
        1, help="versions of a section sampled at once; of the fittest the nearest in length is taken"
    )
    plan_column: str | None = option(
        "plan",
        help="column with a given plan: a list of {main_point, num_words} or of texts; null ignores it",
    )
    context_column: str | None = option(None, help="column with material that the text must use")
    min_section_ratio: float = option(0.5, help="least written / planned words of a section")
    max_section_ratio: float = option(1.6, help="largest written / planned words of a section")
    max_overlap: float = option(
        0.1, help="largest share of a section's 10-grams that stand in earlier sections"
    )
    tolerate: list[str] = option(
        default_factory=list,
        help="section checks that only get recorded when no try passes them (for very small models): "
        "language, too_short, too_long, overlap, early_conclusion",
    )
    min_length_score: float = option(80.0, help="least S_l (0..100) of a text that has a stated length")
    max_repetition: float = option(
        0.1, help="largest share of repeated n-grams in a finished text (10 words, 13 hanzi)"
    )
    planner_temperature: float = option(0.7, help="sampling temperature of plans")
    writer_temperature: float = option(0.8, help="sampling temperature of sections")
    top_p: float = option(0.95, help="nucleus of both")
    repetition_penalty: float = option(1.0, help="of the writer; above 1 it distorts long texts")
    tokens_per_word: float | None = option(
        None, help="cap of a section call in tokens per planned word; null: 2.5 for en, 3 for zh"
    )
    reasoning_tokens: int = option(
        0, help="tokens added to every cap for a model that thinks before it answers"
    )

    def __post_init__(self) -> None:
        """Refuse combinations that no text can meet."""
        _check_choice("language", self.language, ("auto", "en", "zh"))
        for check in self.tolerate:
            _check_choice("tolerate", check, CHECKS[3:])
        for name in ("min_sections", "min_section_words", "plan_candidates", "section_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.max_plan_repairs < 0:
            raise ConfigError(f"max_plan_repairs is {self.max_plan_repairs}: it must be at least 0")
        for low, high in (
            ("min_sections", "max_sections"),
            ("min_section_words", "max_section_words"),
            ("min_section_ratio", "max_section_ratio"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(
                    f"{low} is {getattr(self, low)}, above {high} {getattr(self, high)}: "
                    f"raise {high} or lower {low}"
                )
        if self.target_words is not None and self.target_words < self.min_sections:
            raise ConfigError(
                f"target_words is {self.target_words}: it must be at least min_sections ({self.min_sections})"
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: choose from {', '.join(choices)}")
