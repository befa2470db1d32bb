"""Rewards: values worked out by hand, what a row must have, and how a reward of ours becomes one of TRL's."""

from __future__ import annotations

import pytest
from trl.rewards import get_soft_overlong_punishment

from lengthwise.answer_process import Comparison, ComparisonFailed
from lengthwise.plugins import load_plugin, plugin_names
from posttrain.length_rewards import band, lcpo_max, length_range, soft_overlong, triangular, two_sided
from posttrain.rewarded import Rewarded, trl_reward
from posttrain.rewards import (
    answer_correct,
    budget_length,
    lcpo,
    length_target,
    repetition,
    tags,
)
from posttrain.rewards import length_range as length_range_reward
from posttrain.rewards import soft_overlong as soft_overlong_reward


def completion(text: str = "", num_tokens: int = 0, **row) -> Rewarded:
    return Rewarded(text=text, num_tokens=num_tokens, row=row)


def test_the_triangle_and_the_band():
    assert [triangular(n, 100, top=2) for n in (0, 25, 100, 175, 200, 999)] == [0, 0.5, 2, 0.5, 0, 0]
    assert [band(n, 100) for n in (0, 25, 100)] == [1, 1, 1]
    assert all(band(n, 100) == triangular(n, 100) for n in range(100, 300))
    with pytest.raises(ValueError, match="budget is 0"):
        triangular(5, 0)


def test_soft_overlong_is_trls():
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = [1, 79, 80, 81, 90, 99, 100, 101, 500]
    given = theirs(completion_ids=[[0] * n for n in lengths])
    assert [soft_overlong(n, limit=100, buffer=20) for n in lengths] == pytest.approx(given)


def test_lengths_around_a_target():
    assert [two_sided(n, 100, tolerance=0.2, zero_at=0.5) for n in (80, 120, 135, 150, 160)] == pytest.approx(
        [1, 1, 0.5, 0, 0]
    )
    assert [length_range(n, lower=10, upper=20, limit=40) for n in (0, 5, 10, 20, 30, 40, 90)] == [
        0, 0.5, 1, 1, 0.5, 0, 0,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="they must rise"):
        length_range(5, lower=20, upper=10, limit=40)
    assert lcpo_max(10_000, 1_000, correct=1) == 0 and lcpo_max(500, 1_000, correct=0) == 0


@pytest.mark.parametrize(
    ("text", "gold", "worth"),
    [
        ("The answer is 42.", "42", 1.0),
        ("So it is 41", "42", 0.0),
        ("I do not know", "42", 0.0),
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        ("#### 1,000", "5 * 200 = 1000\n#### 1000", 1.0),
    ],
)
def test_answers_are_compared_as_in_evaluations(text, gold, worth):
    assert answer_correct.score(completion(text, answer=gold), answer_correct.Config()) == worth


@pytest.mark.parametrize(
    ("text", "prompt_end", "worth"),
    [
        ("<think>6 or 42?</think>It is 42.", "", 1.0),
        ("<think>42?</think>It is 6.", "", 0.0),
        ("So 42</think> 6", "<|assistant|><think>\n", 0.0),
        ("It must be 42", "<|assistant|><think>\n", 0.0),
        ("5 + 37 <answer>42</answer> of 50", "", 1.0),
        ("<answer>6</answer><answer> 42 </answer>", "", 1.0),
        ("42 <answer>6</answer>", "", 0.0),
        ("<answer>42", "", 1.0),
        ("<think>so 42", "", 0.0),
        ("<think>6</think> then <think>42", "", 0.0),
    ],
)
def test_the_answer_stands_behind_the_thinking_and_in_its_tags(text, prompt_end, worth):
    given = Rewarded(text=text, num_tokens=9, prompt_end=prompt_end, row={"answer": "42"})
    assert answer_correct.score(given, answer_correct.Config()) == worth


def test_a_cut_completion_is_wrong_and_otherwise_its_last_number_is_of_the_working():
    working, boxed = "First 5 + 37 = 42, then", r"It is \boxed{42}, since"
    for text, worth in ((working, 0.0), (boxed, 1.0)):
        cut = Rewarded(text=text, num_tokens=9, is_cut=True, row={"answer": "42"})
        assert answer_correct.score(cut, answer_correct.Config()) == 0.0
        assert answer_correct.score(cut, answer_correct.Config(cut_is_wrong=False)) == worth


@pytest.mark.parametrize(
    ("module", "given"),
    [
        (length_target, {"counter": "words"}),
        (length_target, {"tolerance": 3}),
        (soft_overlong_reward, {"limit": 10, "buffer": 20}),
        (length_range_reward, {"limit": 9, "counter": "no"}),
    ],
)
def test_options_that_could_not_score_are_refused_at_once(module, given):
    with pytest.raises(ValueError, match="counter is|tolerance is|buffer is"):
        module.Config(**given)


