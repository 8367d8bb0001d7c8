"""The sources of the book itself, before anything is executed: names, labels, fences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

from retrieval_geometry.book.sources import (
    MOST_HIDDEN,
    MOST_LINES,
    Notebook,
    fence_problems,
    hidden_share,
    length_problems,
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


SHOWN_AS = {"say": "", "table": "tab-", "markdown": "tab-"}
"""Methods of a page that give something to the text, and what they set before its name."""


def _pattern(name: ast.expr) -> str:
    """A pattern for a literal name, or for one with computed parts, which may be anything."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in parts)


def _names_given(call: ast.Call) -> Iterator[str]:
    """Patterns for the names that a call of ``glue`` or of a page gives to the text."""
    if isinstance(call.func, ast.Name) and call.func.id == "glue":
        yield _pattern(call.args[0])
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "say":
        for keyword in call.keywords:
            if keyword.arg is not None:
                yield keyword.arg
            elif isinstance(keyword.value, ast.DictComp):
                yield _pattern(keyword.value.key)
            elif isinstance(keyword.value, ast.Dict):
                yield from (_pattern(key) for key in keyword.value.keys if key is not None)
    elif isinstance(call.func, ast.Attribute) and call.func.attr in {"table", "markdown"}:
        yield _pattern(call.args[0])


def _glue_patterns(notebook: Notebook, number: str) -> Iterator[str]:
    """Yield a pattern for each name that the code of a chapter gives to its text."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for call in (node for cell in cells for node in ast.walk(ast.parse(cell["source"]))):
        if isinstance(call, ast.Call):
            for name in _names_given(call):
                before = (
                    f"{SHOWN_AS[call.func.attr]}{number}-" if isinstance(call.func, ast.Attribute) else ""
                )
                yield before + name.replace("_", "-")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_glued_name_is_used_and_every_used_name_is_glued(
    path: Path, sources: dict[str, Notebook]
) -> None:
    notebook = sources[path.stem]
    patterns, used = set(_glue_patterns(notebook, path.stem[:2])), used_names(notebook)
    assert not {name for name in patterns if not any(re.fullmatch(name, one) for one in used)}
    assert not {one for one in used if not any(re.fullmatch(name, one) for name in patterns)}


def test_every_label_is_set_once_and_every_figure_and_table_is_cited(sources: dict[str, Notebook]) -> None:
    assert [line for line in source_problems(sources) if "label" in line[1] or "refers" in line[1]] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_fence_swallows_a_cell(path: Path, sources: dict[str, Notebook]) -> None:
    notebook = sources[path.stem]
    assert list(fence_problems(notebook)) == []
    assert len(notebook["cells"]) == len(re.findall(r"^# %%", path.read_text(), re.M))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_cell_is_too_long(path: Path, sources: dict[str, Notebook]) -> None:
    assert list(length_problems(sources[path.stem])) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_most_code_is_shown(path: Path, sources: dict[str, Notebook]) -> None:
    assert hidden_share(sources[path.stem]) <= MOST_HIDDEN


def _chapter(*cells: tuple[str, int]) -> Notebook:
    """A chapter of code cells: the tag of each, and its number of lines, beside a comment and a blank."""
    code = "# why\n\n{}".format
    return {
        "cells": [
            {"cell_type": "code", "metadata": {"tags": [tag]}, "source": code("x = 1\n" * lines)}
            for tag, lines in cells
        ]
    }


def test_a_cell_that_is_too_long_is_a_problem() -> None:
    assert list(length_problems(_chapter(("hide-input", MOST_LINES), ("", MOST_LINES)))) == []
    (problem,) = length_problems(_chapter(("", 1), ("hide-input", MOST_LINES + 1)))
    assert problem.startswith(f"code cell 2 has {MOST_LINES + 1} lines")


@pytest.mark.parametrize("tag", ["hide-input", "remove-cell"])
def test_hidden_code_is_counted(tag: str) -> None:
    assert hidden_share(_chapter((tag, 5), ("remove-output", 15))) == MOST_HIDDEN
    assert hidden_share(_chapter((tag, 6), ("remove-output", 14))) == 0.3
    assert hidden_share(_chapter()) == 0
