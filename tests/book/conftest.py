"""A small book of its own: the real Snakefile and configuration, two tiny chapters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retrieval_geometry.book.project import Project

ROOT = Path(__file__).resolve().parents[2]

HEADER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # {title}
#
# Some words, and $x^2$.

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
"""


def write_chapter(project: Project, name: str, code: str) -> Path:
    """Write a chapter whose only code cell is ``code``."""
    script = project.chapters / f"{name}.py"
    script.write_text(HEADER.format(title=name.title()) + code + "\n")
    return script


def small_book(root: Path) -> Project:
    """Make a checkout with chapters ``01_first`` and ``02_second``."""
    project = Project(root)
    (project.root / "book" / "_static").mkdir(parents=True)
    for folder in (project.chapters, project.notebooks, project.root / "book" / "results"):
        folder.mkdir()
    for name in ("Snakefile", "_config.yml", "book/_static/book.css", "book/_static/page.js"):
        shutil.copy(ROOT / name, project.root / name)
    (project.root / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n- file: notebooks/01_first\n- file: notebooks/02_second\n"
        "- file: what_this_build_cost\n"
    )
    (project.root / "book" / "references.bib").write_text("")
    (project.root / "book" / "index.md").write_text("# A small book\n\nWelcome.\n")
    write_chapter(project, "01_first", "from retrieval_geometry.book import graph\n\nprint(profile, seed)")
    write_chapter(project, "02_second", "print('second')")
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a checkout with chapters ``01_first`` and ``02_second``."""
    return small_book(tmp_path / "checkout")
