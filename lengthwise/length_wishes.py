r"""Find the length that a prompt asks for, in English and Chinese.

A wish is a number, a unit and a relation: "around 1.5k words", "five hundred words", "500-800 words",
"不少于2000字", "一万二千字". Chinese 字 maps to the unit "words", because every bilingual counter counts one
hanzi as one word; 字符 and "characters" are characters, 词 is words.

What does not count as a wish for the whole text:

- numbers that speak of a part ("300 words each", "5 chapters of 2,000 words", "每篇400字"), a rate ("200 words per
  minute"), a given text ("this 5000-word article", "以下2000字的文章", "the first 100 words") or a list ("100 words
  list");
- vague amounts ("a few hundred words", "几千字") and fractions ("version 3.5 words");
- spelled-out numbers below 5 ("in one word", "一个字"), and hanzi numerals below 30 with neither 个 nor a
  relation, which are idioms ("十字路口", "十六字方针"); digits count from 1;
- fewer than 50 "characters", unless the text goes on with "long", "max" or the like: those are persons.

"At least 500 words, at most 800" is one wish, the range; the unit may stand at either bound, and where only one
has it and the two make no range, there is no wish. A bare number that comes back with a relation ("a 2000-word
essay ... at least 2000 words") is one wish too, and the relation wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from lengthwise.numerals import NUMBER_PATTERN, Number, read_number
from lengthwise.records import LengthTarget, Relation, Unit

LARGEST_WISH = 1_000_000
"""Numbers above this speak of corpora, not of one text."""

_FOLDED = str.maketrans(
    "０１２３４５６７８９．，：＞＜≥≤（）～〜–—－―−〇萬兩個約詞過於間內達為數長後這幾餘無單漢節",
    "0123456789.,:><><()~~-----零万两个约词过于间内达为数长后这几余无单汉节",
)
_UNIT = (
    r"(?P<more@>\s?\(?\+\)?|[\s-]plus\b|\sor\smore\b|\sand\sabove\b)?(?P<fewer@>\sor\s(?:less|fewer)\b)?"
    r"(?:\sor\sso\b)?[\s-]{0,3}[多余来]?(?P<ge@>个)?\s?"
    r"(?:(?P<chinese@>chinese|中文|汉语)\s?|(?:english|英文|英语|total)\s?)?"
    r"(?P<unit@>(?:words?|tokens?|characters?|chars?)(?![A-Za-z])|字符|汉字|单词"
    r"|字(?![路架绣军会体母幕典节段形画号词句诀结班塔迹样面条])(?!方针|真言|箴言|成语|口诀|短语|经文)"
    r"|词(?![语汇条典性组牌库根缀]))"
)
_JOIN = r"-?\s{0,2}(?P<join>-{1,2}|~|(?:up\s)?to\b|or\b|and\b|到|至|和|与|或)\s{0,2}"
_SINGLE = re.compile(rf"(?P<first>{NUMBER_PATTERN})(?:{_UNIT})?".replace("@", "1"), re.IGNORECASE)
_PAIR = re.compile(
    rf"(?P<first>{NUMBER_PATTERN})(?:{_UNIT.replace('@', '1')})?{_JOIN}"
    rf"(?P<second>{NUMBER_PATTERN})(?:{_UNIT.replace('@', '2')})?",
    re.IGNORECASE,
)

_ABOUT = (
    r"(?:(?:about|around|approximately|approx\.?|roughly|nearly|a\stotal\sof|the|an?)\s|~|≈"
    r"|[约大概共为在是到达:\s]){0,4}$"
)
_LINK = (
    r"(?:\s(?:word|token|character))?(?:\s(?:count|length|limit|total|number))?"
    r"(?:\s(?:is|of|should\sbe|must\sbe|to|at))?\s?[:=]?\s?"
)
_LESS = r"(?:(?:less|fewer|shorter|lower)\sthan|under|below|少于|低于|小于|短于|不足|不到)"
_MORE = (
    r"(?:(?:more|longer|greater|higher)\sthan|over|above|beyond|in\sexcess\sof|upwards?\sof|exceed(?:s|ing)?|"
    r"surpass(?:es|ing)?|超过|多于|大于|高于|长于|超出|多过)"
)
_NOT = (
    r"(?:(?:\bno|\bnot|\bnor|n['’]t|\bnever|\bwithout|\bcannot)\s(?:(?:be|to|go|going|run|fall|drop|have|contain)\s){0,2}"
    r"|(?:不|别|勿|莫)(?:得|能|可|要|应|应该|宜|允许)?)"
)
_AT_LEAST = re.compile(
    rf"(?:{_NOT}{_LESS}|at\sleast|\bmin(?:imum|\.)?{_LINK}|至少|最少|最低|起码|不下于?|下限|>=?)\s?{_ABOUT}",
    re.I,
)
_AT_MOST = re.compile(
    rf"(?:{_NOT}{_MORE}|at\smost|(?:\bmax(?:imum|\.)?|\blimit(?:ed)?|\bcap(?:ped)?){_LINK}|\bup\sto|\bwithin"
    rf"|至多|最多|顶多|最高|上限|限制?|<=?)\s?{_ABOUT}",
    re.I,
)
_MORE_BEFORE = re.compile(rf"{_MORE}\s?{_ABOUT}", re.I)
_LESS_BEFORE = re.compile(rf"{_LESS}\s?{_ABOUT}", re.I)
_AT_LEAST_AFTER = re.compile(
    r"[\s,(-]{0,2}(?:or\s(?:more|longer|above|over)|and\s(?:above|up|more)|at\s(?:the\svery\s)?least|min(?:imum)?\b|\+"
    r"|(?:long\s)?or\smore|(?:或|及)?(?:以上|之上|更多)|起步?(?![草源]))",
    re.I,
)
_AT_MOST_AFTER = re.compile(
    r"[\s,(-]{0,2}(?:or\s(?:less|fewer|under|below|shorter)|at\s(?:the\s)?most|max(?:imum)?\b|limit\b|tops\b"
    r"|(?:或|及)?(?:以内|之内|以下|更少)|内(?![容部涵心在外核地幕])|封顶|为限)",
    re.I,
)

_BOUND_GAP = re.compile(
    r"[\s,;、]*(?:(?:and|but|or|nor|yet|also|和|与|且|并且?|而且?|但是?|也|同时)[\s,]*){0,2}(?:an?\s)?"
    rf"(?:{_AT_LEAST.pattern}|{_AT_MOST.pattern}|{_MORE_BEFORE.pattern}|{_LESS_BEFORE.pattern})",
    re.I,
)
"""What stands between the two bounds of one range, and nothing else."""

_BETWEEN = re.compile(r"between\s(?:about\s|around\s)?$|介于约?$", re.I)

_LABEL = re.compile(
    r"(?:\b(?P<unit>word|token|character)s?[\s-](?:count|limit|length|target|minimum|maximum|budget|range|number)"
    r"|\bwords(?=\s?[:=])|(?P<hanzi>字数))"
    r"(?:[\s:=(~<>≈]|(?:is|are|of|at|be|to|should|must|between|from|around|about|approximately|roughly|least|most|no|not|"
    r"less|more|than|fewer|under|over|up|exceed|minimum|maximum|limit|a|the)\b"
    r"|[为是在约大概应该需要求须控制不少低多高超过于至最限制介得能可请保持范围目标上下])*$",
    re.I,
)
_LABEL_END = re.compile(
    r"\s{0,2}(?:$|[\n.,;!?)\]，。；！？）、]|左右|上下|以[上下内]|之[间内]|or\s(?:more|less|fewer)|max|min)",
    re.I,
)

_PARTS = (
    "chapters|sections|paragraphs|parts|essays|stories|articles|posts|answers|entries|summaries|descriptions|poems"
    "|letters|scenes|pieces"
)
_PARTS_BEFORE = re.compile(
    rf"\b(?:{_PARTS}|blogs|books|dialogues|drafts|emails|episodes|lessons|messages|monologues|pages|passages|reports"
    r"|responses|reviews|speeches|stanzas|texts|units|versions|volumes)\s(?:of|having|containing)\s"
    r"(?:(?:about|around|approximately|roughly|nearly|exactly|some|at|least|most|up|to|between|from|no|not|more|less"
    r"|fewer|than|over|under|an?|the|minimum|maximum|of|anywhere)\s|~\s?){0,5}$"
    r"|(?<![第\d一二三四五六七八九十])(?:[2-9]|[1-9]\d+|[两二三四五六七八九十几多]{1,3})(?:篇|封|则|首)"
    r"(?:大?约|不少于|不超过|至少|最多)?$",
    re.I,
)
_TOTAL_AFTER = re.compile(r"\s(?:in\s(?:total|all)|altogether|overall|combined)\b", re.I)
_ORDINAL_BEFORE = re.compile(
    r"\b(?:act|book|chapter|day|essay|exercise|item|lesson|level|no\.|number|option|page|paragraph|part|point|question"
    r"|scene|section|step|story|task|topic|unit|version|volume|week)\s?$",
    re.I,
)
"""Before "1 500 words", what makes of it the number 1 and a wish for 500."""

_NO_WISH_BEFORE = re.compile(
    r"(?:\b(?:each|every|per)\b[^.,;:!?\n]{0,40}"
    r"|\b(?:first|last|initial|opening|previous|these|those|this|that|following|attached|half|another)\s(?:of\s)?"
    r"|\b(?:I|we|he|she|they)(?:['’]ve|\shave)?\s(?:already\s)?(?:wrote|written|read|typed|have)\s(?:about\s|around\s)?"
    r"|\b(?:list|lists|learn|memori[sz]e|spell|underline|highlight|guess|define|translate)\s(?:of\s|the\s|these\s|me\s){0,2}"
    r"|\b(?:context|window|vocabulary|corpus|dataset|trained\son)\b[^.,;!?\n]{0,25}"
    r"|\d\s?\*\s?|(?<![A-Za-z])[x×]\s?"
    r"|每一?(?:篇|章|节|段|部分|条|个|小节|天|回|集|页|题|则|首|点|项|句|人|期|封|份|种|位|话|幕|场|块|道|次|日|周|单元|自然段)"
    r"[^,。;:!?！？；\n\d]{0,10}"
    r"|(?:各|分别)[^,。;:!?！？；\n\d]{0,4}|第|前|头|最后|末尾"
    r"|(?:以下|下面|这篇|这段|上面|上述|原文|那篇)(?:约|共|有|的)?"
    r"|(?:写了|已有|已写|读了|看了|删了)大?约?"
    r"|(?:列出|列举|背诵?|记住|学习|学会|找出|认识)[^,。;:!?！？；\n\d]{0,4})$",
    re.I,
)
_NO_WISH_AFTER = re.compile(
    r"\s?(?:/|each\b|apiece\b|per\b|(?:for|in|on)\s(?:each|every)\b|an?\s(?:day|page|minute|chapter|section|paragraph)\b(?!\s(?:in\sthe\sli(?:fe|ves)|of)\b)|every\b"
    r"|lists?\b|vocabulary\b|puzzle|game\b|cloud|problems?\b|like\b|such\sas\b|(?:or|and)\sphrases"
    r"|that\s(?:start|begin|end|rhyme|contain|mean|sound)|(?:starting|beginning|ending|rhyming)\b"
    rf"|(?:{_PARTS})\b|每|一[段篇章])",
    re.I,
)
_NOT_PERSONS = re.compile(
    r"\s?(?:long|in\slength|max|min|limit|or\s(?:less|fewer|more)|incl|with\sspaces|\()", re.I
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A wish with its place; or a bound without a unit, which is a wish only beside one that has it."""

    start: int
    end: int
    target: LengthTarget
    scale: int
    has_unit: bool = True


