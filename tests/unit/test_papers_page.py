"""docs/papers.md names every paper that the code rests on, and only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
SOURCES = ("lengthwise", "data_builders", "evals", "posttrain", "recipes", "configs")


def named_in_code() -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".md"):
                lines = path.read_text(encoding="utf-8").splitlines()
                for line in (line for line in lines if re.search(r"arXiv|[(,; ]\d{4}\.\d{5}[,;) ]", line)):
                    for paper in ARXIV.findall(line):
                        found.setdefault(paper, str(path.relative_to(ROOT)))
    return found


def test_every_paper_of_the_code_is_on_the_page():
    named = named_in_code()
    assert len(named) > 30
    assert {paper: path for paper, path in named.items() if paper not in PAGE} == {}


@pytest.mark.parametrize("column", [3, 4])
def test_the_table_names_files_that_are_there(column: int):
    rows = [
        line.split("|") for line in PAGE.partition("## AgentWrite")[0].splitlines() if line.startswith("| ")
    ][2:]
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
