"""Whether a text names all that an event is made of: a stand-in for a judge, by words alone, in English.

The rule: every content word of the event occurs in the text, in any order and inflection. Content words are the
event's words (letters and digits, a hyphen parts them) without those of `FUNCTION_WORDS`; inflections are folded by
`folded`, which takes off the regular endings of plurals, possessives and verbs.

It is meant to be too strict: an event that is told in other words ("the galley fire" for "a fire in the kitchen"), or
in an irregular form (broke, broken), is missed. It can err upwards too, where a text holds the words and denies
the event; how often it does, the agreement with a judge says.
"""

from __future__ import annotations

import re

_FUNCTION_WORDS = """
a about after all also an and any are as at be been before being but by can could did do does doing down
during each every for from had has have having he her here hers him his how i if in into is it its itself
just may me might more most must my near no nor not of off on once one only onto or other our out over own
same shall she should since so some such than that the their them then there these they this those through
to too under until up upon us very was we were what when where which while who whom whose why will with
within would you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that say nothing of an event by themselves."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_VOWEL = re.compile(r"[aeiouy]")


def has_event(text: str, event: str) -> bool:
    """Tell whether a text holds all content words of an event; False for an event without any.

    Example:
        >>> has_event("At dusk the cooks were repairing a torn sail.", "the cook repairs the torn sail")
        True
        >>> has_event("The cook mended the torn sail.", "the cook repairs the torn sail")
        False
    """
    wanted = content_words(event)
    return bool(wanted) and wanted <= content_words(text)


def content_words(text: str) -> frozenset[str]:
    """Return the folded content words of a text.

    Example:
        >>> sorted(content_words("The captain's two bells are ringing"))
        ['bell', 'captain', 'ring', 'two']
    """
    words = (word.replace("’", "'") for word in _WORD.findall(text.casefold()))
    return frozenset(folded(word) for word in words if word not in FUNCTION_WORDS)


def folded(word: str) -> str:
    """Return a word in small letters without its regular ending: possessive, plural, third person, -ing, -ed, final e.

    What is left is a key to compare by, not a word: forms of one word share it, and seldom another word does, too.

    Example:
        >>> [folded(word) for word in ("carries", "carried", "carrying", "stopped", "bakes", "boxes", "bed")]
        ['carri', 'carri', 'carri', 'stop', 'bak', 'box', 'bed']
    """
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and _VOWEL.search(stem):
            doubled = len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "aeioulsz"
            word = stem[:-1] if doubled else stem
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") else word
