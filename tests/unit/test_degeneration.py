from __future__ import annotations

import random
import time

import pytest

from lengthwise.degeneration import (
    early_conclusion,
    ends_cleanly,
    flags,
    has_repeated_ngram,
    is_refusal,
    is_truncated,
    language,
    overlap_frac,
    repeated_ngram_frac,
    strip_section_label,
    zlib_ratio,
)


def prose(num_words: int, seed: int = 0) -> str:
    """Return words that never loop."""
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**9)}" for _ in range(num_words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A plain English sentence.", "en"),
        ("这是一个普通的中文句子。", "zh"),
        ("使用GPT模型和LoRA训练。", "zh"),
        ("The word 你好 means hello in Chinese.", "en"),
        ("Ein deutscher Satz.", "en"),
        ("これは日本語の文章です。", "other"),
        ("한국어 문장입니다", "other"),
        ("Это русский текст", "other"),
        ("12345 !?", "other"),
        ("", "other"),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert language(text) == expected


def test_repetition_counts_what_came_before() -> None:
    assert repeated_ngram_frac("a b a b a b", n=2) == pytest.approx(3 / 5)
    assert repeated_ngram_frac("a b c d", n=2) == 0
    assert repeated_ngram_frac("one two", n=10) == 0
    assert repeated_ngram_frac("") == 0
    assert repeated_ngram_frac("the same line again and again it says. " * 100) > 0.95
    assert repeated_ngram_frac("今天天气很好，我们去公园散步吧。" * 100) > 0.95
    with pytest.raises(ValueError, match="n must be at least 1"):
        repeated_ngram_frac("a", n=0)


def test_one_repeat_is_enough_for_the_strict_rule() -> None:
    text = prose(500)
    assert not has_repeated_ngram(text)
    assert has_repeated_ngram(text + " " + " ".join(text.split()[100:110]))


def test_overlap() -> None:
    earlier = prose(300)
    copied = " ".join(earlier.split()[50:150])
    assert overlap_frac(copied, earlier) == 1
    assert overlap_frac(prose(100, seed=1), earlier) == 0
    assert 0.4 < overlap_frac(copied + " " + prose(100, seed=2), earlier) < 0.5
    assert overlap_frac("short", earlier) == 0
    assert overlap_frac("春江潮水连海平，海上明月共潮生。", "有诗云：春江潮水连海平，海上明月共潮生。") == 1


def test_zlib_ratio() -> None:
    assert zlib_ratio("again and again " * 500) < 0.02
    assert zlib_ratio(prose(500)) > 0.4
    assert zlib_ratio("") == 1
    assert zlib_ratio("\ud800") > 0


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I am sorry, but I cannot write a 20,000-word novel in one response.",
        "Sorry, I can't provide that.",
        "I apologize, but I am unable to generate content of that length.",
        "Unfortunately, I cannot create such a long text.",
        "I'm afraid I won't be able to help you with this.",
        "I'm really sorry that you feel this way, but I'm unable to provide the help you need.",
        "As an AI language model, I cannot write a whole book.",
        "As an AI, I don't have a house, so I cannot describe it.",
        "As a responsible AI language model, I cannot provide advice on this.",
        "I'm sorry, but as an AI language model, I do not have access to the article.",
        "I'm sorry, I am an AI language model and do not have access to market data.",
        "I can't assist with that.",
        "I cannot fulfill your request.",
        "I won't write this content.",
        "**I'm sorry**, but I can't help with that",
        "抱歉，我无法满足这个请求。",
        "很抱歉，我不能为您提供这方面的内容。",
        "对不起，我无法生成超过一万字的文章。",
        "非常抱歉，作为一个AI语言模型，我没有办法撰写这么长的内容。",
        "作为一个人工智能语言模型，我无法提供医疗建议。",
        "我无法为您提供该请求的内容。",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Once upon a time there was a king.",
        "I can't write to you without weeping, my love.",
        "I cannot forget the summer of 1994.",
        "\"I'm sorry, but I can't help you,\" said the guard.",
        "I'm sorry to hear about your loss. Here is a letter that may help.",
        "Sorry, the shop was closed. I cannot say I minded.",
        "Unfortunately, the war came. We fled.",
        "The rain fell. I'm sorry, but I can't help with that, she said.",
        "As an AI researcher, Maria loved her work.",
        "I'm sorry I cannot write more often, Mother.",
        "As an AI, I don't have a house. However, here is one I would like.",
        "I'm sorry, but I do not share your joy.",
        "I'm afraid I can't help but wonder where she went.",
        "对不起，我爱你。",
        "抱歉让你久等了，下面是文章。",
        "我不能忘记那个夏天。",
        "作为一名人工智能专家，他的研究影响深远。",
        "“抱歉，我无法帮助您。”卫兵说。",
    ],
)
def test_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text", ["The end.", "Done!\n\n", '"Yes."', "完。", "“好！”", "他走了……", "**The end.**", "`x`", "(a)"]
)
def test_clean_endings(text: str) -> None:
    assert ends_cleanly(text)


