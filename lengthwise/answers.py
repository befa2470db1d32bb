r"""Reads the final answer of a reply: of a maths problem, or of a multiple-choice question. Pure functions.

The text is the reply without its thinking part: an answer that stands in the thoughts only is no answer. The
places are tried in the order of SkyThought (arXiv 2502.07374, its evaluation code): a box, a sentence that names
the answer, GSM8K's `####`, the Chinese marker, and, only where it is asked for, the last number.

Where we differ, and why:

- The last number is not read by default: each reply that shows its working holds one, and of a reply that was cut
  it is a number of the working. `last_number=True` gives the lenient reading that GSM8K scores often rest on.
- A box that is not closed, as in a cut reply, is no box.
- A choice letter is never the article "a", nor the pronoun "I".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+([^\s{}$\\]+)")
_TO = r"answer\b(?:\s+to\b[^.\n:]{1,80}?)?[*_ \t]*"
_SENTENCES = (
    re.compile(rf"\bfinal\s+{_TO}(?:is\b\s*[:：]?|[:：]|\n)", re.IGNORECASE),
    re.compile(
        rf"\b(?:the|my|our)\s+(?:correct\s+|right\s+|best\s+)?{_TO}is\b\s*[:：]?|^\W*answer\W*[:：]",
        re.IGNORECASE | re.MULTILINE,
    ),
    # A number that has the line to itself: Markdown's headings begin so, too.
    re.compile(r"####\s*(?=[-−]?\\?\$?\s*(?:[\d.][\d,./]*)?\d%?(?:[ \t]+[A-Za-z]+){0,2}[ \t.]*(?:\n|$))"),
    re.compile(r"(?:最终)?答案(?:是|为|：|:)\s*[:：]?"),
)
"""What stands before the answer, surest first."""
_MATHS = re.compile(
    r"\$\$(.+?)\$\$|\$(?!\d[\d,.]*(?:[\s.,;]|$))(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(
    r"\n|[.!?](?=\s|\*|$)|[。！？;；]|,\s+(?!and\b|or\b)(?=[a-z]{2,})|\s+(?:because|since)\b"
)
_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?:\s*\\?%)?|[-−]?\.\d+")


def final_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""Return the final answer that a reply to a maths problem states, None if it states none.

    Args:
        text: the reply without its thinking part.
        last_number: take the last number of the text where nothing names an answer.

    Example:
        >>> final_answer(r"So \boxed{1}? No: it is \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> final_answer("The answer is 1,000 dollars. I hope it helps.")
        '1,000 dollars'
        >>> final_answer("2 + 2 = 4"), final_answer("2 + 2 = 4", last_number=True)
        (None, '4')
    """
    box = last_box(text)
    if box is not None:
        return box
    for sentence in _SENTENCES:
        found = [_stated(text[match.end() :]) for match in sentence.finditer(text)]
        stated = [answer for answer in found if answer]
        if stated:
            return stated[-1]
    numbers = _NUMBER.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def last_box(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` that is closed and not empty.

    Example:
        >>> last_box(r"\boxed{\{1, \frac{2}{3}\}} and \boxed{4")
        '\\{1, \\frac{2}{3}\\}'
    """
    for match in reversed(list(_BOX.finditer(text))):
        content = match[1] or _braced(text, match.end())
        if content and content.strip():
            return content.strip()
    return None


def gsm8k_answer(text: str) -> str:
    """Return the number after the last `####` of a GSM8K solution (arXiv 2110.14168), without its separators.

    Raises:
        ValueError: if there is none.

    Example:
        >>> gsm8k_answer("She has 2 * 650 = 1300 left. #### 1,300")
        '1300'
    """
    _, marker, answer = text.rpartition("####")
    if not marker or not answer.strip():
        raise ValueError("the answer has no number after ####")
    return answer.strip().replace(",", "")


def choice_letter(text: str, num_choices: int) -> str | None:
    r"""Return the letter that a reply to a multiple-choice question chooses, None if it chooses none.

    A letter counts where it is boxed, follows a sentence that names the answer, is the whole reply, or stands
    alone: in brackets, in bold, after the word "option" or "choice", or bare; of several of the last kinds the
    last counts. Bare letters are capitals, and a bare A or I must be followed by no word.

    Args:
        text: the reply without its thinking part.
        num_choices: the letters are the first so many, at least 2.

    Example:
        >>> choice_letter("A cat is a mammal, so (B) is right.", 4)
        'B'
        >>> choice_letter("I would take a look at a map.", 4) is None
        True
    """
    letters = ascii_uppercase[:num_choices]
    box = last_box(text)
    if box is not None:
        return _leading_letter(box, letters, any_case=True)
    for sentence in _SENTENCES:
        found = [_leading_letter(text[match.end() :], letters) for match in sentence.finditer(text)]
        stated = [letter for letter in found if letter]
        if stated:
            return stated[-1]
    whole = re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", text)
    if whole:
        return whole[1].upper()
    alone = list(_alone(letters).finditer(text))
    return next(group for group in alone[-1].groups() if group).upper() if alone else None


def choice_of_text(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one choice whose text this is, None if it is none or several.

    Example:
        >>> choice_of_text("Paris.", ["London", "Paris"])
        'B'
    """
    wanted = _words(answer)
    found = [
        letter for letter, choice in zip(ascii_uppercase, choices, strict=False) if _words(choice) == wanted
    ]
    return found[0] if len(found) == 1 and wanted else None


def _braced(text: str, start: int) -> str | None:
    """Return what the brace at `start` encloses; an escaped brace is a sign of the text."""
    depth, place = 0, start
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
        place += 1
    return None


def _stated(rest: str) -> str | None:
    """Return the answer at the start of what follows the words that name it."""
    rest = rest.lstrip(" \t*:：`\n")
    maths = _MATHS.match(rest)
    if maths:
        return next(group for group in maths.groups() if group).strip()
    end = _SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip().strip("*`").rstrip(" .,:：") or None


def _leading_letter(text: str, letters: str, *, any_case: bool = False) -> str | None:
    """Return the letter that a text begins with, if it can be no word."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"^(?:\s|[*:：`$\\{]|(?:option|choice|answer)\b)*", "", text, flags=re.IGNORECASE)
    both = letters + letters.lower()
    bare = both if any_case else letters
    found = re.match(rf"[(\[（]\s*([{both}])\s*[)\]）]|([{bare}])(?![\w'’]|-\w)", text)
    if found is None:
        return None
    letter = found[1] or found[2]
    is_word = found[2] in ("A", "I", "a", "i") and re.match(r"\s+[a-z]", text[found.end() :]) is not None
    return None if is_word else letter.upper()


def _alone(letters: str) -> re.Pattern[str]:
    """Return the pattern of a letter that stands alone, in brackets, in bold, named or bare."""
    both = letters + letters.lower()
    others = letters.replace("A", "").replace("I", "")
    return re.compile(
        rf"[(（\[]\s*([{both}])\s*[)）\]]|\*\*\s*([{letters}])\b"
        rf"|\b(?:[Oo]ption|[Cc]hoice)(?:\s+is)?\s+([{both}])\b|(?<![\w'’.-])([{others}])(?![\w'’-])"
        rf"|(?<![\w'’.-])([{letters}])(?=\s*(?:[.,;:!)]|\n|$))(?!\.\w)"
    )


def _words(text: str) -> str:
    return " ".join(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).casefold().split()).strip(" .$")
