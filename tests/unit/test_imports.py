from __future__ import annotations

import ast
import functools
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOB_PACKAGES = ("posttrain", "data_builders", "evals")
PACKAGES = ("lengthwise", *JOB_PACKAGES)
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "vllm",
    "datasets",
    "peft",
    "accelerate",
    "scipy",
    "statsmodels",
    "pandas",
    "numpy",
    "datasketch",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "ray",
}
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.split(".")[0]}
    return set()


def at_import_time(node: ast.AST) -> set[str]:
    """What runs when the module is imported: all but function bodies and `if TYPE_CHECKING`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return set()
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return set().union(*map(at_import_time, node.orelse)) if node.orelse else set()
    found = imported(node)
    for child in ast.iter_child_nodes(node):
        found |= at_import_time(child)
    return found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_dependencies_point_one_way(path):
    own = path.relative_to(ROOT).parts[0]
    everything = set().union(*map(imported, ast.walk(tree(path))))
    assert not everything & (set(JOB_PACKAGES) - {own})


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_relative_imports_are_not_used(path):
    # A script that is started by its path has no parent package.
    assert not [n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.level]


def test_the_checker_sees_what_it_should():
    code = (
        "import torch.nn\nif TYPE_CHECKING:\n    import trl\n"
        "def f():\n    import vllm\nclass A:\n    import peft\n"
    )
    assert at_import_time(ast.parse(code)) == {"torch", "peft"}


# In posttrain, a file that subclasses a class of the trainer cannot import it late; the job files can.
LATE = [p for p in SOURCES if p.relative_to(ROOT).parts[0] != "posttrain" or p.parent == ROOT / "posttrain"]


@pytest.mark.parametrize("path", LATE, ids=shown)
def test_heavy_libraries_are_imported_late(path):
    assert not at_import_time(tree(path)) & HEAVY


@functools.cache
def taken_names() -> set[str]:
    return set(sys.stdlib_module_names) | (set(importlib.metadata.packages_distributions()) - set(PACKAGES))


SCRIPTS = [p for p in SOURCES if p.parent.name in JOB_PACKAGES and p.stem != "__init__"]


@pytest.mark.parametrize("path", SCRIPTS, ids=shown)
def test_no_script_shadows_a_module(path):
    # A script's own folder comes first on sys.path: each file beside it hides a top-level module of its name.
    assert path.stem not in taken_names()
