"""Training in bfloat16: the error of our attention's gradients against float32, beside that of torch's plain sdpa.

`pytest -m gpu tests/gpu` is the check on CUDA, where torch's kernels differ by type; the CPU cases show that the
measure itself works.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from posttrain.attention import NAME, choose_attention, register

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
LENGTHS = (40, 100, 75)


def model(attention: str, dtype: torch.dtype, device: str) -> Any:
    register()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=attention,
    )
    made: Any = LlamaForCausalLM(config)
    return made.to(device=device, dtype=dtype).train()


def gradients(attention: str, dtype: torch.dtype, device: str, *, packed: bool) -> torch.Tensor:
    """Return the gradients of the mean loss over three documents, in one vector; shape [weights], float32."""
    stream = torch.Generator().manual_seed(1)
    documents = [torch.randint(0, 500, (length,), generator=stream) for length in LENGTHS]
    trained = model(attention, dtype, device)
    if packed:
        ends = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
        inputs = {
            "input_ids": torch.cat(documents)[None],
            "position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None],
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
        }
        lengths = {"max_length_q": max(LENGTHS), "max_length_k": max(LENGTHS)}
    else:
        rows = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
        kept = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in documents], batch_first=True)
        inputs, lengths = {"input_ids": rows, "attention_mask": kept}, {}
    logits = trained(**{name: value.to(device) for name, value in inputs.items()}, **lengths).logits.float()
    parts = (
        logits[0].split(LENGTHS)
        if packed
        else [row[:length] for row, length in zip(logits, LENGTHS, strict=True)]
    )
    losses = [
        torch.nn.functional.cross_entropy(part[:-1], ids[1:].to(device), reduction="sum")
        for part, ids in zip(parts, documents, strict=True)
    ]
    (torch.stack(losses).sum() / sum(length - 1 for length in LENGTHS)).backward()
    return torch.cat([weight.grad.float().flatten().cpu() for weight in trained.parameters()])


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_bfloat16_loses_no_more_than_with_plain_attention(device, packed):
    wanted = gradients("sdpa", torch.float32, device, packed=False)
    plain = error(gradients("sdpa", torch.bfloat16, device, packed=False), wanted)
    ours = error(gradients(NAME, torch.bfloat16, device, packed=packed), wanted)
    print(f"{device}, {'packed' if packed else 'padded'}: error of sdpa {plain:.2e}, of {NAME} {ours:.2e}")
    assert 1e-4 < plain < 0.1 and ours <= 2 * plain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_in_float32_it_is_plain_attention(device, packed):
    wanted = gradients("sdpa", torch.float32, device, packed=False)
    assert error(gradients(NAME, torch.float32, device, packed=packed), wanted) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_a_gpu_chooses_for_packs_loses_no_more_either():
    """flash-attn where it is installed and works, else torch's own kernel."""
    chosen = choose_attention(LlamaConfig(), given=None, packed=True, on_cuda=True).implementation
    assert chosen is not None
    wanted = gradients("sdpa", torch.float32, "cuda", packed=False)
    plain = error(gradients("sdpa", torch.bfloat16, "cuda", packed=False), wanted)
    assert error(gradients(chosen, torch.bfloat16, "cuda", packed=True), wanted) <= 2 * plain
