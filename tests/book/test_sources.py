"""The sources of the book itself, before anything is executed: names, labels, fences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

from retrieval_geometry.book.sources import (
    Notebook,
    fence_problems,
    read_sources,
    source_problems,
    used_names,
)

from .conftest import ROOT

CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.py"))


@pytest.fixture(scope="module")
def sources() -> dict[str, Notebook]:
    """Return the chapters as notebooks without outputs, and the first page."""
    first = {"index": read_sources(ROOT / "book")["index"]}
    return first | {path.stem: jupytext.read(path) for path in CHAPTERS}


def _glue_patterns(notebook: Notebook) -> Iterator[str]:
    """Yield a pattern for the names of each call of ``glue``; a part that is computed may be anything."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "glue":
                name = node.args[0]
                parts = name.values if isinstance(name, ast.JoinedStr) else [name]
                yield "".join(re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in parts)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_glued_name_is_used_and_every_used_name_is_glued(
    path: Path, sources: dict[str, Notebook]
) -> None:
    notebook = sources[path.stem]
    patterns, used = set(_glue_patterns(notebook)), used_names(notebook)
    assert not {name for name in patterns if not any(re.fullmatch(name, one) for one in used)}
    assert not {one for one in used if not any(re.fullmatch(name, one) for name in patterns)}


def test_every_label_is_set_once_and_every_figure_and_table_is_cited(sources: dict[str, Notebook]) -> None:
    assert [line for line in source_problems(sources) if "label" in line[1] or "refers" in line[1]] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_fence_swallows_a_cell(path: Path, sources: dict[str, Notebook]) -> None:
    notebook = sources[path.stem]
    assert list(fence_problems(notebook)) == []
    assert len(notebook["cells"]) == len(re.findall(r"^# %%", path.read_text(), re.M))
