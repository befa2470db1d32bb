from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, MistralConfig, MixtralConfig, Qwen2Config

from posttrain.attention import NAME, attend, choose_attention, unfit_for


def chosen(config=None, **more):
    settings = {"given": None, "packed": False, "on_cuda": False, **more}
    return choose_attention(config or LlamaConfig(), **settings)


def test_what_is_chosen_is_said_with_its_reason():
    assert str(chosen()) == f"attention   {NAME}: torch's causal kernels, without a mask: padding stands last"
    assert "as model_init_kwargs says" in str(chosen(given="eager", packed=True))
    packed = chosen(packed=True)
    assert packed.implementation == NAME and "each document of a pack by itself" in packed.why
    assert chosen(sharded=True).implementation is None


def test_a_gpu_without_flash_attention_says_what_would_be_faster():
    """No GPU is here, so both self-tests fail, as they would for a build that does not fit."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: the self-tests may pass")
    assert "flash-attn, if installed, would be faster" in str(chosen(packed=True, on_cuda=True))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LlamaConfig(), ""),
        (Qwen2Config(), ""),
        (MistralConfig(sliding_window=4096), "has sliding windows"),
        (MistralConfig(sliding_window=None), ""),
        (Gemma2Config(), "has sliding windows"),
        (MixtralConfig(sliding_window=None), "routes tokens to experts"),
    ],
)
def test_models_whose_masks_say_more_keep_them(config, reason):
    assert unfit_for(config) == reason
    found = chosen(config)
    assert found.implementation == (None if reason else NAME)


def test_a_mask_is_never_passed_over():
    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="takes no mask"):
        attend(torch.nn.Identity(), query, query, query, torch.ones(1, 1, 2, 2))
