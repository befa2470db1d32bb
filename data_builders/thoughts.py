"""Thinking and solution: told apart in a teacher's answer, put together as a training row has them, cut into steps.

Two ways to mark them are known (arXiv 2502.07374 and the Sky-T1 release): `think`, the tags that most models and chat
templates have, and `sky_t1`, plain words around both parts. Steps are what the structural perturbations of that paper
move: there a language model cut them, here the words that announce a change of mind do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Marks = Literal["think", "sky_t1"]

_SKY = tuple(f"<|{edge}_of_{part}|>" for part in ("thought", "solution") for edge in ("begin", "end"))
_THINK = ("<think>", "</think>")

KEYWORDS = (
    "alternatively", "wait", "just to be thorough", "just to make sure", "let me just double-check",
    "let me try another", "let me verify", "let me check", "let me think again", "hmm", "but",
    "maybe i should consider", "maybe i can consider",
)  # fmt: skip
"""What opens a reflection (2502.07374, section 4 and appendix B, the latter from memory)."""

_KEYWORD = re.compile(rf"\W*(?:{'|'.join(map(re.escape, KEYWORDS))})\b", re.IGNORECASE)


class NoThought(ValueError):
    """An answer whose thinking cannot be told from its solution; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer in its two parts."""

    thinking: str
    solution: str

    def marked(self, marks: Marks) -> str:
        r"""Return the answer as a training row has it.

        Example:
            >>> Thought("Two and two.", "Four.").marked("think")
            '<think>\nTwo and two.\n</think>\n\nFour.'
        """
        if marks == "think":
            return f"<think>\n{self.thinking}\n</think>\n\n{self.solution}"
        begin, end, open_solution, close_solution = _SKY
        return (
            f"{begin}\n\n{self.thinking}\n\n{end}\n\n{open_solution}\n\n{self.solution}\n\n{close_solution}"
        )


def read_thought(text: str, reasoning: str | None = None) -> Thought:
    r"""Return the two parts of an answer that a teacher marked, by either kind of marks.

    Args:
        text: the answer.
        reasoning: the thinking part, where the engine has parted it from the answer already.

    Raises:
        NoThought: no marks, marks that are missing, twice there or out of order, or an empty part.

    Example:
        >>> read_thought("<think>Two and two.</think>Four.")
        Thought(thinking='Two and two.', solution='Four.')
    """
    if reasoning is not None:
        return _whole(reasoning, text)
    if _SKY[0] in text:
        return _between(text, _SKY)
    if _THINK[1] in text:
        opened = text if _THINK[0] in text else _THINK[0] + text  # the template may have opened the part
        return _between(opened, _THINK)
    raise NoThought("not marked" if _THINK[0] not in text else "never ends")


def _between(text: str, marks: tuple[str, ...]) -> Thought:
    if any(text.count(mark) != 1 for mark in marks):
        raise NoThought("marks missing or repeated")
    places = [text.index(mark) for mark in marks]
    if places != sorted(places) or text[: places[0]].strip():
        raise NoThought("marks out of order")
    thinking = text[places[0] + len(marks[0]) : places[1]]
    rest = text[places[1] + len(marks[1]) :]
    if len(marks) == 4:
        rest = text[places[2] + len(marks[2]) : places[3]]
    return _whole(thinking, rest)


def _whole(thinking: str, solution: str) -> Thought:
    if not thinking.strip() or not solution.strip():
        raise NoThought("an empty part")
    if any(mark in part for part in (thinking, solution) for mark in (*_SKY, *_THINK)):
        raise NoThought("marks missing or repeated")
    return Thought(thinking.strip(), solution.strip())


def marks_of(text: str) -> Marks:
    """Return how an answer's two parts are marked.

    Example:
        >>> marks_of("<think>a</think>b")
        'think'
    """
    return "sky_t1" if _SKY[0] in text else "think"


def steps(thinking: str) -> list[str]:
    r"""Cut thinking into steps: paragraphs, each new step beginning at one that opens with a keyword.

    Joined by blank lines they give the paragraphs again; other white space between paragraphs is lost.

    Example:
        >>> steps("2 + 2 is 5.\n\nSo 5.\n\nWait, it is 4.\n\nYes.")
        ['2 + 2 is 5.\n\nSo 5.', 'Wait, it is 4.\n\nYes.']
    """
    found: list[str] = []
    for paragraph in filter(str.strip, re.split(r"\n[ \t]*\n", thinking)):
        paragraph = paragraph.strip("\n")
        if found and not opens_with_keyword(paragraph):
            found[-1] += f"\n\n{paragraph}"
        else:
            found.append(paragraph)
    return found


def opens_with_keyword(text: str) -> bool:
    """Tell whether a paragraph or a sentence announces a change of mind.

    Example:
        >>> opens_with_keyword("Hmm, wait"), opens_with_keyword("Butter is fat")
        (True, False)
    """
    return _KEYWORD.match(text) is not None
