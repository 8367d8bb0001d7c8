"""A finished build to disturb: builds are started, processes found, the lock watched, outcomes compared."""

from __future__ import annotations

import fcntl
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from retrieval_geometry.book.graph import PAGES
from retrieval_geometry.book.lock import NAME
from retrieval_geometry.book.project import Project

from .compare import differences

PROGRAM = (sys.executable, "-m", "retrieval_geometry", "build", "--cores", "2")
PATTERNS = {
    "snakemake": "-m snakemake",
    "experiment": "retrieval_geometry run",
    "chapter": "retrieval_geometry.book execute",
    "kernel": "ipykernel_launcher",
    "HTML step": "retrieval_geometry.book html",
    "Jupyter Book": "jupyter_book.cli.main",
}
"""How the command line of each process of a build is known."""

PATIENCE = 900.0
"""Seconds after which a build counts as one that hangs."""


class Failure(AssertionError):
    """A fault that was not survived."""


@dataclass
class Drill:
    """A finished build that faults are tried on.

    Attributes:
        project: the checkout.
        variables: the environment of its builds.
        dice: which moments and bytes are hit.
        reference: a copy of the build that every later one must equal.
    """

    project: Project
    variables: Mapping[str, str]
    dice: random.Random
    reference: Path
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.reference.with_name("build.log")
        self.settle(compared=False)
        shutil.copytree(self.project.build, self.reference, ignore=shutil.ignore_patterns("cache", "book"))

    def start(
        self, variables: Mapping[str, str] | None = None, within: Sequence[str] = (), **options: object
    ) -> psutil.Popen:
        """Start a build as a shell starts it; ``within`` is a command that runs another."""
        with self.log.open("wb") as log:
            return psutil.Popen(
                [*within, *PROGRAM],
                cwd=self.project.root,
                env=dict(self.variables if variables is None else variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def end(self, build: psutil.Popen) -> int:
        """Wait for a build, which must end with a message and without a traceback of ours."""
        try:
            status = build.wait(timeout=PATIENCE)
        except psutil.TimeoutExpired:
            for process in (*build.children(recursive=True), build):
                process.kill()
            raise Failure("the build hangs") from None
        if "Traceback" in (said := self.said()):
            raise Failure(f"a traceback: {said[said.index('Traceback') :][-400:]}")
        return status

    def said(self) -> str:
        """What the last build printed."""
        return self.log.read_text(errors="replace")

    def settle(self, compared: bool = True) -> None:
        """An undisturbed build, which must end well and equal the reference."""
        if status := self.end(self.start()):
            raise Failure(f"an undisturbed build ends with {status}: {self.said()[-400:]}")
        if "The book is ready" not in self.said() or not (self.project.root / PAGES).is_file():
            raise Failure("the build says nothing, or what is not so")
        if compared and (lines := differences(self.reference, self.project.build)):
            raise Failure("; ".join(lines[:3]))

    def unmake(self, kind: str) -> None:
        """Remove outputs, so that a process of this kind has work."""
        build = self.project.build
        if kind in ("HTML step", "Jupyter Book"):
            (build / "pages.digest").unlink(missing_ok=True)
            (self.project.root / PAGES).unlink(missing_ok=True)
        elif kind == "experiment":
            for path in self.dice.sample(
                results := sorted(build.glob("results/*.json")), min(1, len(results))
            ):
                path.unlink()
            shutil.rmtree(build / "cache" / "parts", ignore_errors=True)
        else:
            name = self.dice.choice(self.project.chapter_names())
            (self.project.executed / f"{name}.ipynb").unlink(missing_ok=True)

    def some(self, pattern: str) -> Path:
        """One of the files of the build, by chance; the build is finished if there is none."""
        found = sorted(path for path in self.project.build.glob(pattern) if path.is_file())
        if not found:
            self.settle()
            found = sorted(path for path in self.project.build.glob(pattern) if path.is_file())
        return self.dice.choice(found)

    def process(self, build: psutil.Popen, kind: str) -> psutil.Process:
        """The process of a kind in a running build, as soon as there is one."""
        until = time.monotonic() + PATIENCE
        while build.poll() is None and time.monotonic() < until:
            for process in descendants(build):
                if PATTERNS[kind] in command_of(process):
                    return process
            time.sleep(0.02)
        raise Failure(f"no process of kind {kind} was seen: {self.said()[-300:]}")

    def lock_is_free(self) -> bool:
        """Whether a build could begin now."""
        with (self.project.root / NAME).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def lock_outlives_all(self, processes: Sequence[psutil.Process]) -> None:
        """Watch that the lock is held until the last of these has ended, and no longer."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            alive = [process for process in processes if is_alive(process)]
            if self.lock_is_free():
                time.sleep(0.3)
                if left := [command_of(process) for process in alive if is_alive(process)]:
                    raise Failure(f"the lock is free while {left} works")
                return
            time.sleep(0.02)
        raise Failure("the lock is held although nobody works")


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