@pytest.mark.parametrize("text", ["", "   ", "and then the", "然后他", "the 3", "**bold"])
def test_cut_endings(text: str) -> None:
    assert not ends_cleanly(text)


def test_the_engine_knows_best_about_cuts() -> None:
    assert is_truncated("A full sentence.", "length")
    assert is_truncated("A full sentence.", "abort")
    assert not is_truncated("Yours, John", "stop")
    assert is_truncated("and then the", None)
    assert not is_truncated("A full sentence.", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The sea rose.\n\nIn conclusion, we act.", True),
        ("To sum up, it rained.", True),
        ("## Conclusion\n\nIt rained.", True),
        ("**In summary**, it rained.", True),
        ("海水上涨。\n\n总之，我们要行动。", True),
        ("\u3000\u3000综上所述，我们要行动。", True),
        ("综上所述，我们要行动。", True),
        ("It came in conclusion of a long war.", False),
        ("Conclusion of the treaty took years.", False),
        ("他总之不来。", False),
    ],
)
def test_early_conclusion(text: str, expected: bool) -> None:
    assert early_conclusion(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paragraph 3: The rain.", "The rain."),
        ("paragraph 3 - The rain.", "The rain."),
        ("**Paragraph 3:** The rain.", "The rain."),
        ("**Paragraph 3**\n\nThe rain.", "The rain."),
        ("### Section 2\n\nThe rain.", "The rain."),
        ("## Section 2: The Economy\n\nIt grew.", "## The Economy\n\nIt grew."),
        ("Part IV: The rain.", "The rain."),
        ("[Paragraph 12] \nThe rain.", "The rain."),
        ("Paragraph 1 of 15: The rain.", "The rain."),
        ("Step 2. The rain.", "The rain."),
        ("\n\nSection two:\nThe rain.", "The rain."),
        ("Paragraph 1 - Main Point: rain - Word Count: 400 words\n\nThe rain.", "The rain."),
        ("第三段：雨下了。", "雨下了。"),
        ("第3段\n雨下了。", "雨下了。"),
        ("段落3：雨下了。", "雨下了。"),
        ("步骤三：雨下了。", "雨下了。"),
        ("**第二部分：**雨下了。", "雨下了。"),
        ("第一段 - 要点：下雨 - 字数：400字\n\n雨下了。", "雨下了。"),
        ("Section 2 of the act says no.", "Section 2 of the act says no."),
        ("Section 2.1 Rain\n", "Section 2.1 Rain\n"),
        ("Part of me died.", "Part of me died."),
        ("Step into the light.", "Step into the light."),
        ("Chapter 3: The Storm", "Chapter 3: The Storm"),
        ("第三段感情来了。", "第三段感情来了。"),
        ("第一章 风暴", "第一章 风暴"),
        ("The rain. Paragraph 3: no.", "The rain. Paragraph 3: no."),
        ("", ""),
    ],
)
def test_strip_section_label(text: str, expected: str) -> None:
    assert strip_section_label(text) == expected


def test_flags() -> None:
    assert flags("  ", "stop") == {
        "empty": True,
        "truncated": False,
        "repetition": 0.0,
        "zlib_ratio": pytest.approx(5.0),
        "refusal": False,
    }
    loop = flags("the same words over and over again in a loop " * 200, "length")
    assert loop["truncated"] and not loop["empty"]
    assert loop["repetition"] > 0.9 and loop["zlib_ratio"] < 0.05


LARGE_TEXTS = {
    "loop": "word " * 200_000,
    "prose": prose(100_000),
    "hanzi": "字" * 300_000,
    "one word": "a" * 1_000_000,
    "newlines": "\n" * 1_000_000,
    "marks": "# " * 500_000,
    "sorry": "sorry " * 200_000,
    "mixed": "a字" * 250_000,
    "stars": "*" * 1_000_000,
    "ordinals": "第" * 300_000,
}


@pytest.mark.parametrize("text", LARGE_TEXTS.values(), ids=LARGE_TEXTS.keys())
def test_a_megabyte_takes_seconds(text: str) -> None:
    started = time.perf_counter()
    flags(text, "stop")
    early_conclusion(text)
    strip_section_label(text)
    assert time.perf_counter() - started < 15
