"""One build of a checkout at a time: a lock of the operating system that every process of a build holds.

The lock belongs to an open file, which processes inherit as standard input; Snakemake closes all others.
So whoever is killed, and when: the lock is held while anybody still works, and free as soon as nobody does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

NAME = ".build.lock"
"""The file, beside the folder ``build``, which `make clean` removes."""

PATIENCE = 5.0
"""Seconds to wait for the lock: what a killed build started needs a moment to notice."""


@contextlib.contextmanager
def only_build(root: Path) -> Iterator[int]:
    """Hold the lock of a checkout; yields its descriptor, the standard input of what is started.

    Raises:
        BlockingIOError: another build holds it; the message names the processes.
    """
    path = root / NAME
    # Own code, not filelock: its descriptor is not inherited, and the lock would end with this process.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + PATIENCE
        while not _taken(descriptor):
            if time.monotonic() > until:
                raise BlockingIOError(_who(root))
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def inherited(root: Path) -> tuple[int, ...]:
    """A descriptor of the lock that this process was started with, to hand on; empty outside a build."""
    try:
        # Inside a build standard input is the lock's file: same device, same inode.
        if os.path.samestat(os.fstat(0), os.stat(root / NAME)):
            return (os.dup(0),)
    except OSError:
        pass
    return ()


def _taken(descriptor: int) -> bool:
    try:
        # flock, not lockf: it belongs to the open file, and so to all who inherit it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who(root: Path) -> str:
    numbers = " ".join(str(number) for number in holders(root))
    them = (
        f" (process {numbers}): wait for it, or stop it with `kill {numbers}`" if numbers else ": wait for it"
    )
    return f"another build of {root} is running{them}"


def holders(root: Path) -> list[int]:
    """The processes, this one excepted, that have the lock's file open, as far as one may see them."""
    path, found = os.path.realpath(root / NAME), []
    # A process may end while we look at it, or be somebody else's.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == path for file in process.open_files()):
                found.append(process.pid)
    return sorted(found)
