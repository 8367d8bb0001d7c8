"""The whole graph on a small book: build, do nothing, rebuild the least, survive a kill, name a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from retrieval_geometry.book.build import build
from retrieval_geometry.book.pages import check_pages
from retrieval_geometry.book.project import Project

from .conftest import write_chapter

pytestmark = pytest.mark.slow


def _times(project: Project) -> dict[str, int]:
    made = [*project.executed.glob("[0-9]*.ipynb"), project.html / "index.html"]
    return {path.name: path.stat().st_mtime_ns for path in made}


def test_build_rebuilds_only_what_changed(project: Project) -> None:
    assert build(project=project) == 0
    first = _times(project)
    assert sorted(first) == ["01_first.ipynb", "02_second.ipynb", "index.html"]
    assert check_pages(project.html) == []

    assert build(project=project) == 0
    assert _times(project) == first

    write_chapter(project, "02_second", "print('edited')")
    assert build(project=project) == 0
    second = _times(project)
    assert second["01_first.ipynb"] == first["01_first.ipynb"]
    assert second["02_second.ipynb"] > first["02_second.ipynb"]
    assert "edited" in (project.html / "notebooks" / "02_second.html").read_text()


def test_a_failing_chapter_fails_the_build_by_name(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    write_chapter(project, "02_second", "raise ValueError('deliberate')")
    assert build(project=project) != 0
    output = capfd.readouterr()
    assert "chapter 02_second.py failed in code cell" in output.out + output.err
    assert "deliberate" in output.out + output.err
    assert not project.html.exists()


def test_a_warning_fails_the_pages_and_keeps_the_old_ones(project: Project) -> None:
    assert build(project=project) == 0
    for text, status in (("{ref}`no-such-label`", 1), ("Mended.", 0)):
        before = (project.html / "index.html").read_text()
        (project.root / "book" / "index.md").write_text(f"# A small book\n\n{text}\n")
        assert build(project=project) == status
        assert ((project.html / "index.html").read_text() == before) == bool(status)


def test_a_killed_build_resumes(project: Project) -> None:
    marker = project.root / "started"
    write_chapter(
        project,
        "02_second",
        "import pathlib, time\n\nstarted = pathlib.Path('started')\nwait = not started.exists()\n"
        "started.touch()\ntime.sleep(120 if wait else 0)",
    )
    call = f"from pathlib import Path; from retrieval_geometry.book.project import Project; \
from retrieval_geometry.book.build import build; build(project=Project(Path({str(project.root)!r})))"
    process = subprocess.Popen([sys.executable, "-c", call], start_new_session=True)
    deadline = time.monotonic() + 100
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(BlockingIOError, match="another build"):
        build(project=project)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert marker.exists()
    assert not (project.executed / "02_second.ipynb").exists()
    _wait_for_lock(project)
    assert build(project=project) == 0
    assert (project.executed / "02_second.ipynb").exists()


def _wait_for_lock(project: Project) -> None:
    """The lock belongs to the killed processes until the system has buried the last of them."""
    import fcntl

    for _ in range(100):
        with (project.build / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
