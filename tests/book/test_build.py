"""The whole graph on a small book: build, do nothing, rebuild the least, survive a kill, name a failure."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from retrieval_geometry.book import build as build_module
from retrieval_geometry.book.build import build
from retrieval_geometry.book.lock import holders
from retrieval_geometry.book.pages import check_pages
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.stage import BookError, failure

from .conftest import small_book, write_chapter

pytestmark = pytest.mark.slow


def _times(project: Project) -> dict[str, int]:
    made = [*project.executed.glob("[0-9]*.ipynb"), project.html / "index.html"]
    return {path.name: path.stat().st_mtime_ns for path in made}


def test_build_rebuilds_only_what_changed(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert build(project=project) == 0
    costs = capfd.readouterr().out.splitlines()[-6:-1]
    names = ["Job", "chapter 01_first", "chapter 02_second", "the pages", "all jobs"]
    assert sorted(line.split("  ")[0] for line in costs) == sorted(names)
    page = (project.html / "what_this_build_cost.html").read_text()
    assert f'<td class="text-right"><p>{costs[-1].split()[2]}</p></td>' in page
    first = _times(project)
    assert sorted(first) == ["01_first.ipynb", "02_second.ipynb", "index.html"]
    assert check_pages(project.html) == []

    assert build(project=project) == 0
    assert _times(project) == first
    assert capfd.readouterr().out.splitlines()[:-1] == []

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


def test_a_failure_of_the_pages_is_told_without_traceback(tmp_path: Path) -> None:
    traceback = "Traceback (most recent call last):\n  File 'main.py'\nRuntimeError: an error\n"
    found = failure(f"OSError: [Errno 28] No space left on device\n{traceback}", tmp_path)
    assert str(found) == f"[Errno 28] No space left on device: '{tmp_path}'"
    assert isinstance(found, OSError)
    found = failure(f"index.md:3: WARNING: no such label\n{traceback}", tmp_path)
    assert str(found) == "Jupyter Book failed:\nindex.md:3: WARNING: no such label\n"
    assert isinstance(found, BookError)


def test_a_build_whose_command_is_killed_goes_on_and_keeps_others_out(project: Project) -> None:
    marker = project.root / "started"
    write_chapter(
        project,
        "02_second",
        "import pathlib, time\n\nstarted = pathlib.Path('started')\nwait = not started.exists()\n"
        "started.touch()\ntime.sleep(600 if wait else 0)",
    )
    command = [sys.executable, "-m", "retrieval_geometry", "build"]
    process = subprocess.Popen(command, cwd=project.root, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marker.exists()
    with pytest.raises(BlockingIOError, match=f"another build.*{process.pid}"):
        build(project=project)
    process.kill()
    process.wait()
    with pytest.raises(BlockingIOError, match="another build") as caught:
        build(project=project)
    assert "\n" not in str(caught.value)
    still = holders(project.root)
    assert any("ipykernel" in " ".join(psutil.Process(number).cmdline()) for number in still)
    for number in still:
        os.kill(number, signal.SIGKILL)
    assert not (project.executed / "02_second.ipynb").exists()
    assert build(project=project) == 0
    assert (project.executed / "02_second.ipynb").exists()


def test_what_is_missing_is_made(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert build(project=project) == 0
    lost = [project.executed / "01_first.ipynb", project.html / "notebooks" / "02_second.html"]
    for path in lost:
        path.unlink()
    assert build(project=project) == 0
    assert all(path.is_file() for path in lost)
    capfd.readouterr()
    page = project.html / "index.html"
    page.write_text(page.read_text()[:100])
    shutil.rmtree(project.staging / "_build" / ".doctrees")
    assert build(project=project) == 0
    assert "Welcome" in page.read_text()
    assert "build/html/.complete is made again: a page is missing or damaged" in capfd.readouterr().out


def test_the_book_is_not_ready_when_something_is_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_module, "run_whole", lambda *arguments: 0)  # says that all went well
    assert build(project=project) == 1
    output = capfd.readouterr()
    assert "ready" not in output.out
    assert "build/executed/01_first.ipynb is not current: there is none" in output.err


def test_a_folder_and_a_value_with_every_kind_of_sign(tmp_path: Path) -> None:
    project = small_book(tmp_path / "p q's é {x} [y] #b $(touch X)")
    write_chapter(project, "01_first", "from pathlib import Path\n\nPath('told').write_text(data_root)")
    data = "010 {x} #b: 'q\"é $(touch X)"
    assert build(project=project, targets=["build/executed/01_first.ipynb"], data_root=data) == 0
    assert (project.root / "told").read_text() == data
    assert not list(tmp_path.rglob("X"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu$(touch X)"}, r"device 'cpu\$\(touch X\)' is not usable here"),
        ({"profile": "quick;touch X"}, "profile must be one of quick, real, paper"),
        ({"targets": ["build/executed/01_frist.ipynb"]}, "targets must be files that the build makes"),
        ({"targets": ["html"]}, "targets must be files that the build makes"),
        ({"data_root": os.fsdecode(b"\xff")}, "data_root must be a name in UTF-8"),
    ],
)
def test_unusable_arguments_are_refused_at_the_door(
    project: Project, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(project=project, **settings)
    assert not project.build.exists()
    assert not list(project.root.rglob("X"))


def test_a_folder_that_cannot_be_made_is_named(project: Project) -> None:
    project.build.mkdir()
    project.executed.write_text("a file in the way")
    with pytest.raises(OSError, match=r"File exists|Not a directory") as caught:
        build(project=project)
    assert caught.value.filename == str(project.executed)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of what Snakemake would do, instead of doing it."""
    lines: list[str] = []

    def plan(command: Sequence[str], environment: Mapping[str, str], lock: int) -> int:
        quiet = command.index("--quiet")
        words = [*command[:3], "--dry-run", "--printshellcmds", *command[3:quiet], *command[quiet + 4 :]]
        done = subprocess.run(words, env=environment, stdin=lock, capture_output=True, text=True)
        lines.extend((done.stdout + done.stderr).splitlines())
        return done.returncode

    monkeypatch.setattr(build_module, "run_whole", plan)
    return lines


@pytest.mark.parametrize("value", ["010", "1e3", "{x}", "#b", "a: b", "-x", "$(touch X)", "'", "null"])
def test_settings_reach_the_programs_as_they_are(project: Project, planned: list[str], value: str) -> None:
    build(project=project, data_root=value)
    commands = [shlex.split(line) for line in planned if "retrieval_geometry.book execute" in line]
    assert len(commands) == 2, planned
    assert all(f"--data-root={value}" in words for words in commands)


def test_all_that_is_stale_is_made_in_order_whatever_the_times_of_files(
    project: Project, planned: list[str]
) -> None:
    runs = ("learning-bench", "wasserstein-ablations")
    write_chapter(project, "02_second", "\n".join(f"load_or_run({run!r}, profile)" for run in runs))
    (project.build / "results").mkdir(parents=True)
    for place, run in enumerate(runs):  # there, and of no use; the later one is older
        path = project.build / "results" / f"{run}-quick.json"
        path.write_text("{}")
        os.utime(path, (1e9 - place, 1e9 - place))
    build(project=project, cores=2)
    jobs = [line.split() for line in planned if "retrieval_geometry run" in line]
    made = [(words[words.index("run") + 1], "--part" in words) for words in jobs]
    # A run comes behind its parts, and all of the second behind the first, whose models it needs.
    assert made == [(run, part) for run in runs for part in (True, True, False)], planned
    assert sum("retrieval_geometry.book execute" in line for line in planned) == 2
    assert sum("retrieval_geometry.book html" in line for line in planned) == 1
