"""Promises of the repository as a whole: layers, forbidden calls, one set of versions."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "retrieval_geometry"
# A module may import from its own layer and from those before it.
LAYERS = [
    {"_check", "_compiled", "_files", "_sources", "_text"},
    {"datasets", "image_models", "features"},
    {"distances"},
    {"losses", "coresets", "projections"},
    {"training"},
    {"evaluation"},
    {"reporting"},
    {"experiments"},
    {"book", "cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
PYTHON_312 = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_batched_lu_is_not_used(path: Path) -> None:
    """Batched LU on CPU is wrong from n of about 150 in torch 2.13 (pytorch issues 142815, 141358)."""
    calls = (
        r"(?:torch|torch\.linalg|linalg)\.(?:inv|inverse|solve|slogdet|logdet|det|lu\w*|inv_ex|solve_ex)\("
    )
    assert not re.search(calls, path.read_text())


def _locked() -> dict[str, str]:
    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line.rstrip(" \\"))
            if requirement.marker is None or requirement.marker.evaluate(PYTHON_312):
                locked[requirement.name] = str(requirement.specifier)
    return locked


def _direct() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {Requirement(line).name for group in groups for line in group} - {"uv"}


def test_every_locked_package_has_an_exact_version_and_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(blocks) > 100
    assert all("==" in block.splitlines()[0] and "--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def test_the_conda_environment_has_the_versions_of_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pins = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    pinned = {Requirement(line).name: str(Requirement(line).specifier) for line in pins}
    locked = _locked()
    assert pinned == {name: locked[name] for name in sorted(_direct())}


def test_notebooks_carry_no_outputs_and_are_in_step() -> None:
    from retrieval_geometry.book.pairs import out_of_step
    from retrieval_geometry.book.project import Project

    assert out_of_step(Project(ROOT)) == []
