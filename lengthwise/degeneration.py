"""Signs that a text went wrong: loops, cuts, refusals, echoes of its own plan. No model is asked.

Every function looks at the text alone, takes time linear in its length and never changes a score: a flag
stands beside the score, so that a table can be given with and without the flagged texts.
"""

from __future__ import annotations

import re
import zlib
from itertools import islice
from typing import Literal

Language = Literal["zh", "en", "other"]

_HANZI = re.compile(r"[\u3400-\u9fff]")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_OTHER_WORD = re.compile(r"[^\W\d_A-Za-z\u00c0-\u024f\u3040-\u30ff\u3400-\u9fff]+")
CHINESE_UNIT = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")
"""Of Chinese texts: a run of ASCII, or one other character."""

NGRAM_WORDS = 10
"""Self-Lengthen's n for texts in spaced scripts (2410.23933): 10 whitespace words."""
NGRAM_CHINESE = 13
"""Self-Lengthen's n for Chinese: 13 units, a unit being one non-ASCII character or one run of ASCII."""


def language(text: str) -> Language:
    """Return the language of `text` by its scripts: hanzi "zh", Latin letters "en", anything else "other".

    Hanzi weigh as words of 1.6 characters. A text with more than a tenth of kana among its hanzi is
    Japanese, hence "other"; languages that share the Latin script all count as "en".

    Example:
        >>> language("使用GPT模型写作"), language("Bonjour"), language("Привет, мир"), language("")
        ('zh', 'en', 'other', 'other')
    """
    num_hanzi, num_kana = len(_HANZI.findall(text)), len(_KANA.findall(text))
    chinese, latin, other = num_hanzi / 1.6, len(_LATIN_WORD.findall(text)), len(_OTHER_WORD.findall(text))
    if num_kana > 0.1 * (num_hanzi + num_kana):
        chinese, other = 0.0, other + num_hanzi + num_kana
    if max(chinese, latin) <= other:
        return "other"
    return "zh" if chinese >= latin else "en"


def text_units(text: str, chinese: bool) -> list[str]:
    """Return what n-grams are made of: whitespace words; in Chinese one non-ASCII character or one run of ASCII."""
    return CHINESE_UNIT.findall(text) if chinese else text.split()


def _ngram_hashes(units: list[str], n: int) -> list[int]:
    """Hash every n-gram; 64-bit hashes keep a text of a million characters in tens of megabytes."""
    return list(map(hash, zip(*(islice(units, i, None) for i in range(n)), strict=False)))


def repeated_ngram_frac(text: str, n: int | None = None) -> float:
    """Return the share of n-grams that occurred before in the text, 0..1; 0 for a text of under n units.

    Units and the default n follow Self-Lengthen's repetition rule: 10 whitespace words, and for Chinese 13
    units of one character or one run of ASCII.

    Example:
        >>> repeated_ngram_frac("a b a b a b", n=2)
        0.6
    """
    chinese = language(text) == "zh"
    if n is None:
        n = NGRAM_CHINESE if chinese else NGRAM_WORDS
    hashes = _ngram_hashes(text_units(text, chinese), _checked(n))
    return 1 - len(set(hashes)) / len(hashes) if hashes else 0.0


def has_repeated_ngram(text: str, language_code: Language | None = None) -> bool:
    """Tell whether any n-gram occurs twice: the strict gate of Self-Lengthen (2410.23933, released code).

    Args:
        text: the text to look at.
        language_code: "zh" for the Chinese rule, else the rule for words; None decides by script.
    """
    chinese = (language_code or language(text)) == "zh"
    hashes = _ngram_hashes(text_units(text, chinese), NGRAM_CHINESE if chinese else NGRAM_WORDS)
    return len(set(hashes)) < len(hashes)


def overlap_frac(section: str, earlier_text: str, n: int = 10) -> float:
    """Return the share of the section's n-grams that the earlier text holds too, 0..1.

    The units follow the section's language, as in `repeated_ngram_frac`.

    Example:
        >>> overlap_frac("the cat sat down", "and the cat sat up", n=2)
        0.6666666666666666
    """
    chinese = language(section) == "zh"
    hashes = _ngram_hashes(text_units(section, chinese), _checked(n))
    if not hashes:
        return 0.0
    earlier = set(_ngram_hashes(text_units(earlier_text, chinese), n))
    return sum(h in earlier for h in hashes) / len(hashes)


def _checked(n: int) -> int:
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}: it is the number of units in an n-gram")
    return n


