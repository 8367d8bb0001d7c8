"""Run the whole graph, safely: one build at a time, resumable, nothing half-done left behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retrieval_geometry.book.graph import stale
from retrieval_geometry.book.project import Project


def build(
    profile: str = "quick",
    data_root: str = "data",
    device: str = "cpu",
    seed: int = 0,
    cores: int | None = None,
    targets: Sequence[str] = (),
    project: Project | None = None,
) -> int:
    """Build what is out of date and return the exit status (0: the book is there and current).

    Args:
        profile: ``quick``, ``real`` or ``paper``.
        data_root: folder that holds the data sets of the ``real`` and ``paper`` profiles.
        device: torch device of the experiments and chapters.
        seed: seed handed to every experiment and chapter.
        cores: processes at a time; all cores by default.
        targets: files to make instead of the whole book, such as ``build/executed/01_metrics.ipynb``.
        project: the checkout; the one around the working directory by default.

    Raises:
        BlockingIOError: another build of this checkout is running.
    """
    project = project or Project.find()
    project.build.mkdir(exist_ok=True)
    settings = {"profile": profile, "data_root": data_root, "device": device, "seed": seed}
    with _only_build(project.build / ".lock"):
        again = stale(project, settings, targets)
        for path, why in again.items():
            print(f"{path} is made again: {why}", flush=True)
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(project.root / "Snakefile")),
            *("--cores", str(cores or os.cpu_count() or 1), "--directory", str(project.root)),
            # Our own lock, released by the system even after a kill, stands in for Snakemake's.
            *("--nolock", "--rerun-incomplete", "--keep-going", "--quiet", "host", "reason", "rules"),
            *("--rerun-triggers", "mtime"),
            *("--config", *(f"{key}={value}" for key, value in settings.items())),
            *(("--forcerun", *again) if again else ()),
            *(("--", *targets) if targets else ()),
        ]
        environment = {
            **os.environ,
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        status = subprocess.run(command, env=environment, check=False).returncode
    if status == 0 and not targets:
        print(f"The book is ready: {project.html / 'index.html'}")
    return status


@contextmanager
def _only_build(path: Path) -> Iterator[None]:
    """Hold the build lock of a checkout."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another build of {path.parents[1]} is running; wait for it or stop it"
            ) from None
        yield
