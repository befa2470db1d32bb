from __future__ import annotations

import time

import pytest

from lengthwise.length_wishes import find_length_wishes, parse_length_wish
from lengthwise.numerals import hanzi_numeral, read_number
from lengthwise.records import LengthTarget, Unit


def about(length: int, unit: Unit = "words") -> LengthTarget:
    return LengthTarget.about(length, unit)


def least(length: int, unit: Unit = "words") -> LengthTarget:
    return LengthTarget(min=length, unit=unit, relation="at_least")


def most(length: int, unit: Unit = "words") -> LengthTarget:
    return LengthTarget(max=length, unit=unit, relation="at_most")


def between(low: int, high: int, unit: Unit = "words") -> LengthTarget:
    return LengthTarget(min=low, max=high, unit=unit, relation="range")


ENGLISH = [
    ("Write around 1.5k words.", about(1500)),
    ("Write 1,500 words on tea", about(1500)),
    ("Write a 10,000 words report", about(10_000)),
    ("a 5000-word essay", about(5000)),
    ("an 8,000-word summary", about(8000)),
    ("a 2k-word post", about(2000)),
    ("a ten thousand word story", about(10_000)),
    ("a ten-thousand-word story", about(10_000)),
    ("five hundred words please", about(500)),
    ("Use twenty-five hundred words.", about(2500)),
    ("Describe in about 400 words a day in the life of a captain.", about(400)),
    ("one thousand two hundred and fifty words", about(1250)),
    ("a thousand words about rain", about(1000)),
    ("in 3 thousand words", about(3000)),
    ("1.5 thousand words", about(1500)),
    ("2 000 words", about(2000)),
    ("500 words", about(500)),
    ("400 words.", about(400)),
    ("Uber Driver Interview Script, around 600 words", about(600)),
    ("approximately 2500 words", about(2500)),
    ("~800 words", about(800)),
    ("Write **800** words", about(800)),
    ("Write 800 **words**", about(800)),
    ("in 500 words or so", about(500)),
    ("500 or so words", about(500)),
    ("500 English words", about(500)),
    ("a 600 word plan", about(600)),
    ("words: 500", about(500)),
    ("Word count: 1,500", about(1500)),
    ("word count of 300 words", about(300)),
    ("The word count should be around 1200.", about(1200)),
    ("Length: 500 words", about(500)),
    ("Use no other language, and 700 words", about(700)),
    ("Write the next 500 words of this story", about(500)),
    ("Write in 3 words what love is", about(3)),
    # ranges
    ("500-800 words", between(500, 800)),
    ("500 – 800 words", between(500, 800)),
    ("500—800-word", between(500, 800)),
    ("a 500- to 800-word essay", between(500, 800)),
    ("from 500 to 800 words", between(500, 800)),
    ("from 500 up to 800 words", between(500, 800)),
    ("between 500 and 800 words", between(500, 800)),
    ("keep it between 4000-5000 words", between(4000, 5000)),
    ("500 words to 800 words", between(500, 800)),
    ("between 500 words and 800 words", between(500, 800)),
    ("1-2k words", between(1000, 2000)),
    ("1.5k-2k words", between(1500, 2000)),
    ("five to eight hundred words", between(500, 800)),
    ("2 to 3 thousand words", between(2000, 3000)),
    ("500 or 600 words", between(500, 600)),
    ("within the specified word limit of 7000-8000 words", between(7000, 8000)),
    ("Word count: 500-800", between(500, 800)),
    ("at least 500 words and at most 800 words", between(500, 800)),
    ("no more than 900 words but not less than 600 words", between(600, 900)),
    # the unit at one of the bounds only
    ("at least 200 and at most 400 words", between(200, 400)),
    ("no fewer than 200 and no more than 400 words", between(200, 400)),
    ("no less than 200, nor more than 400 words", between(200, 400)),
    ("more than 200 but less than 400 words", between(200, 400)),
    ("a minimum of 200 and a maximum of 400 words", between(200, 400)),
    ("at most 400 and at least 200 words", between(200, 400)),
    ("at least 200 words and at most 400.", between(200, 400)),
    ("Word count: at least 200, at most 400", between(200, 400)),
    ("at least 1 and at most 2k words", between(1000, 2000)),
    ("at least 200 words and at most 4 lines", least(200)),
    ("People over 18 should read it. At most 400 words.", most(400)),
    # thousands
    ("Write 1 500 words.", about(1500)),
    ("Write 1\u2009500 words.", about(1500)),
    ("Write 1\u202f500 words.", about(1500)),
    ("12\u00a0500 words", about(12_500)),
    ("1 500 to 2 000 words", between(1500, 2000)),
    ("Chapter 1 500 words", about(500)),
    ("In 2023 500 words", about(500)),
    ("Write 20.000 words", about(20_000)),
    ("1.500-2.000 words", between(1500, 2000)),
    ("1.250 thousand words", about(1250)),
    ("0.5k words", about(500)),
    ("5 chapters of 2,000 words in total", about(2000)),
    ("a chapter of 2,000 words", about(2000)),
    ("Write 5 chapters of 400 words, 2,000 words in total", about(2000)),
    # lower bounds
    ("at least 2000 words", least(2000)),
    ("It should be no less than 200 words", least(200)),
    ("not shorter than 400 words", least(400)),
    ("It must not be shorter than 400 words", least(400)),
    ("no fewer than 1,000 words", least(1000)),
    ("more than 800 words", least(800)),
    ("Ensure the essay is over 4000 words", least(4000)),
    ("Make sure the dialogue exceeds 4000 words", least(4000)),
    ("a minimum of 600 words", least(600)),
    ("minimum of about 600 words", least(600)),
    ("Minimum 600 words", least(600)),
    ("minimum word count of 600 words", least(600)),
    ("Minimum word count: 600", least(600)),
    ("200 words or more", least(200)),
    ("5000+ words", least(5000)),
    ("5,000-plus words", least(5000)),
    ("5000 words minimum", least(5000)),
    ("longer than 2k words", least(2000)),
    (">= 500 words", least(500)),
    ("collectively exceed 6,000 words", least(6000)),
    ("A 2000-word essay on tea. It must have at least 2000 words.", least(2000)),
    # upper bounds
    ("no more than 300 words", most(300)),
    ("under 300 words", most(300)),
    ("in less than 300 words", most(300)),
    ("fewer than 6000 words", most(6000)),
    ("within 5000 words", most(5000)),
    ("up to 500 words", most(500)),
    ("maximum of 500 words", most(500)),
    ("a maximum length of 500 words", most(500)),
    ("max 500 words", most(500)),
    ("500 words max", most(500)),
    ("500 words or less", most(500)),
    ("500 words or fewer", most(500)),
    ("must not exceed 500 words", most(500)),
    ("shouldn't exceed 500 words", most(500)),
    ("should not be longer than 500 words", most(500)),
    ("without exceeding 500 words", most(500)),
    ("limited to 500 words", most(500)),
    ("all within a 5000-word limit", most(5000)),
    ("word limit: 500", most(500)),
    ("at most 500 words", most(500)),
    # units
    ("1000 characters", about(1000, "characters")),
    ("a tweet of at most 280 characters", most(280, "characters")),
    ("up to 15 characters long", most(15, "characters")),
    ("500 Chinese characters", about(500)),
    ("500 tokens", about(500, "tokens")),
    ("at most 1k tokens", most(1000, "tokens")),
]

