"""Buttons and installing cells lead to where the project is published, and are absent before that."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from retrieval_geometry.book.graph import pages_source
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.published import INSTALL, repository_url
from retrieval_geometry.book.stage import stage

ADDRESS = "https://github.com/someone/book"


@pytest.fixture(autouse=True)
def _no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)


def git(project: Project, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(project.root), *arguments], check=True, capture_output=True)


@pytest.fixture
def executed(project: Project) -> Project:
    """The small book as if its chapters had been executed."""
    project.executed.mkdir(parents=True)
    cost: dict[str, Any] = {"seconds": 1, "processor_seconds": 1, "peak_memory_mb": 1, "cpus": 1}
    cost["machine"] = "here"
    cost["parameters"] = {"profile": "quick", "device": "cpu", "seed": 0}
    title = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Title\n\nText."}
    code = {"cell_type": "code", "id": "b", "metadata": {}, "source": "1", "outputs": []}
    for name in project.chapter_names():
        notebook = {"cells": [title, code], "metadata": {"cost": cost}, "nbformat": 4, "nbformat_minor": 5}
        (project.executed / f"{name}.ipynb").write_text(json.dumps(notebook))
    git(project, "init", "--quiet")
    return project


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("git@github.com:someone/book.git", ADDRESS),
        ("ssh://git@github.com/someone/book", ADDRESS),
        ("https://github.com/someone/book/", ADDRESS),
        ("https://token@github.com/someone/book.git", ADDRESS),
        ("../github.com/someone/book.git", None),
        ("https://notgithub.com/someone/book", None),
        ("https://git.example.org/someone/book", None),
        (None, None),
    ],
)
def test_the_address_follows_from_origin(executed: Project, origin: str | None, url: str | None) -> None:
    if origin:
        git(executed, "remote", "add", "origin", origin)
    assert repository_url(executed.root) == url


def test_pages_without_a_public_origin_have_no_buttons(executed: Project) -> None:
    stage(executed, ())
    config = yaml.safe_load((executed.staging / "_config.yml").read_text())
    assert not {"repository", "launch_buttons"} & config.keys()
    assert not config["html"]["use_repository_button"]
    assert not config["html"]["use_issues_button"]
    assert "pip install" not in (executed.staging / "notebooks" / "01_first.ipynb").read_text()


def test_pages_of_a_published_project_have_buttons_and_install_it(executed: Project) -> None:
    unpublished = pages_source(executed)
    git(executed, "remote", "add", "origin", "git@github.com:someone/book.git")
    assert pages_source(executed) != unpublished
    stage(executed, ())
    config = yaml.safe_load((executed.staging / "_config.yml").read_text())
    assert config["repository"]["url"] == ADDRESS
    assert config["launch_buttons"]["colab_url"]
    assert config["html"]["use_repository_button"]
    cells = json.loads((executed.staging / "notebooks" / "01_first.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in code] == [INSTALL.format(url=ADDRESS), "1"]
    assert code[0]["metadata"]["tags"] == ["remove-cell"]


def test_the_cell_installs_the_project_only_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: commands.append(f"%{name} {line}"))
    cell = TransformerManager().transform_cell(INSTALL.format(url=ADDRESS))  # as a notebook reads it
    exec(cell, {"get_ipython": lambda: shell})
    assert commands == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(cell, {"get_ipython": lambda: shell})
    assert commands == [f"%pip install --quiet git+{ADDRESS}"]
