"""Run the whole graph, safely: one build at a time, resumable, nothing half-done left behind."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_geometry.book.costs import report
from retrieval_geometry.book.graph import SETTINGS, outputs, results_of, stale
from retrieval_geometry.book.lock import only_build
from retrieval_geometry.book.processes import Stopped, run_whole
from retrieval_geometry.book.project import Project
from retrieval_geometry.experiments import check_profile


def build(
    profile: str = "quick",
    data_root: str = "data",
    device: str = "cpu",
    seed: int = 0,
    cores: int | None = None,
    targets: Sequence[str] = (),
    project: Project | None = None,
    threads: int = 1,
) -> int:
    """Build what is out of date or missing and return the exit status (0: the book is there and current).

    Args:
        profile: ``quick``, ``real`` or ``paper``.
        data_root: folder that holds the data sets of the ``real`` and ``paper`` profiles.
        device: torch device of the experiments and chapters.
        seed: seed handed to every experiment and chapter.
        cores: cores to use; all by default.
        targets: files to make instead of the whole book, such as ``build/executed/01_metrics.ipynb``.
        project: the checkout; the one around the working directory by default.
        threads: of each experiment; those that train, and chapters, have one, so that no number of theirs
            depends on it.

    Raises:
        ValueError: an argument is not usable; the message says what it should be.
        BlockingIOError: another build of this checkout is running; the message names its processes.
    """
    settings = {
        "profile": check_profile(profile),
        "data_root": _check_text(data_root),
        "device": _check_device(device),
        "seed": seed,
    }
    project = project or Project.find()
    targets = [_check_target(project, profile, target) for target in targets]
    with only_build(project.root) as lock:
        again = stale(project, settings, targets)
        try:
            status = _make(project, settings, again, cores, threads, targets, lock) if again else 0
        except Stopped as stopped:
            print("stopped; the next build goes on from here", file=sys.stderr)
            return stopped.status
        # A source that is edited while the build runs leaves an output that is old already.
        left = stale(project, settings, targets) if again and status == 0 else {}
    for path, why in left.items():
        print(f"{path} is not current: {why}; build once more", file=sys.stderr)
    if status or left:
        return 1
    if not targets:
        if again:
            print(report(project, results_of(project, profile)))
        print(f"The book is ready: {project.html / 'index.html'}")
    return 0


def _make(
    project: Project,
    settings: Mapping[str, Any],
    again: Mapping[str, str],
    cores: int | None,
    threads: int,
    targets: Iterable[str],
    lock: int,
) -> int:
    """Have Snakemake make the files ``again``, in order; the values say why."""
    for path, why in again.items():
        if (project.root / path).exists():
            print(f"{path} is made again: {why}", flush=True)
    # A full or read-only disk is found now, with its name, and not after an hour.
    for folder in sorted({str(Path(path).parent) for path in again} | {".snakemake", "build/cache"}):
        check_writable(project.root / folder)
    # Snakemake would cut the threads of a job down to the cores.
    cores = max(cores or os.cpu_count() or 1, threads)
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(project.root / "Snakefile")),
        *("--cores", str(cores), "--directory", str(project.root)),
        *("--set-threads", f"experiment={threads}"),
        # What there is says itself whether it is whole and current: Snakemake's own book-keeping, which a
        # kill can leave wrong, has no say; our lock, released by the system even then, stands in for its own.
        *("--nolock", "--ignore-incomplete", "--drop-metadata", "--rerun-triggers", "mtime"),
        *("--keep-going", "--quiet", "host", "reason", "rules"),
        *("--profile", "none", "--workflow-profile", "none"),
        *("--runtime-source-cache-path", str(project.build / "cache" / "snakemake")),
        *("--forcerun", *again, "--", *targets),
    ]
    return run_whole(
        command, {**os.environ, **_environment(project, {**settings, "again": list(again)})}, lock
    )


def _environment(project: Project, settings: Mapping[str, Any]) -> dict[str, str]:
    """Environment of a build: its settings, and no home folder that could change pages or be needed."""
    own = project.build / "cache" / "home"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    # A reader's own settings of IPython or matplotlib would change figures.
    folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    for name in folders:
        (own / name.lower()).mkdir(parents=True, exist_ok=True)
    usable = _is_writable(cache / "snakemake")
    return {
        SETTINGS: json.dumps(settings),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **{name: str(own / name.lower()) for name in folders},
        # Snakemake will not do without one; weights stay where torch looks for them.
        **({} if usable else {"XDG_CACHE_HOME": str(own), "TORCH_HOME": str(cache / "torch")}),
    }


def _is_writable(folder: Path) -> bool:
    try:
        check_writable(folder)
    except OSError:
        return False
    return True


def check_writable(folder: Path) -> None:
    """Make a folder, and write to it.

    Raises:
        OSError: it cannot be made or written to; the error names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # A full disk lets a file be made, but not filled.
            file.write(bytes(4096))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def _check_text(data_root: str) -> str:
    try:
        data_root.encode()
    except UnicodeEncodeError:
        raise ValueError(f"data_root must be a name in UTF-8, got {data_root!r}") from None
    return data_root


def _check_device(device: str) -> str:
    if device != "cpu":  # which is always there: torch need not be loaded
        from retrieval_geometry._check import check_device

        check_device(device)
    return device


def _check_target(project: Project, profile: str, target: str) -> str:
    path = Path(target)
    # Snakemake knows outputs by relative names.
    inside = path if not path.is_absolute() else Path(os.path.relpath(path, project.root))
    known = outputs(project, profile)
    if (name := os.path.normpath(inside)) not in known:
        raise ValueError(f"targets must be files that the build makes, {', '.join(known)}; got {target!r}")
    return name
