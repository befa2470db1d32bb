"""Which attention a training runs with, chosen by hardware and said in one line; and a backend of our own.

The backend is for causal models whose rows are padded on the right, or packed with their lengths at hand. Padding at
the end of a row is never looked at by what stands before it, so rows need no mask, and without one torch takes its
causal kernels. Of a pack, each document attends to itself alone: on CUDA by torch's kernel for sequences of
different lengths, else one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

NAME = "lengthwise"
"""What transformers knows the backend by. It makes no mask for a name that it has no mask for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """What was chosen."""

    implementation: str | None
    """For model_init_kwargs; None leaves it to transformers."""
    why: str

    def __str__(self) -> str:
        """Return the header's line."""
        return f"attention   {self.implementation or 'the default of transformers'}: {self.why}"


def choose_attention(
    config: PretrainedConfig,
    *,
    given: str | None,
    packed: bool,
    on_cuda: bool,
    sharded: bool = False,
    padded_left: bool = False,
    hides_tokens: bool = False,
) -> Attention:
    """Return the attention for a model on this machine.

    Args:
        config: the model's.
        given: what the user's model_init_kwargs say.
        packed: whether several documents stand in one sequence.
        on_cuda: whether a CUDA device trains.
        sharded: whether a sequence lies on several devices, which asks for an attention that knows of it.
        padded_left: whether padding stands before a row, as before prompts that are answered side by side.
        hides_tokens: whether tokens within a row are hidden, which takes a mask.
    """
    if given is not None:
        return Attention(implementation=given, why="as model_init_kwargs says")
    if hides_tokens:
        return Attention(implementation="sdpa", why="tokens within rows are hidden, so masks are kept")
    if padded_left:
        if on_cuda and _flash_attn_works():
            return Attention(
                implementation="flash_attention_2", why="flash-attn is installed and passed its test"
            )
        return Attention(implementation=None, why="padding stands before the prompts, so masks are kept")
    if on_cuda and packed and _flash_attn_works():
        return Attention(
            implementation="flash_attention_2", why="flash-attn is installed and passed its test"
        )
    if sharded:
        return Attention(implementation=None, why="sequences lie on several devices")
    obstacle = unfit_for(config)
    if obstacle:
        more = "; a pack's mask is as large as its length squared" if packed else ""
        return Attention(implementation=None, why=f"the model {obstacle}, so masks are kept{more}")
    if not packed:
        return Attention(
            implementation=NAME, why="torch's causal kernels, without a mask: padding stands last"
        )
    if not on_cuda:
        return Attention(
            implementation=NAME,
            why="each document of a pack by itself; on CPU batching: {name: token_budget} is as fast and simpler",
        )
    if _varlen_works():
        return Attention(
            implementation=NAME, why="torch's kernel for packs; flash-attn, if installed, may be faster"
        )
    return Attention(
        implementation=NAME,
        why="each document of a pack by itself; flash-attn, if installed, would be faster",
    )


def unfit_for(config: PretrainedConfig) -> str:
    """Return why the backend would not compute what the model does; empty where it would.

    A mask also says what a sliding window leaves out, and which tokens a mixture of experts should not route.
    """
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    if getattr(text, "sliding_window", None) is not None and getattr(text, "use_sliding_window", True):
        return "has sliding windows"
    if any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or []):
        return "has layers of another attention"
    if any(getattr(text, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "routes tokens to experts"
    made = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if not getattr(made, "_supports_attention_backend", False):
        return "takes no attention from outside"
    return ""


def register() -> None:
    """Make the backend known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each document.

    Args:
        module: the layer.
        query: [B, H, T, D]; B is 1 for a pack.
        key: [B, H', T, D], H' a divisor of H.
        value: as `key`.
        attention_mask: None: transformers makes none for this backend.
        cu_seq_lens_q: where the documents of a pack begin, and T; shape [documents + 1]. None: one for each row.
        kwargs: scaling, dropout and what else the layer passes.

    Returns:
        [B, T, H, D], and None in place of weights.

    Raises:
        ValueError: there is a mask, which would be left unheard.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None:
        raise ValueError(f"attention {NAME!r} takes no mask: choose another attn_implementation")
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)
    if query.is_cuda and query.dtype.itemsize == 2 and _varlen_works():
        return _varlen(query, key, value, cu_seq_lens_q, kwargs.get("scaling")), None
    ends = cu_seq_lens_q.tolist()
    parts = [
        sdpa_attention_forward(
            module, query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], None, **kwargs
        )[0]
        for start, end in pairwise(ends)
    ]
    return _joined(parts), None


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(parts, dim=1)


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Return attention by torch's own kernel; shapes as in `attend`."""
    from torch.nn.attention.varlen import varlen_attn

    longest = int(starts.diff().max())
    starts = starts.to(query.device)
    found: Any = varlen_attn(
        query.squeeze(0).transpose(0, 1),
        key.squeeze(0).transpose(0, 1),
        value.squeeze(0).transpose(0, 1),
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.unsqueeze(0)


@cache
def _varlen_works() -> bool:
    """Tell whether torch's kernel gives here what its plain attention gives; it is young, and its arguments moved."""
    import torch

    try:
        stream = torch.Generator("cuda").manual_seed(0)
        shape, options = (1, 4, 48, 64), {"device": "cuda", "dtype": torch.bfloat16}
        query, key, value = (torch.randn(shape, generator=stream, **options) for _ in range(3))  # pyright: ignore
        found = _varlen(query, key, value, torch.tensor([0, 16, 48], dtype=torch.int32), None)
        plain = [
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True
            )
            for part in (slice(0, 16), slice(16, 48))
        ]
        return torch.allclose(found.transpose(1, 2), torch.cat(plain, dim=2), atol=2e-2)
    except Exception:
        return False


@cache
def _flash_attn_works() -> bool:
    """Tell whether flash-attn is installed and runs: one built for another torch or GPU fails on its first call."""
    import torch

    try:
        from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

        rows = torch.randn(2, 16, 2, 64, device="cuda", dtype=torch.bfloat16)
        return bool(flash_attn_func(rows, rows, rows, causal=True).isfinite().all())
    except Exception:
        return False
