"""docs/papers.md names every paper that the code rests on, and only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
ARXIV = re.compile(r"(?<![\d.])((?:0[7-9]|1\d|2\d)(?:0[1-9]|1[0-2])\.\d{5})(?!\d)")
TABLE = PAGE.partition("## AgentWrite")[0]
SOURCES = ("lengthwise", "data_builders", "evals", "posttrain", "recipes", "configs")


def named_in_code() -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".md"):
                for paper in ARXIV.findall(path.read_text(encoding="utf-8")):
                    found.setdefault(paper, str(path.relative_to(ROOT)))
    return found


def test_every_paper_of_the_code_is_in_the_table():
    named = named_in_code()
    assert len(named) > 30
    assert {paper: path for paper, path in named.items() if paper not in TABLE} == {}


@pytest.mark.parametrize("column", [3, 4])
def test_the_table_names_files_that_are_there(column: int):
    rows = [line.split("|") for line in TABLE.splitlines() if line.startswith("| ")][2:]
    names = [name for row in rows for name in re.findall(r"`([^`]+\.(?:py|yaml))`", row[column])]
    folders = ("tests",) if column == 4 else SOURCES
    files = [str(p) for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".yaml")]
    assert len(names) > 30
    assert [name for name in names if not any(file.endswith(f"/{name}") for file in files)] == []


def test_links_within_the_page_lead_somewhere():
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = re.findall(r"\(#([^)]+)\)", PAGE)
    assert linked and set(linked) <= anchors
