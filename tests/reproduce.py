"""Build HEAD once more in a clean folder, and compare with the last build and the recorded results.

    python -m tests.reproduce                   what `make reproduce` runs
    python -m tests.reproduce --threads 2       with two threads in each experiment

Nothing of the last build is used. What differs, times excepted, is printed cell by cell; exit status 1 says
that something did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from retrieval_geometry.book.project import Project
from tests.book.compare import differences, recorded_differences

FOLDER = "reproduction"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, compare, and return 1 if the build fails or anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of each experiment (default: 1)")
    parser.add_argument("--cores", type=int, help="to use (default: all)")
    options = parser.parse_args(arguments)
    project = Project.find()
    clean = clone(project)
    if status := build(clean, options.threads, options.cores):
        print(f"the build in {clean.root} failed", file=sys.stderr)
        return status
    found = [f"recorded: {line}" for line in recorded_differences(clean.recorded, clean.build / "results")]
    if project.executed.is_dir():
        found += [f"last build: {line}" for line in differences(project.build, clean.build)]
    else:
        print("there is no last build to compare with")
    print("\n".join(found) or "nothing differs but times")
    if not found:
        shutil.rmtree(clean.root)
    return int(bool(found))


def clone(project: Project) -> Project:
    """A fresh clone of HEAD below ``build``."""
    target = project.build / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    project.build.mkdir(exist_ok=True)
    git = ["git", "-C", str(project.root)]
    subprocess.run([*git, "clone", "--quiet", str(project.root), str(target)], check=True)
    if subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True).stdout:
        print("uncommitted changes are left out: HEAD is built")
    return Project(target)


def build(project: Project, threads: int, cores: int | None) -> int:
    """Build the book with the package of its own checkout."""
    command = [sys.executable, "-m", "retrieval_geometry", "build", "--threads", str(threads)]
    command += ["--cores", str(cores)] if cores else []
    paths = [str(project.root / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return subprocess.run(command, cwd=project.root, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
