"""Makes tasks like those of "Spinning the Golden Thread" (arXiv 2409.02076, section 3): many entries, events in some.

The kind of task, the three kinds of instruction and their usual numbers (five for one entry, one for a range, one that
recurs) are the paper's; scenarios, events and wording are ours (`prompts/golden_thread.yaml`). A row has the fields of
the published files, so that both are read alike. The first entry is the worked example and is asked for nothing.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from lengthwise.golden_thread import END_MARK, KINDS, SEPARATOR, Kind
from lengthwise.templates import load_phrases, load_prompt

SCENARIO_FILE = Path(__file__).parent / "prompts" / "golden_thread.yaml"
"""Our scenarios with their events."""

ScenarioName = Literal["ship_log", "museum", "radio_drama", "garden"]
SCENARIO_NAMES: tuple[ScenarioName, ...] = get_args(ScenarioName)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What a text of many entries is about."""

    name: str
    unit: str
    """What an entry is called in its heading, before its number."""
    work: str
    example: str
    """How entry 1 may begin."""
    events: Mapping[Kind, tuple[str, ...]]
    """What may be asked, by kind of instruction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How large a task is."""

    num_entries: int
    min_words: int
    num_of: Mapping[Kind, int]
    """Instructions of each kind."""

    def __post_init__(self) -> None:
        """Refuse what no task can be made of."""
        if self.num_entries < 3:
            raise ValueError(
                f"num_entries must be at least 3, not {self.num_entries}: the first is the example"
            )
        if self.min_words < 1:
            raise ValueError(f"min_words must be at least 1, not {self.min_words}")
        most = {k: min(len(s.events[k]) for s in scenarios().values()) for k in KINDS}
        most["once"] = min(most["once"], self.num_entries - 1)  # each in an entry of its own
        for kind, num in self.num_of.items():
            if not 0 <= num <= most[kind]:
                raise ValueError(f"num_{kind} must lie in 0..{most[kind]} with these entries, not {num}")
        if not any(self.num_of.values()):
            raise ValueError("num_once, num_range and num_periodic are all 0: nothing could be checked")


@cache
def scenarios() -> Mapping[str, Scenario]:
    """Return our scenarios by name."""
    import yaml

    return {
        entry["name"]: Scenario(
            **{key: entry[key] for key in ("name", "unit", "work", "example")},
            events={kind: tuple(entry[kind]) for kind in KINDS},
        )
        for entry in yaml.safe_load(SCENARIO_FILE.read_text(encoding="utf-8"))
    }


def make_rows(
    names: Sequence[ScenarioName], num_tasks: int, size: Size, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield `num_tasks` rows, of the scenarios in turn; the same seed gives the same rows, whatever their number.

    Example:
        >>> size = Size(num_entries=12, min_words=50, num_of={"once": 2, "range": 1, "periodic": 1})
        >>> [row["id"] for row in make_rows(["museum", "garden"], 3, size, seed=0)]
        ['museum/12/0', 'garden/12/0', 'museum/12/1']
    """
    for index in range(num_tasks):
        number, place = divmod(index, len(names))
        scenario = scenarios()[names[place]]
        stream = random.Random(f"{seed}/{scenario.name}/{size.num_entries}/{number}")
        yield {"id": f"{scenario.name}/{size.num_entries}/{number}", **make_row(scenario, size, stream)}


def make_row(scenario: Scenario, size: Size, stream: random.Random) -> dict[str, Any]:
    """Return one task: its prompt, and what each entry is to hold, by kind of instruction.

    Events of a task differ. Single ones have an entry each; a range has 2 to an eighth of the entries, and a period's
    step lies between a twelfth and a sixth of them, so that it comes about six to twelve times.
    """
    lines: list[str] = []
    checks: dict[Kind, dict[str, list[str]]] = {kind: defaultdict(list) for kind in KINDS}
    phrases = load_phrases("evals", "golden_thread_instructions")
    singles = iter(stream.sample(range(2, size.num_entries + 1), size.num_of.get("once", 0)))
    for kind in KINDS:
        for event in stream.sample(scenario.events[kind], size.num_of.get(kind, 0)):
            entries, fields = _place(kind, size.num_entries, stream, singles)
            lines.append(phrases[kind].render(unit=scenario.unit, event=event, **fields))
            for entry in entries:
                checks[kind][str(entry)].append(event)
    prompt = load_prompt("evals", "golden_thread").render(
        work=scenario.work,
        unit=scenario.unit,
        example=scenario.example,
        num_entries=size.num_entries,
        min_words=size.min_words,
        instructions="\n".join(lines),
        separator=SEPARATOR,
        end_mark=END_MARK,
    )
    return {
        "prompt": prompt,
        **{f"checks_{kind}": dict(found) for kind, found in checks.items()},
        "type": scenario.unit,
        "prefix": f"{SEPARATOR} {scenario.unit} 1:",
        "number": size.num_entries,
        "scenario": scenario.name,
        "min_words": size.min_words,
        "language": "en",
    }


def _place(
    kind: Kind, num_entries: int, stream: random.Random, singles: Iterator[int]
) -> tuple[Sequence[int], dict[str, Any]]:
    """Return the entries that an instruction is about, and what its sentence names of them."""
    if kind == "once":
        entry = next(singles)
        return [entry], {"entry": entry}
    if kind == "range":
        width = stream.randint(2, max(2, num_entries // 8))
        first = stream.randint(2, num_entries - width + 1)
        return range(first, first + width), {"first": first, "last": first + width - 1}
    step = stream.randint(max(2, num_entries // 12), max(2, num_entries // 6))
    first = stream.randint(2, min(num_entries, 1 + step))
    return range(first, num_entries + 1, step), {"first": first, "step": step, "ordinal": _ordinal(step)}


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
