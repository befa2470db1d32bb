"""docs/status.md says what docs/evidence.yaml has on record, and no more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def status() -> ModuleType:
    spec = importlib.util.spec_from_file_location("status", ROOT / "scripts" / "status.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(status: ModuleType) -> None:
    assert (ROOT / "docs" / "status.md").read_text(encoding="utf-8") == status.page(), "run: make status"


def test_the_evidence_is_there() -> None:
    entries = yaml.safe_load((ROOT / "docs" / "evidence.yaml").read_text(encoding="utf-8"))
    for entry in entries:
        assert set(entry) <= {"feature", "tests", "runs", "note"}
        assert all((ROOT / test).exists() for test in entry.get("tests", [])), entry["feature"]
        assert all(set(run) == {"what", "device", "commit"} for run in entry.get("runs", []))


CPU = {"what": "make demo", "device": "CPU", "commit": "1234567"}
GPU = {"what": "make demo", "device": "H100", "commit": "89abcde"}
SCRIPTED, REAL = "tests/unit/test_workflow.py", "tests/integration/test_kill_resume.py"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ({}, "config only"),
        ({"tests": [SCRIPTED]}, "tests only"),
        ({"tests": ["tests/golden"]}, "tests only"),
        ({"tests": [SCRIPTED, REAL]}, "ran on CPU (each change)"),
        ({"tests": [SCRIPTED], "runs": [CPU]}, "ran on CPU (1234567)"),
        ({"tests": [REAL], "runs": [CPU, GPU]}, "ran on H100 (89abcde)"),
    ],
)
def test_a_status_is_the_strongest_that_the_evidence_carries(
    status: ModuleType, evidence: dict, expected: str
) -> None:
    assert status.status_of({"feature": "any", **evidence}) == expected