def find_length_wishes(text: str) -> list[LengthTarget]:
    """Return the distinct length wishes in `text`, in order of appearance.

    Example:
        >>> [wish.nominal for wish in find_length_wishes("写5000字，也就是五千字；另附 300-500 words")]
        [5000.0, 400.0]
    """
    folded = text.translate(_FOLDED).replace("**", "").replace("`", "")
    wishes = list(dict.fromkeys(wish.target for wish in _join_bounds(_scan(folded), folded)))
    bounded = {(w.nominal, w.unit) for w in wishes if w.relation in ("at_least", "at_most")}
    return [w for w in wishes if w.relation != "about" or (w.nominal, w.unit) not in bounded]


def parse_length_wish(text: str) -> LengthTarget | None:
    """Return the length that `text` asks for, or None if it states none, or several different ones.

    Example:
        >>> parse_length_wish("Write a story of at least two thousand words.")
        LengthTarget(min=2000, max=None, unit='words', relation='at_least')
    """
    wishes = find_length_wishes(text)
    return wishes[0] if len(wishes) == 1 else None


def _scan(text: str) -> list[_Found]:
    """Return every wish with its place, and every bound that has no unit."""
    found: list[_Found] = []
    position = 0
    while single := _SINGLE.search(text, position):
        ordinal = re.match(r"\d+(?=\s\d)", single["first"])
        if ordinal and _ORDINAL_BEFORE.search(text[max(0, single.start() - 12) : single.start()]):
            position = single.start() + ordinal.end()
            continue
        pair = _PAIR.match(text, single.start())
        bounds = _bounds(pair, text) if pair else None
        match = pair if pair and bounds else single
        numbers = bounds or (read_number(single["first"]), None)
        wish = _read(match, numbers, text)
        if wish is not None:
            found.append(wish)
        position = match.end()
    return found