CHINESE = [
    ("写一篇五千字的文章", about(5000)),
    ("写一篇1.5万字的小说", about(15_000)),
    ("三千五百字", about(3500)),
    ("三千五字", about(3500)),
    ("一千零五十字", about(1050)),
    ("5000字左右", about(5000)),
    ("５０００字左右", about(5000)),
    ("约一万二千字", about(12_000)),
    ("一万二字", about(12_000)),
    ("1万2千字", about(12_000)),
    ("两千字", about(2000)),
    ("兩千字", about(2000)),
    ("二〇〇〇字", about(2000)),
    ("五百字", about(500)),
    ("百字左右的简介", about(100)),
    ("万字长文", about(10_000)),
    ("五千個字", about(5000)),
    ("5k字", about(5000)),
    ("3w字", about(30_000)),
    ("2千字", about(2000)),
    ("10,000字", about(10_000)),
    ("扩写为两千字", about(2000)),
    ("造价咨询服务进度保障措施（2000字）", about(2000)),
    ("大约要1200字的问题", about(1200)),
    ("2000多字", about(2000)),
    ("200个字", about(200)),
    ("十个字", about(10)),
    ("讲稿字数1400左右。", about(1400)),
    ("字数要求：2000左右", about(2000)),
    ("字数：2000", about(2000)),
    ("写一篇300词的英语作文", about(300)),
    ("用200个英文单词", about(200)),
    ("写一篇不少于500 words的作文", least(500)),
    ("不少于2000字", least(2000)),
    ("字数：不少于600字", least(600)),
    ("字数不低于1500", least(1500)),
    ("文章字数不低于1500字", least(1500)),
    ("至少2000字", least(2000)),
    ("超过2000字", least(2000)),
    ("2000字以上", least(2000)),
    ("篇幅在2400字以上。", least(2400)),
    ("2000字及以上", least(2000)),
    ("不得少于八百字", least(800)),
    ("不超过800字", most(800)),
    ("不要超过800字", most(800)),
    ("不多于800字", most(800)),
    ("少于800字", most(800)),
    ("200字以内", most(200)),
    ("控制在200字之内", most(200)),
    ("200字内", most(200)),
    ("最多800字", most(800)),
    ("限800字", most(800)),
    ("八百字以下", most(800)),
    ("十五字以内的标题", most(15)),
    ("800到1000字", between(800, 1000)),
    ("800字到1000字", between(800, 1000)),
    ("字数要求100至200字。", between(100, 200)),
    ("2000-3000字", between(2000, 3000)),
    ("2000～3000字", between(2000, 3000)),
    ("2000——3000字", between(2000, 3000)),
    ("1到2万字", between(10_000, 20_000)),
    ("五到六百字", between(500, 600)),
    ("一万到一万五千字", between(10_000, 15_000)),
    ("两三千字", between(2000, 3000)),
    ("500和800字之间", between(500, 800)),
    ("介于500与800字之间", between(500, 800)),
    ("不少于500字，不超过800字", between(500, 800)),
    ("不少于500，不超过800字", between(500, 800)),
    ("最少500、最多800字", between(500, 800)),
    ("字数不少于500，不超过800。", between(500, 800)),
    ("写第三篇2000字", about(2000)),
    ("写一篇2000字的文章", about(2000)),
    ("1 500字", about(1500)),
    ("500字符", about(500, "characters")),
    ("不超过140个字符", most(140, "characters")),
    ("生成500个token", about(500, "tokens")),
    # one wish in two spellings
    ("写5000字的文章，也就是五千字", about(5000)),
]

