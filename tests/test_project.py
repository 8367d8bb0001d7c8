"""Promises of the repository as a whole: layers, forbidden calls, paired notebooks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "retrieval_geometry"
# Own code, not import-linter: thirty lines against one more tool to install and to keep.
# A module may import from its own layer and from those before it.
LAYERS = [
    {
        "_check",
        "_compiled",
        "_cost",
        "_covariances",
        "_files",
        "_folders",
        "_image_files",
        "_memory",
        "_packaged",
        "_sealed",
        "_seeded",
        "_sources",
        "_text",
        "_tolerances",
        "_threads",
    },
    {"datasets", "image_models", "features"},
    {"distances"},
    {"losses", "coresets", "projections"},
    {"training"},
    {"evaluation"},
    {"reporting"},
    {"experiments"},
    {"papers", "own_pictures"},
    {"page", "book", "cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def _layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imported_layers(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.split(".")[1] for name in names if name.startswith("retrieval_geometry.")}
    return inside & LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_layers_are_respected(path: Path) -> None:
    own = LEVEL[_layer(path)]
    above = {name for name in _imported_layers(path) if LEVEL[name] > own}
    assert not above, f"{path.name} imports from later layers: {above}"
    if _layer(path) in {"distances", "image_models"}:
        assert "datasets" not in _imported_layers(path)


def test_papers_do_not_import_each_other() -> None:
    """What two of them need is in ``experiments``."""
    for folder in (path for path in (SOURCE / "papers").iterdir() if path.is_dir()):
        for path in folder.glob("*.py"):
            found = set(re.findall(r"retrieval_geometry\.papers\.(\w+)", path.read_text()))
            assert found <= {folder.name}, path


def test_notebooks_carry_no_outputs_and_are_in_step() -> None:
    from retrieval_geometry.book.pairs import out_of_step
    from retrieval_geometry.book.project import Project

    assert out_of_step(Project(ROOT)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "book").rglob("*.py")), ids=lambda path: path.name)
def test_numbers_of_exercises_are_references(path: Path) -> None:
    """They run through the whole book, so that a typed one is wrong from the second chapter on."""
    typed = re.findall(r"^#.*\bexercises? \d+", path.read_text(), re.I | re.M)
    assert typed == []
