"""How likely a given continuation is: where its tokens begin, and what vLLM's answer says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from byte_tokenizer import OPENS, PLAIN, WRITES_BOTH, chat_tokenizer

from lengthwise.engines.base import EngineError
from lengthwise.engines.vllm_messages import likelihood_of, likelihood_of_forced
from lengthwise.records import Message, user


class TestWhereAContinuationBegins:
    def test_right_behind_the_rendered_prompt(self, tmp_path):
        tokenizer = chat_tokenizer(tmp_path, WRITES_BOTH)
        ids, start = tokenizer.encode_with(user("Which?"), "Paris")
        assert ids[:start] == tokenizer.encode(user("Which?"))
        assert tokenizer.tokenizer.decode(ids) == "<|user|>Which?<|assistant|>Paris"
        assert tokenizer.tokenizer.decode(ids[start:]) == "Paris"

    def test_behind_a_prefill(self, tmp_path):
        tokenizer = chat_tokenizer(tmp_path, PLAIN)
        prompt = (*user("Which?"), Message(role="assistant", content="It is"))
        ids, start = tokenizer.encode_with(prompt, " Rome")
        assert tokenizer.tokenizer.decode(ids) == "<|user|>Which?<|assistant|>It is Rome"
        assert tokenizer.tokenizer.decode(ids[start:]) == " Rome"

    def test_a_token_over_the_border_belongs_to_the_continuation(self, tmp_path, monkeypatch):
        tokenizer = chat_tokenizer(tmp_path, PLAIN)
        one_token_a_word = {"<|user|>a": [1, 2], "<|user|>ab": [1, 3], "<|user|>a b": [1, 2, 4]}
        monkeypatch.setattr(tokenizer.tokenizer, "encode", lambda text, **_: one_token_a_word[text])
        monkeypatch.setattr(tokenizer, "encode", lambda prompt: [1, 2])
        assert tokenizer.encode_with(user("a"), "b") == ([1, 3], 1)
        assert tokenizer.encode_with(user("a"), " b") == ([1, 2, 4], 2)

    def test_an_empty_one_is_refused(self, tmp_path):
        with pytest.raises(EngineError, match="no token of its own"):
            chat_tokenizer(tmp_path, PLAIN).encode_with(user("a"), "")

    def test_an_answer_is_not_looked_for_in_the_thinking_part(self, tmp_path):
        with pytest.raises(EngineError, match="enable_thinking: false"):
            chat_tokenizer(tmp_path, OPENS).encode_with(user("a"), "b")


def entry(**logprobs: float):
    return {int(token[1:]): SimpleNamespace(logprob=value) for token, value in logprobs.items()}


class TestWhatVllmSays:
    ENTRIES = (None, entry(t5=-9.0, t1=-0.1), entry(t6=-0.25), entry(t7=-1.5, t9=-0.5))

    def output(self):
        return SimpleNamespace(prompt_token_ids=[4, 5, 6, 7], prompt_logprobs=list(self.ENTRIES))

    def test_the_sum_over_the_continuation_only(self):
        found = likelihood_of(self.output(), 2)
        assert (found.logprob, found.is_greedy, found.num_prompt_tokens) == (-1.75, False, 4)

    def test_greedy_means_each_token_is_the_likeliest(self):
        output = self.output()
        output.prompt_logprobs[3] = entry(t7=-0.5, t9=-0.5)  # as likely as another
        assert likelihood_of(output, 2).is_greedy

    def test_one_request_a_token_gives_the_same(self):
        outputs = [
            SimpleNamespace(
                prompt_token_ids=[4, 5, 6, 7][:place],
                outputs=[SimpleNamespace(token_ids=[[4, 5, 6, 7][place]], logprobs=[self.ENTRIES[place]])],
            )
            for place in (2, 3)
        ]
        found = likelihood_of_forced(outputs)
        assert (found.logprob, found.is_greedy) == (-1.75, False)
        assert found.num_prompt_tokens == 2 + 3  # what was read, once for each request