def zlib_ratio(text: str) -> float:
    """Return compressed bytes over bytes: low for a loop, 1.0 for an empty text, above 1 for a few words.

    English prose and Chinese alike lie near 0.45 at some thousand words, a loop of one sentence near 0.01.
    """
    data = text.encode("utf-8", "surrogatepass")
    return len(zlib.compress(data)) / len(data) if data else 1.0


# The endings that Self-Lengthen's gate accepts for English and for Chinese; here each language may use both.
_ENGLISH_ENDINGS = ".!?,;:-\"')]}>`"
_CHINESE_ENDINGS = "。！？”’）】』」》〉〕…)]}>`"
CLEAN_ENDINGS = frozenset(_ENGLISH_ENDINGS + _CHINESE_ENDINGS)


def ends_cleanly(text: str) -> bool:
    """Tell whether the last character closes a sentence, a quote or a bracket.

    This is the first rule of Self-Lengthen's gate (2410.23933, released code), with both languages' marks
    accepted for both: the original's Chinese rule rejects an English text that ends in a full stop. Closing
    emphasis ("**The end.**") is looked through. A comma or hyphen passes, as in the original.
    """
    text = text.rstrip().rstrip("*_").rstrip()
    return bool(text) and text[-1] in CLEAN_ENDINGS


def is_truncated(text: str, finish_reason: str | None) -> bool:
    """Tell whether a text was cut: by the engine's own word, else (None) by its last character.

    A text that stopped by itself is not cut, even if it ends in a signature; "length", "abort" and
    "content_filter" all mean that the model had not finished.
    """
    if finish_reason is None:
        return not ends_cleanly(text)
    return finish_reason != "stop"


_SORRY = r"(?:(?:(?:i am|i['’]m) (?:very |so |really |truly )?(?:sorry|afraid)|sorry)\b)"
_MODEL = r"(?:(?:ai|artificial intelligence)(?: (?:language )?model| assistant)?|(?:large )?language model)"
_CANNOT = (
    r"(?:can(?:no|['’])t|can not|won['’]t|will not|must decline"
    r"|(?:am|['’]m) (?:unable|not able) to)"
)
_SERVE = (
    r"(?:help(?! but| myself| feeling| thinking| wondering| it\b)|assist|comply"
    r"|write(?! to| you| more| back| often| home)|fulfil+|provide"
    r"|create|generate|produce|engage|discuss|complete|accommodate|support|participate)"
)
_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:{_SORRY}|(?:i |my )?apolog(?:i[sz]e|ies)|unfortunately|regrettably)\b[^.!?\n]{{0,60}}?"
        rf"[.,!:;—-]?\s*(?:but |that |however,? )*(?:as an ai[^.\n]{{0,40}}?,? )?"
        rf"\bi ?{_CANNOT} (?:be able to )?{_SERVE}\b",
        rf"(?:{_SORRY},? (?:but )?)?(?:as|i am|i['’]m) an? (?:\w+ )?{_MODEL}(?:,| and\b)[^.\n]{{0,50}}?\bi? ?"
        rf"(?:{_CANNOT}|do not|don['’]t|am not|['’]m not|lack)\b"
        r"(?![\s\S]{0,250}\b(?:however|nevertheless|that said|here (?:is|are)|here['’]s|i can)\b)",
        rf"i ?{_CANNOT} (?:help|assist|comply|fulfil+)\b(?: you)? ?(?:with|that|this|your|in)",
        rf"i ?{_CANNOT} {_SERVE}\b[^.\n]{{0,80}}\b(?:request|content|of (?:that|this|such) length"
        rf"|(?:single|one) (?:response|reply|message)|[\d,]+[- ]words?|material)\b",
        r"(?:很|非常|十分|实在|真的)?(?:抱歉|对不起|不好意思|遗憾)[^。！？\n]{0,30}?"
        r"(?:无法|不能|没办法|没有办法|不便|不会)[^。！？\n]{0,12}?(?:提供|协助|满足|回答|生成|撰写|创作|讨论|处理|执行|回应|参与"
        r"|帮[您你]|帮助[您你]|完成[您你这该此])",
        r"(?:作为|身为|我是)(?:一个|一名|一款|一种)?(?:ai|人工智能|大?型?语言模型|大模型)[^。！？\n]{0,40}?"
        r"(?:无法|不能|没有办法|不会|不具备|没有能力)",
        r"我(?:无法|不能|没办法)(?:为[您你])?(?:提供|协助|满足|完成|回答|生成|撰写|讨论|处理)"
        r"[^。！？\n]{0,20}?(?:请求|要求|问题|内容|话题|任务|服务|信息|建议)",
    )
)


