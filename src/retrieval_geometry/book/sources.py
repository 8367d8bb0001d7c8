"""Check the sources of the pages.

Glued names are used, labels are cited, no fence swallows a cell, no cell is too long, and most code is shown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

USE = re.compile(r"\{glue:?\w*\}(?:`([^`:]+)[^`]*`|[ \t]+(\S+))")
LABEL = re.compile(r"^[ \t]*:(?:name|label):[ \t]*(\S+)|^\$\$[ \t]*\(([\w:-]+)\)|^\(([\w:-]+)\)=", re.M)
CITATION = re.compile(r"\{(?:numref|ref|eq|prf:ref)\}`(?:[^`<]*<)?([^`<>]+)>?`")
MARKER = re.compile(r"^(?:# )?%%(?: |$)", re.M)
BROKEN_FENCE = re.compile(r"^[ \t]*`{3,}[^`\n]+`.*$", re.M)

MOST_LINES = 25
"""Lines of code of a cell: what a reader sees at once."""

MOST_HIDDEN = 0.25
"""The share of a chapter's lines of code that a reader does not see at first."""

HIDING = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
"""Tags of cells whose code is folded or left out."""

Notebook = Mapping[str, Any]


def read_sources(folder: Path) -> dict[str, Notebook]:
    """Return the sources below ``folder``, notebooks and Markdown alike, by their path without ending."""
    read: dict[str, Notebook] = {}
    for path in sorted(folder.rglob("*.*")):
        name = str(path.relative_to(folder).with_suffix(""))
        if path.suffix == ".ipynb":
            read[name] = json.loads(path.read_text())
        elif path.suffix == ".md":
            read[name] = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": path.read_text()}]}
    return read


def source_problems(sources: Mapping[str, Notebook]) -> Iterator[tuple[str, str]]:
    """Yield page and problem for everything that is wrong in the sources of a book.

    Args:
        sources: executed notebooks by the name of their page.
    """
    labels = {page: list(_labels(notebook)) for page, notebook in sources.items()}
    count = Counter(label for names in labels.values() for label in names)
    cited = {name for notebook in sources.values() for name in CITATION.findall(prose(notebook))}
    for page, notebook in sources.items():
        for name in sorted(set(labels[page])):
            if count[name] > 1:
                yield page, f"the label {name!r} stands {count[name]} times"
            elif name.startswith(("fig-", "tab-")) and name not in cited:
                yield page, f"no text refers to {name!r}: cite it with {{numref}}"
        # Both ways: a number that nobody cites is one that nobody checks.
        glued, used = glued_names(notebook), used_names(notebook)
        yield from ((page, f"{name!r} is glued, but not used") for name in sorted(glued - used))
        yield from ((page, f"{name!r} is used, but not glued") for name in sorted(used - glued))
        yield from ((page, problem) for problem in fence_problems(notebook))


def fence_problems(notebook: Notebook) -> Iterator[str]:
    """Yield the cells in which a fence ends too early, or too late.

    Markdown knows no backtick fence with a backtick in its head; Jupytext does, and takes the cells that
    follow for a part of the block.
    """
    for number, cell in enumerate(notebook["cells"]):
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown" and (match := BROKEN_FENCE.search(source)):
            yield f"a backtick in the head of a backtick fence ends it, use ::: instead: {match[0][:80]!r}"
        if cell["cell_type"] == "markdown" and MARKER.search(source):
            yield f"cell {number + 1} holds the marker of another cell: {source[:60]!r}"


def length_problems(notebook: Notebook) -> Iterator[str]:
    """Yield the cells with more than :data:`MOST_LINES` lines of code; blank lines and comments are free."""
    for number, cell in enumerate(_code_cells(notebook)):
        if (lines := _lines_of_code(cell)) > MOST_LINES:
            begin = _text(cell["source"])[:60]
            yield f"code cell {number + 1} has {lines} lines, at most {MOST_LINES} are read: {begin!r}"


def hidden_share(notebook: Notebook) -> float:
    """Return the share of a notebook's lines of code that its page folds or leaves out, in [0, 1]."""
    lines = [(_lines_of_code(cell), _is_hidden(cell)) for cell in _code_cells(notebook)]
    return sum(n for n, hidden in lines if hidden) / max(1, sum(n for n, _ in lines))


def used_names(notebook: Notebook) -> set[str]:
    """Return the names that the text of a notebook shows by a glue role or directive."""
    return {role or directive for role, directive in USE.findall(prose(notebook))}


def glued_names(notebook: Notebook) -> set[str]:
    """Return the names that an executed notebook has glued."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    scraps = [output.get("metadata", {}).get("scrapbook", {}) for output in outputs]
    return {scrap["name"] for scrap in scraps if "name" in scrap}


def prose(notebook: Notebook) -> str:
    """Return the text of a notebook: its Markdown cells, and the captions of its figures."""
    cells = notebook["cells"]
    texts = [_text(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return "\n\n".join([*texts, *(str(figure.get("caption", "")) for figure in _figures(notebook))])


def _labels(notebook: Notebook) -> Iterator[str]:
    """Yield every label of a notebook, as often as it is set."""
    for names in LABEL.findall(prose(notebook)):
        yield from filter(None, names)
    yield from (figure["name"] for figure in _figures(notebook) if "name" in figure)


def _figures(notebook: Notebook) -> list[Mapping[str, Any]]:
    """Return what the code cells say about the figures that they draw."""
    notes = [cell["metadata"].get("mystnb", {}) for cell in notebook["cells"]]
    return [note["figure"] for note in notes if "figure" in note]


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _code_cells(notebook: Notebook) -> list[Mapping[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _is_hidden(cell: Mapping[str, Any]) -> bool:
    return not HIDING.isdisjoint(cell["metadata"].get("tags", ()))


def _lines_of_code(cell: Mapping[str, Any]) -> int:
    lines = (line.strip() for line in _text(cell["source"]).splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)
