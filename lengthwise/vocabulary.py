"""A model's rows for the tokens of its tokenizer: one that gained tokens in training has more of them than its base."""

from __future__ import annotations

from typing import Any


def num_rows(model: Any) -> int:
    """Return the rows of a model's embeddings: how many tokens it can read."""
    return int(model.get_input_embeddings().weight.shape[0])


def matrices(model: Any) -> list[Any]:
    """Return the weights that have a row for each token, shape [tokens, width]: two, or one where they are tied."""
    found = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not found[0]:
        found.append(head.weight)
    return found


def fit_rows(model: Any, num_tokens: int) -> int:
    """Give a model a row for each token, in its embeddings and its output matrix; return how many it lacked.

    Only what lacks is added: a model with spare rows, as many are stored, stays as it is, and matrices that are one
    stay one. A new row is the mean of the others (J. Hewitt, "Initializing New Word Embeddings for Pretrained Language
    Models", 2021): no new token is then likelier than all known ones, as one drawn at random may be. transformers'
    own resizing draws closely around that mean from the global random numbers; here every call gives the same rows.

    Args:
        model: a causal language model of transformers, in memory.
        num_tokens: of its tokenizer, `len(tokenizer)`.

    Example:
        A model of 49,152 rows gets nine for a tokenizer of 49,161 tokens; one of 151,936 rows gets none.
    """
    import torch

    before = num_rows(model)
    if num_tokens <= before:
        return 0
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    bias = getattr(model.get_output_embeddings(), "bias", None)
    with torch.no_grad():
        for weights in [*matrices(model), *([] if bias is None else [bias])]:
            weights[before:] = weights[:before].float().mean(dim=0).to(weights.dtype)
    return num_tokens - before
