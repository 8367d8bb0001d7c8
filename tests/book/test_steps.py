"""The steps of ``python -m retrieval_geometry.book``: what each prints, and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from retrieval_geometry.book import __main__ as steps
from retrieval_geometry.book.project import Project

from .conftest import write_chapter

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a step in the small book; returns the exit status, and what it printed to both streams."""
    monkeypatch.chdir(project.root)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["book", *words])
        status = steps.main()
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_pairs_are_written_and_checked(project: Project, run: Run) -> None:
    assert run("sync") == (0, "wrote 01_first.ipynb\nwrote 02_second.ipynb\n", "")
    assert run("sync") == (0, "all notebooks are in step\n", "")
    assert run("check-pairs") == (0, "", "")
    write_chapter(project, "01_first", "print('edited')")
    status, _, errors = run("check-pairs")
    assert status == 1
    assert "['01_first']; run `make sync`" in errors


def test_what_is_stale_is_listed_with_its_reason(run: Run) -> None:
    status, printed, _ = run("stale")
    assert status == 0
    lines = dict(line.split(": ", 1) for line in printed.splitlines())
    assert lines["build/executed/01_first.ipynb"] == "there is none"


def test_pages_are_checked(project: Project, run: Run) -> None:
    project.html.mkdir(parents=True)
    page = project.html / "index.html"
    page.write_text("<article><h1>A book</h1></article>")
    assert run("check-pages") == (0, "all pages are sound\n", "")
    page.write_text('<article><a href="gone.html">gone</a></article>')
    assert run("check-pages") == (1, "", "index.html: broken link: gone.html\n")


def test_a_mistake_is_one_line_and_ctrl_c_is_told(
    project: Project, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, errors = run("check-pages")
    assert status == 1
    assert errors.strip() == f"no built book at {project.html}: run `make book` first"

    def interrupted(project: Project) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "sync", interrupted)
    assert run("sync") == (130, "", "\ninterrupted\n")