def _bounds(pair: re.Match[str], text: str) -> tuple[Number, Number] | None:
    """Return both ends of a range as the speaker means them ("1-2k", "五到六百"); None if it is no range."""
    if pair["unit1"] and not pair["unit2"]:
        return None
    if pair["join"].lower() in ("and", "和", "与"):
        before, after = text[max(0, pair.start() - 30) : pair.start()], text[pair.end() : pair.end() + 3]
        if not (_BETWEEN.search(before) or after.lstrip("个").startswith(("之间", "间"))):
            return None
    first, second = read_number(pair["first"]), read_number(pair["second"])
    low = first.value * _shared_scale(int(first.value), first.scale, int(second.value), second.scale)
    if low * 20 < second.value or low > second.value * 20:
        return None  # "Part 3 - 500 words" is no range
    return Number(low, first.scale, first.spelled), second


def _shared_scale(low: int, low_scale: int, high: int, high_scale: int) -> int:
    """Return the scale that a range's lower end takes from its upper one: 1000 in "1-2k"."""
    return high_scale if low_scale == 1 and high_scale > 1 and low * high_scale <= high else 1


def _read(match: re.Match[str], numbers: tuple[Number, Number | None], text: str) -> _Found | None:
    """Turn one quantity into a wish or into a bound without a unit, or None if it is neither."""
    first, second = numbers
    before, after = text[max(0, match.start() - 80) : match.start()], text[match.end() : match.end() + 40]
    found = _Quantity(match, "2" if second else "1", before, after)
    unit = _unit(found)
    relation = _relation(found)
    if unit is None and relation == "about":
        return None
    if _NO_WISH_BEFORE.search(before) or _NO_WISH_AFTER.match(after):
        return None
    if _PARTS_BEFORE.search(before) and not _TOTAL_AFTER.match(after):
        return None
    low, high = sorted((first.value, second.value if second else first.high or first.value))
    if low.denominator != 1 or high.denominator != 1 or not 1 <= low <= high <= LARGEST_WISH:
        return None
    if not _plausible(first, int(high), unit or "words", relation, found):
        return None
    target = _target(int(low), int(high), unit or "words", relation if low == high else "range")
    return _Found(match.start(), match.end(), target, (second or first).scale, has_unit=unit is not None)


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A matched number with its unit, and the text on both sides."""

    match: re.Match[str]
    index: str
    before: str
    after: str

    def group(self, name: str) -> str | None:
        return self.match[name + self.index]


def _unit(quantity: _Quantity) -> Unit | None:
    """Return the unit after the number, else that of a label before it ("word count: 500", "字数：500")."""
    word = quantity.group("unit")
    if word is None:
        label = _LABEL.search(quantity.before) if _LABEL_END.match(quantity.after) else None
        if label is None:
            return None
        return cast(Unit, (label["unit"] or "word").lower() + "s")
    word = word.lower()
    if word.startswith("token"):
        return "tokens"
    if word == "字符" or (word.startswith("char") and not quantity.group("chinese")):
        return "characters"
    return "words"


def _relation(quantity: _Quantity) -> Relation:
    """Return how the number binds. "Not more than" must be seen before "more than"."""
    before, after = quantity.before, quantity.after
    if _AT_LEAST.search(before):
        return "at_least"
    if _AT_MOST.search(before):
        return "at_most"
    if _MORE_BEFORE.search(before):
        return "at_least"
    if _LESS_BEFORE.search(before):
        return "at_most"
    if quantity.group("more") or _AT_LEAST_AFTER.match(after):
        return "at_least"
    return "at_most" if quantity.group("fewer") or _AT_MOST_AFTER.match(after) else "about"


def _plausible(number: Number, high: int, unit: Unit, relation: Relation, quantity: _Quantity) -> bool:
    """Tell a length from idioms and persons."""
    if number.spelled and high < 5:
        return False
    after = quantity.after
    if number.spelled and not quantity.match["first"].isascii() and high < 30:
        return bool(quantity.group("ge")) or relation != "about" or after.startswith(("左右", "上下"))
    if unit != "characters" or high >= 50 or quantity.group("unit") == "字符":
        return True
    return bool(_NOT_PERSONS.match(after))


def _join_bounds(found: list[_Found], text: str) -> list[_Found]:
    """Make one range of "at least A" and "at most B" that stand side by side; bounds left without a unit are none."""
    joined: list[_Found] = []
    for wish in found:
        last = joined[-1] if joined else None
        if last is None or not _are_beside(last, wish, text):
            joined.append(wish)
            continue
        both = _range(last, wish)
        if both is not None:
            joined[-1] = both
        elif last.has_unit and wish.has_unit:
            joined.append(wish)
        else:
            joined.pop()
    return [wish for wish in joined if wish.has_unit]


def _are_beside(last: _Found, wish: _Found, text: str) -> bool:
    """Tell whether two bounds may be of one range; where one has no unit, nothing else may stand between them."""
    if last.has_unit and wish.has_unit:
        return wish.start - last.end <= 30 and last.target.unit == wish.target.unit
    if not (last.has_unit or wish.has_unit) or not _BOUND_GAP.fullmatch(text, last.end, wish.start):
        return False
    return wish.has_unit or bool(_LABEL_END.match(text, wish.end))


def _range(first: _Found, second: _Found) -> _Found | None:
    """Return the range of two bounds, None if they are no lower and upper one."""
    low, high = (first, second) if first.target.relation != "at_most" else (second, first)
    if (low.target.relation, high.target.relation) != ("at_least", "at_most"):
        return None
    unit = first.target.unit if first.has_unit else second.target.unit
    lower, upper = int(low.target.nominal), int(high.target.nominal)
    if not low.has_unit:
        lower *= _shared_scale(lower, low.scale, upper, high.scale)
    if lower >= upper:
        return None
    return _Found(first.start, second.end, _target(lower, upper, unit, "range"), high.scale)


def _target(low: int, high: int, unit: Unit, relation: Relation) -> LengthTarget:
    return LengthTarget(
        min=None if relation == "at_most" else low,
        max=None if relation == "at_least" else high,
        unit=unit,
        relation=relation,
    )
