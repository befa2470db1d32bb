from __future__ import annotations

import pytest

from lengthwise.plugins import load_plugin, plugin_names
from lengthwise.value_types import ConfigError


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "demo_components"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text("class Protocol: ...\n")
    (folder / "short_texts.py").write_text("class Config: ...\n")
    (folder / "broken.py").write_text("import a_library_that_is_not_there\nclass Config: ...\n")
    (folder / "_hidden.py").write_text("class Config: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "demo_components"


def test_names_are_the_files_that_define_the_wanted_name_and_nothing_is_imported(package):
    assert plugin_names(package) == ["broken", "short_texts"]


def test_load_by_name(package):
    assert load_plugin(package, "short_texts").Config.__name__ == "Config"


def test_unknown_name_lists_what_there_is(package):
    with pytest.raises(ConfigError) as caught:
        load_plugin(package, "short_text")
    assert "did you mean 'short_texts'?" in str(caught.value)
    assert "broken, short_texts" in str(caught.value)


def test_a_file_without_the_wanted_name_is_no_component(package):
    with pytest.raises(ConfigError, match="no component 'base'"):
        load_plugin(package, "base")


def test_an_error_inside_a_component_is_not_hidden(package):
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        load_plugin(package, "broken")


def test_load_a_file_with_a_dataclass(package, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Config:\n    words: int = 3\n"
    )
    module = load_plugin(package, "mine.py")
    assert module.Config().words == 3
    assert load_plugin(package, "mine.py") is module


def test_load_a_module(package):
    assert load_plugin("lengthwise.engines", "demo_components.short_texts").__name__.endswith("short_texts")


@pytest.mark.parametrize("name", ["absent.py", "no_such_package.module", "demo_components.absent"])
def test_absent_files_and_modules(package, name):
    with pytest.raises(ConfigError, match="there is no"):
        load_plugin(package, name)


def test_a_module_without_the_wanted_name(package):
    with pytest.raises(ConfigError, match="does not define 'Config'"):
        load_plugin(package, "demo_components.base")


def test_shipped_engines_are_found():
    assert "scripted" in plugin_names("lengthwise.engines")
    assert "base" not in plugin_names("lengthwise.engines")