def test_what_nobody_can_compare_is_not_scored(monkeypatch):
    def dead(given, gold):
        raise ComparisonFailed("no process")

    monkeypatch.setattr(answer_correct, "compare_answers", dead)
    assert answer_correct.score(completion("It is 42.", answer="42"), answer_correct.Config()) is None
    config = lcpo.Config()
    assert lcpo.score(completion("It is 42.", 10, answer="42", token_budget=10), config) is None
    monkeypatch.setattr(
        answer_correct, "compare_answers", lambda given, gold: Comparison(False, "timed out twice")
    )
    assert answer_correct.score(completion("It is 42.", answer="42"), answer_correct.Config()) is None


@pytest.mark.parametrize(
    ("text", "prompt_end", "worth"),
    [
        ("<think>a</think><answer>b</answer>", "", 1.0),
        ("a</think><answer>b</answer>", "<|assistant|><think>\n", 1.0),
        ("a</think><answer>b</answer>", "", 0.5),
        ("<think></think><answer>b</answer>", "", 0.5),
        ("<think>a</think>b", "", 0.5),
        ("<think>a</think><answer>b</answer><answer>c</answer>", "", 0.5),
        ("<answer>b</answer><think>a</think>", "", 0.0),
        ("<think>a<answer>b</answer></think>", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_pairs_of_tags(text, prompt_end, worth):
    given = Rewarded(text=text, num_tokens=1, prompt_end=prompt_end)
    assert tags.score(given, tags.Config()) == worth


@pytest.mark.parametrize(
    ("text", "tokens", "wish", "worth"),
    [
        ("one two three four", 9, 4, 1.0),
        ("one two three four", 9, "about 8 words", 0.5 / 0.9),
        ("今天天气", 9, "about 4 words", 1.0),
        ("one two", 9, {"min": 1, "max": 3, "relation": "range"}, 1.0),
        ("one two", 9, {"min": 4, "relation": "at_least"}, 0.5),
        ("one", 9, {"max": 4, "relation": "at_most"}, 1.0),
        ("one", 10, {"min": 10, "max": 10, "unit": "tokens"}, 1.0),
    ],
)
def test_lengths_that_rows_ask_for(text, tokens, wish, worth):
    found = length_target.score(completion(text, tokens, length=wish), length_target.Config())
    assert found == pytest.approx(worth)


def test_a_row_without_what_its_reward_needs_is_refused():
    with pytest.raises(ValueError, match="a row has no 'answer': name its column with column"):
        answer_correct.score(completion("1"), answer_correct.Config())
    with pytest.raises(ValueError, match="the prompt states no budget"):
        budget_length.score(completion("1", 1), budget_length.Config())
    with pytest.raises(ValueError, match="a row has no length"):
        length_target.score(completion("1", 1), length_target.Config())
    with pytest.raises(ValueError, match=r"write \[lower, upper\]"):
        length_range_reward.score(completion("1", 1), length_range_reward.Config(limit=9))


def test_repetition_costs():
    assert repetition.score(completion("a b c d"), repetition.Config(n=2)) == 0
    assert repetition.score(completion("a b a b a b"), repetition.Config(n=2)) == pytest.approx(-0.6)


def test_every_file_is_a_reward():
    names = plugin_names("posttrain.rewards")
    assert set(names) == {
        "answer_correct", "budget_length", "code_tests", "lcpo", "length_range", "length_target", "repetition",
        "soft_overlong", "tags",
    }  # fmt: skip
    assert all(callable(load_plugin("posttrain.rewards", name).score) for name in names)


def test_trl_calls_them_with_columns():
    seen = []

    class Module:
        Config = dict

        @staticmethod
        def score(given, config):
            seen.append(given)
            return None if given.is_cut else float(given.row["worth"])

    reward = trl_reward("mine", Module, {}, stop_ids={0}, prompt_end="<think>")
    found = reward(
        prompts=["a", "b"],
        completions=["one", [{"role": "assistant", "content": "two"}]],
        completion_ids=[[5, 0], [5, 6, 7]],
        worth=[3, 4],
        trainer_state=object(),
        log_extra=print,
    )
    assert found == [3.0, None] and reward.__name__ == "mine"
    assert [(given.text, given.num_tokens, given.budget) for given in seen] == [
        ("one", 2, None),
        ("two", 3, None),
    ]
    assert seen[0].row == {"worth": 3} and seen[0].prompt_end == "<think>"