NOT_WISHES = [
    "",
    "In other words, be brief.",
    "500 people came",
    "a few words",
    "a few hundred words",
    "several thousand words",
    "hundreds of words",
    "in one word",
    "Open it in Word 2000 and save",
    "the 100 words list",
    "a list of 20 words",
    "the first 100 words of the Bible",
    "Version 3.5 words of wisdom",
    "In 2023 words like rizz became popular",
    "I speak at 200 words per minute",
    "I write 200 words a day on the train",
    "I write 200 words a day.",
    "Write five sections, 300 words each",
    "Write five 500-word sections",
    "Each chapter should have about 300 words.",
    "5 x 400 words",
    "Write 5 chapters of 2,000 words",
    "Write three essays of about 500 words.",
    "a novel in ten sections of at least 300 words",
    "six stories of between 300 and 500 words",
    "each section at least 200 and at most 400 words",
    "not less than 200 or more than 400 words",
    "at least 200 and at most 400",
    "at least 400 and at most 200 words",
    "0.500 words",
    "写三篇500字的短文",
    "写3篇约500字的短文",
    "a play with 12 characters",
    "two characters who meet",
    "GPT4 words",
    "It costs $500 words cannot say",
    "model with a context window of 4096 tokens",
    "trained on 2 trillion tokens",
    "5000",
    "a length of 3 meters",
    "word count: 3 paragraphs",
    "十字路口",
    "他写的文字很美",
    "数字经济",
    "一个字",
    "四字成语",
    "4字成语",
    "十六字方针",
    "红十字会",
    "几千字",
    "数万字",
    "第500字",
    "前500字",
    "每篇400字左右",
    "每一章不少于3000字",
    "分两部分写，各写1000字",
    "占用16字节",
    "500人参加",
    "2000元",
    "列出20个单词",
    "宣纸8字形",
]

SEVERAL = [
    "A 500-word summary and a 2000-word essay",
    "500 words and 300 words",
    "先写800字，再写1200字",
    "写2000字的小说和300字的简介",
    "500 words, 3000 characters",
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH + CHINESE)
def test_finds_the_one_wish(text: str, expected: LengthTarget) -> None:
    assert find_length_wishes(text) == [expected]
    assert parse_length_wish(text) == expected


@pytest.mark.parametrize("text", NOT_WISHES)
def test_sees_no_wish(text: str) -> None:
    assert find_length_wishes(text) == []
    assert parse_length_wish(text) is None


@pytest.mark.parametrize("text", SEVERAL)
def test_two_wishes_are_no_wish(text: str) -> None:
    assert len(find_length_wishes(text)) == 2
    assert parse_length_wish(text) is None


def test_a_given_text_is_not_the_wish() -> None:
    assert parse_length_wish("Summarise this 5000-word article in 200 words.") == about(200)
    assert parse_length_wish("请将以下2000字的文章缩写到500字") == about(500)


def test_a_total_beats_its_parts() -> None:
    assert parse_length_wish("Five chapters of 500 words each, 2,500 words in all") == about(2500)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,500", 1500),
        ("1.5k", 1500),
        ("3 thousand", 3000),
        ("a hundred", 100),
        ("二十四", 24),
        ("一百五", 150),
        ("三千零五", 3005),
    ],
)
def test_read_number(text: str, value: int) -> None:
    assert read_number(text).value == value


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (7, "七"),
        (10, "十"),
        (15, "十五"),
        (110, "一百一十"),
        (2000, "二千"),
        (2500, "二千五百"),
        (10_010, "一万零一十"),
        (120_000, "十二万"),
    ],
)
def test_hanzi_numeral(number: int, written: str) -> None:
    assert hanzi_numeral(number) == written
    assert read_number(written).value == number


def test_hanzi_numeral_refuses_zero() -> None:
    with pytest.raises(ValueError, match="not 0"):
        hanzi_numeral(0)


@pytest.mark.parametrize(
    "piece", ["1 ", "一", "five ", "500 words ", "500字", "word count: ", "   ", "-1", "1,", "at least "]
)
def test_long_prompts_take_linear_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    started = time.perf_counter()
    find_length_wishes(text)
    assert time.perf_counter() - started < 10
