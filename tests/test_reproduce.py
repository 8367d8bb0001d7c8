"""A clean build of HEAD is compared with the last build; what differs is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from retrieval_geometry.book.project import Project
from tests import reproduce
from tests.book.conftest import small_book, write_chapter


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small book under version control, with a last build; a clean build gives what the script says."""
    project = small_book(tmp_path / "p q's é")
    git = ["git", "-C", str(project.root), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (project.root / ".gitignore").write_text("build/\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "a book"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(reproduce, "build", _build)
    _build(project, 1, None)
    return project


def _build(project: Project, threads: int, cores: int | None) -> int:
    project.executed.mkdir(parents=True)
    for name in project.chapter_names():
        text = (project.chapters / f"{name}.py").read_text()
        cell = {"cell_type": "code", "source": text, "outputs": []}
        (project.executed / f"{name}.ipynb").write_text(json.dumps({"cells": [cell]}))
    return 0


def test_the_same_again(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([]) == 0
    assert capsys.readouterr().out == "nothing differs but times\n"
    assert not (project.build / "reproduction").exists()


def test_what_differs_is_told_and_kept(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    write_chapter(project, "02_second", "print('edited')")
    shutil.rmtree(project.executed)
    _build(project, 1, None)
    assert reproduce.main(["--threads", "2"]) == 1
    said = capsys.readouterr().out
    assert "uncommitted changes are left out: HEAD is built" in said
    assert "last build: 02_second.ipynb cell 0 source: " in said
    assert (project.build / "reproduction" / "build" / "executed" / "02_second.ipynb").exists()


def test_without_a_last_build_and_with_a_failing_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.build)
    assert reproduce.main([]) == 0
    assert "no last build" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "build", lambda *arguments: 3)
    assert reproduce.main([]) == 3
    assert "failed" in capsys.readouterr().err