def is_refusal(text: str) -> bool:
    """Tell whether the text opens by declining the task, in English or Chinese.

    Only the opening counts (an apology later on is part of the text), and an opening in quotation marks is
    somebody speaking. The rule prefers to miss a refusal over flagging a story.

    Example:
        >>> is_refusal("I'm sorry, but I can't write a 20,000-word novel.")
        True
        >>> is_refusal("I can't write to you, my love.")
        False
    """
    opening = text.lstrip(" \t\r\n*_#>")[:300]
    return any(pattern.match(opening) for pattern in _REFUSALS)


_CONCLUSION = re.compile(
    r"^[ \t\u3000#*_>]{0,12}(?:(?:in (?:conclusion|summary|closing)|to (?:conclude|sum up|summari[sz]e)|"
    r"all in all|as a conclusion)\b|conclusion\s*[:*]{0,3}\s*$|总之|总而言之|综上|总的来说|总体而言|总的来看|"
    r"总结(?:来说|一下|起来)|(?:结语|结论|总结)\s*[:：*]{0,3}\s*$)",
    re.IGNORECASE | re.MULTILINE,
)


def early_conclusion(text: str) -> bool:
    r"""Tell whether a paragraph opens like an ending ("In conclusion", "总之"), wrong before the last part.

    Example:
        >>> early_conclusion("The sea rose.\n\nIn conclusion, we must act.")
        True
        >>> early_conclusion("It was, in conclusion, so.")
        False
    """
    return _CONCLUSION.search(text) is not None


_NUMERAL = r"(?:\d{1,3}|[ivxIVX]{1,5}|one|two|three|four|five|six|seven|eight|nine|ten)"
_LABEL = re.compile(
    rf"(?P<heading>#{{1,6}}[ \t]+)?[*_\[(【]{{0,3}}"
    rf"(?:(?:paragraph|section|part|step)[ \t]{{0,2}}#?{_NUMERAL}(?!\.?\d)"
    r"(?:[ \t]{0,2}(?:of|/)[ \t]{0,2}\d{1,3})?"
    r"|第[ \t]?[\d一二三四五六七八九十]{1,3}[ \t]?(?:段落?|部分|步|小节)"
    r"|(?:段落|步骤|部分)[ \t]?[\d一二三四五六七八九十]{1,3})"
    r"[*_\])】]{0,3}[ \t]{0,2}(?:[:：.、\-–—]{1,2}[*_]{0,3}[ \t]{0,4}|(?=\r?\n|\Z))",
    re.IGNORECASE,
)
_PLAN_ECHO = re.compile(r"main point|word count|要点|主要内容|字数", re.IGNORECASE)


def strip_section_label(text: str) -> str:
    """Remove the echo of a plan step that opens a section: "Paragraph 3:", "## Section 2 -", "第三段：".

    A first line that repeats the whole plan step ("Paragraph 3 - Main Point: ... - Word Count: ...") goes
    as a whole; a title after the label stays, under its heading marks. Chapters keep theirs: books have them.

    Example:
        >>> strip_section_label("**Paragraph 3:** The rain began.")
        'The rain began.'
        >>> strip_section_label("Section 2 of the act says no.")
        'Section 2 of the act says no.'
    """
    stripped = text.lstrip()
    label = _LABEL.match(stripped)
    if label is None:
        return text
    line, _, rest = stripped[label.end() :].partition("\n")
    if _PLAN_ECHO.match(line.lstrip("*_ ")) or not line.strip():
        return rest.lstrip()
    body = stripped[label.end() :]
    title = body.partition("\n")[0].rstrip()
    # A bold title's opening marks went with the label.
    opening = "**" if title.endswith("**") and title.count("**") % 2 else ""
    return (label["heading"] or "") + opening + body


REPETITIVE_FRAC = 0.1
"""Share of repeated n-grams from which evaluations and reports call a text repetitive."""


def flags(text: str, finish_reason: str | None) -> dict[str, bool | float]:
    """Return every sign at once, as sample files store it.

    `empty`, `truncated` and `refusal` are booleans; `repetition` is `repeated_ngram_frac` and `zlib_ratio`
    the compressibility, both left as numbers so that a table may choose its own limit.
    """
    return {
        "empty": not text.strip(),
        "truncated": is_truncated(text, finish_reason),
        "repetition": repeated_ngram_frac(text),
        "zlib_ratio": zlib_ratio(text),
        "refusal": is_refusal(text),
    }
