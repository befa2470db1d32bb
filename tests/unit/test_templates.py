from __future__ import annotations

import pytest

from lengthwise import templates
from lengthwise.templates import PromptTemplate, load_phrases, load_prompt


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(templates, "prompt_folder", lambda package: tmp_path)
    yield tmp_path
    load_prompt.cache_clear()
    load_phrases.cache_clear()


def test_render_fills_every_field_and_scans_values_only_once():
    template = PromptTemplate("p", "${a} costs $$5, says ${b}.")
    assert template.fields == {"a", "b"}
    assert template.render(a="${b}", b=7) == "${b} costs $5, says 7."


def test_missing_and_unknown_fields_are_named():
    template = PromptTemplate("p", "${a} ${b}")
    with pytest.raises(ValueError, match="lacks b and has no place for c"):
        template.render(a=1, c=2)


def test_load_prompt(folder):
    (folder / "x.en.md").write_text("Hello ${name}\n\n")
    assert load_prompt("pkg", "x.en").render(name="you") == "Hello you"
    with pytest.raises(ValueError, match=r"no file .*prompts there: x\.en"):
        load_prompt("pkg", "y")


def test_a_stray_dollar_is_refused(folder):
    (folder / "x.md").write_text("It costs $5.")
    with pytest.raises(ValueError, match="stray"):
        load_prompt("pkg", "x")


def test_phrases(folder):
    (folder / "p.md").write_text("# a comment\n\nshort: only ${words} words: too few\n")
    assert load_phrases("pkg", "p")["short"].render(words=3) == "only 3 words: too few"
    (folder / "q.md").write_text("one: a\none: b\n")
    with pytest.raises(ValueError, match="line 2"):
        load_phrases("pkg", "q")


def test_version_changes_with_the_text():
    assert PromptTemplate("p", "a").version != PromptTemplate("p", "b").version
    assert len(PromptTemplate("p", "a").version) == 12


def test_both_languages_of_agent_write_have_the_same_phrases_and_fields():
    english, chinese = (load_phrases("data_builders", f"agent_write_phrases.{code}") for code in ("en", "zh"))
    assert english.keys() == chinese.keys()
    assert {key: phrase.fields for key, phrase in english.items()} == {
        key: phrase.fields for key, phrase in chinese.items()
    }
    for part in ("plan", "plan_repair", "section", "context"):
        fields = [load_prompt("data_builders", f"agent_write_{part}.{code}").fields for code in ("en", "zh")]
        assert fields[0] == fields[1]
