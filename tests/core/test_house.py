"""The rules of the house that no linter knows: size, layers, docstrings, versions."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MODULES = sorted(chain.from_iterable((ROOT / top).rglob("*.py") for top in ("flows", "tasks", "deployments")))
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "tasks" / "core")]
MOST_LINES = 500

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def public(tree: ast.Module | Definition, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """What a module or class defines for others, by dotted name; not what stands inside functions."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


def raised(function: ast.AST) -> set[str]:
    """The classes of errors that a function itself makes and raises, also by calling a helper."""
    found = set()
    for node in ast.iter_child_nodes(function):
        if isinstance(node, Definition | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
        found |= raised(node)
    # A line that is never reached need not be announced.
    return found - {"AssertionError"}


def imported(tree: ast.Module) -> set[str]:
    """The modules that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_is_something_to_look_at() -> None:
    assert {"tasks/core/run.py", "flows/generate.py", "deployments/__init__.py"} <= set(map(name_of, MODULES))
    assert {"tasks/core/llm/ledger.py", "tasks/core/session/session.py"} <= set(map(name_of, CORE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert [name for name, node in public(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_what_raises_an_error_of_its_own_says_so(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [
        name
        for name, node in public(tree)
        if not isinstance(node, ast.ClassDef)
        and raised(node)
        and not re.search(r"^Raises:|\b[Rr]aises? \w+", ast.get_docstring(node) or "", re.MULTILINE)
    ]
    assert silent == []


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_neither_prefect_nor_what_stands_above_it(path: Path) -> None:
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    tops = {name.partition(".")[0] for name in names}
    assert not tops & {"prefect", "flows", "deployments", "tests"}
    assert [name for name in names if re.match(r"tasks\.(?!core\b)", name)] == []


def test_the_version_is_that_of_the_changelogs_newest_release() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)[0] == project["version"]
