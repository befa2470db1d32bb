"""The model that a training job starts from: its folder, tokenizer, chat template and context length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lengthwise.config import ConfigError
from lengthwise.models import ModelRef, resolve_model
from posttrain.training_mask import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEMPLATE_SUFFIXES = (".jinja", ".j2")


def find_base(spec: str) -> ModelRef:
    """Return the model to train.

    Raises:
        ConfigError: it is not to be had, or is an adapter.
    """
    model = resolve_model(spec)
    if model.adapter is not None:
        raise ConfigError(
            f"model: {spec} is a LoRA adapter: merge it into its base first (`lengthwise export "
            f"{spec} --merge`), and train the merged model"
        )
    return model


def check_template(chat_template_path: str | None) -> None:
    """Refuse a template file that is not there.

    Raises:
        ConfigError: naming the file.
    """
    if chat_template_path is None or not chat_template_path.endswith(_TEMPLATE_SUFFIXES):
        return
    if not Path(chat_template_path).is_file():
        raise ConfigError(
            f"chat_template_path: there is no file {chat_template_path!r} (looked in {Path.cwd()})"
        )


def load_tokenizer(
    model: ModelRef,
    *,
    chat_template_path: str | None = None,
    trust_remote_code: bool = False,
    needs_template: bool = True,
) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with the chat template of `chat_template_path` if given.

    Args:
        model: the model.
        chat_template_path: a template's file, or a model that has one.
        trust_remote_code: whether the model's own code may run.
        needs_template: whether there must be one; plain texts need none.

    Raises:
        ConfigError: the template cannot be found, or there is none.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path, trust_remote_code=trust_remote_code)
    wanted = chat_template_path
    if wanted is not None and wanted.endswith(_TEMPLATE_SUFFIXES):
        check_template(wanted)
        tokenizer.chat_template = Path(wanted).read_text(encoding="utf-8")
    elif wanted is not None:
        try:
            other = AutoTokenizer.from_pretrained(wanted, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"chat_template_path: no tokenizer can be loaded from {wanted!r}: {error}"
            ) from error
        tokenizer.chat_template = other.chat_template
    if needs_template:
        check_tokenizer(tokenizer)
    return tokenizer


def length_limit(
    model: ModelRef, max_length: int | None, *, trust_remote_code: bool = False
) -> tuple[int, str]:
    """Return the longest row in tokens, and where that number is from.

    Raises:
        ConfigError: neither `max_length` nor the model says.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=trust_remote_code).get_text_config()
    context: int | None = getattr(config, "max_position_embeddings", None)
    if max_length is None:
        if not context:
            raise ConfigError(
                "max_length: the model's config does not name its context length: set max_length"
            )
        return context, "the model's context"
    if context and max_length > context:
        return max_length, f"as set; MORE than the model's context of {context:,}"
    return max_length, "as set"


def linear_modules(model: ModelRef, *, trust_remote_code: bool = False) -> list[str]:
    """Return the names of the model's linear layers, as LoRA's target_modules names them; loads no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    linear = [name for name, module in empty.named_modules() if isinstance(module, torch.nn.Linear)]
    return sorted({name.rpartition(".")[2] for name in linear})
