"""Finds components by name: one component is one file, and the file's name is its name in a config."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from lengthwise.config import did_you_mean
from lengthwise.records import digest
from lengthwise.value_types import ConfigError


def plugin_names(package: str, wanted: str = "Config") -> list[str]:
    """Return the names of the components in a package, without importing them.

    Args:
        package: a dotted package name such as "data_builders".
        wanted: the top-level name that makes a file a component.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package!r} is not a package")
    files = [f for folder in spec.submodule_search_locations for f in Path(folder).glob("*.py")]
    return sorted(f.stem for f in files if not f.stem.startswith("_") and wanted in _top_level_names(f))


def _top_level_names(file: Path) -> set[str]:
    """Return the names that a file defines at its top level."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname for alias in node.names if alias.asname == alias.name}
    return names


def load_plugin(package: str, name: str, wanted: str = "Config") -> ModuleType:
    """Return the module of a component.

    Args:
        package: where the shipped components are.
        name: a shipped component's name, a file ("my_builder.py"), or a module ("my_package.my_builder").
        wanted: the attribute that the module must define.

    Raises:
        ConfigError: nothing of that name, or a module without the wanted attribute.

    Example:
        >>> load_plugin("lengthwise.engines", "scripted").__name__
        'lengthwise.engines.scripted'
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{package}: the name of a component is {name!r}: it must be a text")
    if name.endswith(".py"):
        module = _load_file(package, Path(name))
    elif "." in name:
        module = _load_dotted(package, name)
    elif name.lstrip().startswith(("{", "[")):
        raise ConfigError(f"{package}: {name!r} is no valid YAML: a bracket or a quote is not closed")
    else:
        known = plugin_names(package, wanted)
        if name not in known:
            nearest = did_you_mean(name, known)
            raise ConfigError(
                f"{package} has no component {name!r}{': ' + nearest if nearest else ''}; there are "
                f"{', '.join(known) or 'none'}, or give a file (my_component.py) or a module (package.module)"
            )
        return importlib.import_module(f"{package}.{name}")
    if not hasattr(module, wanted):
        raise ConfigError(f"{name} is no component of {package}: it does not define {wanted!r}")
    return module


def plugin_label(name: str) -> str:
    """Return what a component is called in files and tables: its file's or its module's own name.

    Example:
        >>> [plugin_label(n) for n in ("tlg", "my_tasks/within_ten.py", "my_package.within_ten")]
        ['tlg', 'within_ten', 'within_ten']
    """
    return Path(name).stem if name.endswith(".py") else name.rpartition(".")[2]


def _load_file(package: str, file: Path) -> ModuleType:
    """Import a user's own file under a name that cannot clash with a package."""
    if not file.is_file():
        raise ConfigError(f"component {file} for {package}: there is no such file (looked in {Path.cwd()})")
    module_name = f"lengthwise_plugin_{file.stem}_{digest(str(file.resolve()))[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"component {file} for {package}: Python cannot import it")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it is being executed.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _load_dotted(package: str, name: str) -> ModuleType:
    """Import a user's own module; only its absence is the user's error, not a failure inside it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"component {name!r} for {package}: there is no module {error.name!r}; install it or put its "
                "folder on PYTHONPATH"
            ) from None
        raise
