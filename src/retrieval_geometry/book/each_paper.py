"""Text that a page says of each paper: written once, repeated for whatever papers there are."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from retrieval_geometry.experiments.registry import Paper, papers

TAG = "each-paper"
"""The tag of a Markdown cell that is repeated, with ``$name``, ``$title`` and ``$chapter`` of each paper."""


def with_each_paper(cells: list[Any], chapters: Path) -> list[Any]:
    """The cells with those of :data:`TAG` written for each paper, in the order of the papers.

    Args:
        cells: of a notebook.
        chapters: folder of the chapters that ``$chapter`` leads to.
    """
    import nbformat

    found = []
    for cell in cells:
        if TAG not in cell.metadata.get("tags", ()):
            found.append(cell)
            continue
        for paper in papers().values():
            facts = {"name": paper.name, "title": paper.title, "chapter": _chapter(paper, chapters)}
            # A new cell each time: two of one id would be no valid notebook.
            text = Template(cell.source).substitute(facts)
            found.append(nbformat.v4.new_markdown_cell(text))
    return found


def _chapter(paper: Paper, chapters: Path) -> str:
    """A link to the first chapter about a paper; its number alone while it is not written."""
    name = f"chapter {paper.chapter}"
    page = next(chapters.glob(f"{paper.chapter:02d}_*.py"), None)
    return f"[{name}]({page.stem})" if page else name
