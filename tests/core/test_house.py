"""The rules of the house that no linter knows: the map, names, docstrings, late imports, versions."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import tomli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MODULES = sorted(chain.from_iterable((ROOT / top).rglob("*.py") for top in ("flows", "tasks", "deployments")))
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "tasks" / "core")]
MOST_MODULES = 165
MOST_LATE_IMPORTS = 25

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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


def test_there_is_something_to_look_at() -> None:
    assert {"tasks/core/generation/run.py", "flows/generate.py", "deployments/__init__.py"} <= set(
        map(name_of, MODULES)
    )
    assert {"tasks/core/ledger/ledger.py", "tasks/core/session/session.py"} <= set(map(name_of, CORE))


def rooms() -> dict[str, set[str]]:
    """The folders of the program with the modules in each."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        modules = found.setdefault(f"{path.parent.relative_to(ROOT)}/", set())
        if path.stem != "__init__":
            modules.add(path.stem)
    return found


def late_imports(tree: ast.Module) -> int:
    """How many imports stand inside functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {id(node) for function in functions for node in ast.walk(function)}
    return sum(
        isinstance(node, ast.Import | ast.ImportFrom) and id(node) in inside for node in ast.walk(tree)
    )


def test_the_map_shows_every_room_and_every_module() -> None:
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    drawn = {
        room: set(re.findall(r"`(\w+)`", modules))
        for room, modules in re.findall(r"^\| `([\w/]+/)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    }
    assert drawn == rooms()


def test_every_file_that_the_docs_name_is_there() -> None:
    missing = [
        f"{page.name}: {named}"
        for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for named in re.findall(
            r"`((?:flows|tasks|deployments|tests)/[\w/]*(?:\.py)?)`", page.read_text(encoding="utf-8")
        )
        if not (ROOT / named).exists()
    ]
    assert missing == []


def test_every_test_outside_of_core_proves_a_promise() -> None:
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    tests = [name_of(path) for path in (ROOT / "tests").rglob("test_*.py")]
    unnamed = [name for name in tests if not name.startswith("tests/core/") and f"`{name}`" not in text]
    assert unnamed == []


def test_no_group_is_repeated_possessively() -> None:
    """Python before 3.11.5, Debian's too, finds less than such a pattern says; an atomic group is safe."""
    lines = [(name_of(path), line) for path in MODULES for line in path.read_text("utf-8").splitlines()]
    # Not in a set of characters, where these are characters.
    found = [
        f"{name}: {line}" for name, line in lines if re.search(r"\)[*+?]\+", re.sub(r"\[[^]]*\]", "x", line))
    ]
    assert found == []


def test_no_class_name_is_there_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_there_are_no_more_modules_and_late_imports_than_there_were() -> None:
    late = {name_of(path): late_imports(tree_of(path)) for path in MODULES}
    assert len(MODULES) <= MOST_MODULES
    assert sum(late.values()) <= MOST_LATE_IMPORTS, {name: count for name, count in late.items() if count}


def test_everything_public_says_what_it_is() -> None:
    silent = []
    for path in CORE:
        tree = tree_of(path)
        silent += [] if ast.get_docstring(tree) else [name_of(path)]
        silent += [f"{name_of(path)}: {name}" for name, node in public(tree) if not ast.get_docstring(node)]
    assert silent == []


def test_what_raises_an_error_of_its_own_says_so() -> None:
    silent = [
        f"{name_of(path)}: {name}"
        for path in CORE
        for name, node in public(tree_of(path))
        if not isinstance(node, ast.ClassDef)
        and raised(node)
        and not re.search(r"^Raises:|\b[Rr]aises? \w+", ast.get_docstring(node) or "", re.MULTILINE)
    ]
    assert silent == []


def test_the_version_is_that_of_the_changelogs_newest_release() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)[0] == project["version"]
