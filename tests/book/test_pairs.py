"""Chapters and their notebooks."""

from __future__ import annotations

import json

import pytest

from retrieval_geometry.book.pairs import out_of_step, sync
from retrieval_geometry.book.project import Project

from .conftest import write_chapter


def test_sync_writes_clean_notebooks_once(project: Project) -> None:
    assert out_of_step(project) == ["01_first", "02_second"]
    assert sync(project) == ["01_first", "02_second"]
    assert sync(project) == []
    notebook = json.loads((project.notebooks / "01_first.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) == 2
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_an_edited_a_tampered_and_an_orphaned_pair_are_seen(project: Project) -> None:
    sync(project)
    write_chapter(project, "01_first", "print('edited')")
    pair = project.notebooks / "02_second.ipynb"
    pair.write_text(pair.read_text().replace("second", "third"))
    (project.notebooks / "09_gone.ipynb").write_text("{}")
    assert out_of_step(project) == ["01_first", "02_second", "09_gone"]
    sync(project)
    assert not (project.notebooks / "09_gone.ipynb").exists()


def test_notebooks_of_a_published_project_install_it_first(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    sync(project)
    assert "pip install" not in (project.notebooks / "01_first.ipynb").read_text()
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    assert out_of_step(project) == []
    assert sync(project) == ["01_first", "02_second"]
    cells = json.loads((project.notebooks / "01_first.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert "".join(code[0]["source"]).endswith("%pip install --quiet git+https://github.com/someone/book")
    monkeypatch.setenv("GITHUB_REPOSITORY", "fork/book")
    assert out_of_step(project) == []  # a fork that has not synced passes its checks
    assert sync(project) == ["01_first", "02_second"]
