"""Tokens that a training adds to the vocabulary, such as Ruler's meta length tokens (arXiv 2409.18943, section 3).

They are plain tokens (special=False), since engines leave special ones out of a reply, and a model that chooses its
own length writes one there. The embeddings get rows for them where there are none to spare; tied matrices stay tied.
Full fine-tuning trains these rows with all others. LoRA trains them beside its matrices and no other row, by PEFT's
`trainable_token_indices`; or all rows, where `lora.modules_to_save` names the embeddings. The tokenizer with the tokens
is saved beside the weights, and `lengthwise export --merge` makes one model of base, adapter and new rows.

Ruler trains its rows for 2,841 steps. In few steps at a small learning rate, rows that begin alike end nearly alike,
and the model cannot tell its tokens apart: hence the default start is the mean over the pieces that a token's text was
made of before it was one token. `mean`, over all rows, is where transformers starts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lengthwise.config import ConfigError, option
from lengthwise.lengths import TLG_TARGETS
from lengthwise.meta_length import MLT_FORMAT, check_mlt_format, mlt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True)
class AddedTokens:
    """Tokens to add to the vocabulary and to train."""

    mlt_format: str | None = option(
        None, help=f"adds the nine meta length tokens, named with the slot {{target}}, as {MLT_FORMAT}"
    )
    texts: list[str] = option(default_factory=list, help="other tokens to add, by their text")
    start: Literal["pieces", "mean"] = option(
        "pieces", help="a new row begins as the mean of the rows of its text's pieces, or of all rows"
    )

    def __post_init__(self) -> None:
        """Refuse tokens that are none."""
        if self.mlt_format is not None:
            check_mlt_format(self.mlt_format)
        if not self.all_texts:
            raise ValueError(f"added_tokens adds none: set mlt_format (as {MLT_FORMAT!r}) or texts")
        for text in self.all_texts:
            if text != text.strip() or not text:
                raise ValueError(f"texts holds {text!r}: a token is a text without white space around it")
        if len(set(self.all_texts)) < len(self.all_texts):
            raise ValueError(f"texts names a token twice: {', '.join(self.all_texts)}")

    @property
    def all_texts(self) -> list[str]:
        """The tokens by their texts, meta length tokens first."""
        mlt = [] if self.mlt_format is None else [mlt_text(label, self.mlt_format) for label in TLG_TARGETS]
        return [*mlt, *self.texts]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewToken:
    """A token that the training adds, or that an earlier one added."""

    text: str
    id: int
    pieces: tuple[int, ...]
    """What the tokenizer made of its text before; empty where the model knows the token already."""


def add_to_tokenizer(tokenizer: PreTrainedTokenizerBase, options: AddedTokens | None) -> tuple[NewToken, ...]:
    """Add tokens to a tokenizer and return them with their ids; those that it has as added tokens keep theirs.

    Raises:
        ConfigError: one of them is a special token, or a part of words.
    """
    from transformers import AddedToken

    if options is None:
        return ()
    known, vocabulary = added_ids(tokenizer), tokenizer.get_vocab()
    pieces: dict[str, tuple[int, ...]] = {}
    for text in options.all_texts:
        if text in known or text not in vocabulary:
            encoded = () if text in known else tokenizer.encode(text, add_special_tokens=False)
            pieces[text] = tuple(encoded)
            continue
        raise ConfigError(f"added_tokens: {text!r} is an ordinary token of the model: choose another text")
    special = [
        text for text in pieces if text in known and tokenizer.added_tokens_decoder[known[text]].special
    ]
    if special:
        raise ConfigError(
            f"added_tokens: {special[0]!r} is a special token of the model, which engines leave out of replies: "
            "choose another text"
        )
    tokenizer.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in pieces if text not in known]
    )
    ids = added_ids(tokenizer)
    return tuple(NewToken(text=text, id=ids[text], pieces=found) for text, found in pieces.items())


def added_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids of a tokenizer's added tokens, special ones among them, by their text."""
    return {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}


def start_rows(
    model: Any, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[NewToken], start: str
) -> None:
    """Give a model rows for the tokens that are new to it, and set where they start.

    Example:
        With `pieces`, the row of `[MLT:30]`, which was `[`, `M`, `LT`, `:`, `3`, `0`, `]`, starts as their mean: in the
        embeddings the mean of seven embeddings, in an output matrix of its own the mean of seven of its rows.
    """
    import torch

    from lengthwise.vocabulary import fit_rows, matrices

    fit_rows(model, len(tokenizer))
    with torch.no_grad():
        for matrix in matrices(model):
            rows = matrix.detach().clone()
            everywhere = rows[: min(token.id for token in tokens)].float().mean(dim=0)
            for token in tokens:
                if token.pieces:
                    mean = rows[list(token.pieces)].float().mean(dim=0) if start == "pieces" else everywhere
                    matrix[token.id] = mean.to(matrix.dtype)


def trained_rows(model: Any, tokens: Sequence[NewToken], saved: Sequence[str] | None) -> dict[str, Any]:
    """Return what PEFT's config needs so that LoRA trains the rows of tokens too; empty where there are none.

    Args:
        model: with its rows; the names of its two matrices are looked up in it.
        tokens: whose rows are trained.
        saved: `modules_to_save` of the adapter. A matrix in it is trained as a whole, with its tied one.

    Raises:
        ConfigError: the output matrix has a bias, which PEFT would leave out.
    """
    if not tokens:
        return {}
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ConfigError(
            "added_tokens: the model's output matrix has a bias, which LoRA on the rows of tokens would drop: leave "
            "lora out (full fine-tuning)"
        )
    wanted = [model.get_input_embeddings(), head]
    names = [name for name, module in model.named_modules() if any(module is one for one in wanted)]
    whole = [name for name in names if name in (saved or ()) or name.rpartition(".")[2] in (saved or ())]
    if head.weight is model.get_input_embeddings().weight:
        if whole:
            return {"ensure_weight_tying": True}
        return {"trainable_token_indices": [token.id for token in tokens]}
    rows: Mapping[str, list[int]] = {
        name: [token.id for token in tokens] for name in names if name not in whole
    }
    return {"trainable_token_indices": rows} if rows else {}


def refit(model: Any) -> None:
    """Make PEFT's wrapping of the two matrices fit TRL, and keep what is saved small.

    TRL's fused head reads `lm_head.bias`, which the wrapping has not. And PEFT writes both whole matrices into each
    adapter whose model has more rows than its base, though a reader needs the new rows alone, as `fit_rows` shows.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.register_parameter("bias", None)
    save = model.save_pretrained

    def save_new_rows(*args: Any, **kwargs: Any) -> Any:
        return save(*args, **{"save_embedding_layers": False, **kwargs})

    model.save_pretrained = save_new_rows
