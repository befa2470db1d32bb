"""Long texts of many entries, and whether each entry holds what was asked of it ("Spinning the Golden Thread").

The formulas are those of LongGenBench (Wu et al., arXiv 2409.02076, section 3, and its released code), as shares in
0..1 where the paper prints percent. With N entries asked: the completion rate CR is the share of them that the text
has; a check asks whether one entry holds one event, and is judged only where the entry is there. STIC-1 is the share
met of the judged checks, STIC-2 the share met of all, and wAvg is CR times STIC-2. The paper pools STIC over the
checks of all documents: sum the counts, not the shares.

Where we differ: a reply without text has no entry (in the code its given heading counts as entry 1); STIC-1 of no
judged check does not exist (the code prints 0); and beside CR there is a strict one, which asks of an entry the
words that the prompt asks of it, where a stub ("Week 7: as before.") completes the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lengthwise.lengths import count_whitespace

SEPARATOR = "#*#"
"""What stands before each entry."""
END_MARK = "*** finished"
"""What stands behind the last one."""

Kind = Literal["once", "range", "periodic"]
"""Instructions for one entry, for each of an interval, and for every k-th."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One event that one entry is to hold. An entry may have several, also of one kind."""

    entry: int
    """From 1. A few of the published data lie beyond the last entry."""
    event: str
    kind: Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What STIC is made of."""

    num_all: int
    num_found: int
    """Checks whose entry is there, which the paper calls judged."""
    num_met: int

    @property
    def stic_1(self) -> float | None:
        """The share met of the checks whose entry is there, 0..1; None where there is none."""
        return self.num_met / self.num_found if self.num_found else None

    @property
    def stic_2(self) -> float | None:
        """The share met of all checks, 0..1; None where there is none."""
        return self.num_met / self.num_all if self.num_all else None


def split_entries(text: str, unit: str) -> dict[int, str]:
    """Return the entries of a text by their number; each begins behind its heading's number.

    The text up to the end mark is cut at each separator, and the first "unit number" in a piece, in the unit's own
    letters, is the piece's number; a piece without one is none. Of two pieces with one number the first counts, as in
    the released code, so that pieces may stand in any order.

    Example:
        >>> split_entries("#*# Room 2: A lamp. #*# Room 1: A door. #*# Room 2: No lamp. *** finished Room 3", "Room")
        {2: ': A lamp.', 1: ': A door.'}
    """
    heading = re.compile(rf"{re.escape(unit)} ([0-9]{{1,9}})(?![0-9])")
    entries: dict[int, str] = {}
    for piece in text.partition(END_MARK)[0].split(SEPARATOR):
        found = heading.search(piece)
        if found:
            entries.setdefault(int(found[1]), piece[found.end() :].strip())
    return entries


def completion_rate(entries: Mapping[int, str], num_entries: int, min_words: int = 0) -> float:
    """Return the share of the entries 1..N that are there, 0..1; with `min_words`, and have so many words.

    Words are parted by white space, and the heading with its number and what follows that (`:`) counts none.

    Raises:
        ValueError: if `num_entries` is not positive.

    Example:
        >>> entries = {1: "A long day at sea.", 2: "", 9: "beyond the last"}
        >>> completion_rate(entries, 4), completion_rate(entries, 4, min_words=3)
        (0.5, 0.25)
    """
    if num_entries < 1:
        raise ValueError(
            f"num_entries must be at least 1, not {num_entries}: a share of no entries does not exist"
        )
    there = sum(1 <= i <= num_entries and _num_words(t) >= min_words for i, t in entries.items())
    return there / num_entries


def _num_words(entry: str) -> int:
    return count_whitespace(entry.lstrip(":.-–—*# \n"))


def count_checks(checks: Sequence[Check], entries: Mapping[int, str], met: Sequence[bool]) -> Counts:
    """Return how many checks there are, how many have their entry, and how many of those are met.

    A check beyond the last entry counts like any other, as in the released code: met if such an entry is written.

    Args:
        checks: those of one document, or some of them, shape [n].
        entries: what was written, see `split_entries`.
        met: shape [n]; what is said of a check without its entry does not count.

    Example:
        >>> checks = [Check(entry=i, event="rain", kind="range") for i in (2, 3, 9)]
        >>> counts = count_checks(checks, {2: "rain", 3: "sun"}, [True, False, False])
        >>> counts.stic_1, round(counts.stic_2, 3)
        (0.5, 0.333)
    """
    found = [check.entry in entries for check in checks]
    num_met = sum(there and verdict for there, verdict in zip(found, met, strict=True))
    return Counts(num_all=len(checks), num_found=sum(found), num_met=num_met)


def position_fifth(entry: int, num_entries: int) -> int:
    """Return the fifth of the text that an entry lies in, 1..5; beyond the last entry is the last fifth.

    Example:
        >>> [position_fifth(entry, 52) for entry in (1, 11, 12, 52, 53)]
        [1, 1, 2, 5, 5]
    """
    return min(5, 1 + 5 * (entry - 1) // num_entries)


def read_checks(row: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return the checks of a row: `checks_once`, `checks_range` and `checks_periodic`, maps of entry to event(s).

    Raises:
        ValueError: a field is no such map, or there is no check at all.

    Example:
        >>> read_checks({"checks_once": {"7": "a birthday"}})
        (Check(entry=7, event='a birthday', kind='once'),)
    """
    checks: list[Check] = []
    for kind in KINDS:
        given = row.get(f"checks_{kind}")
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"checks_{kind} must map entries to events, not be {type(given).__name__}")
        for entry, events in (given or {}).items():
            checks += _checks_of(entry, events, kind)
    if not checks:
        raise ValueError(f"it has no check in {', '.join(f'checks_{kind}' for kind in KINDS)}")
    return tuple(checks)


def _checks_of(entry: Any, events: Any, kind: Kind) -> Iterable[Check]:
    if not re.fullmatch(r"[0-9]{1,9}", str(entry)) or int(entry) < 1:
        raise ValueError(f"checks_{kind} has the entry {entry!r}: it must be a number from 1")
    listed = [events] if isinstance(events, str) else events
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(e, str) and e.strip() for e in listed)
    ):
        raise ValueError(f"checks_{kind} has for entry {entry} no event as a text, or a list of them")
    return [Check(entry=int(entry), event=event, kind=kind) for event in listed]
