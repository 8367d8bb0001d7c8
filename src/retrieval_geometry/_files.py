"""Files that are written whole or not at all, and their digests."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(path: str | os.PathLike[str], *parts: bytes) -> None:
    """Write a file from these parts, whole or not at all; folders are made.

    Libraries hand over bytes instead of writing themselves: then whatever goes wrong on the disk is an
    ``OSError`` that has the path.

    Raises:
        OSError: it cannot be written (a full disk, no permission, ...); the file that was there is as it was.
    """
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, beside ``path``, which it replaces when all went well and is deleted otherwise.

    Folders are made. Two processes that write the same path do not meet; what a killed one left is deleted.
    A link stays one: the file that it points to is replaced.

    Raises:
        OSError: whatever fails, with the path; also where it is a folder, a device or a pipe.
    """
    # The folder of the target: a rename does not cross file systems.
    target = Path(os.path.realpath(path))
    prefix = f".{target.name}."
    with naming(path, str(target.parent / prefix)):
        if target.exists() and not target.is_file():  # renaming would put a file in the place of a device
            raise OSError(errno.EISDIR if target.is_dir() else errno.EINVAL, "Is no regular file", str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _delete_left(target.parent, prefix)
        handle, temporary = _locked_file(target.parent, prefix)
        try:
            yield temporary
            with temporary.open("rb") as file:
                # A name that reaches the disk before the content would be an empty file after a power cut.
                os.fsync(file.fileno())
            # mkstemp lets the owner alone read.
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def naming(path: Path, prefix: str = "") -> Iterator[None]:
    """Give an ``OSError`` the path that is meant, where it has none, or a folder's or a temporary file's.

    Args:
        path: of what is written.
        prefix: with which the paths of temporary files begin.
    """
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        folders = {*path.parents, *Path(os.path.realpath(path)).parents}
        if named and not (prefix and named.startswith(prefix)) and Path(named) not in folders:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _locked_file(folder: Path, prefix: str) -> tuple[int, Path]:
    """A new file, with a lock that the system takes off when its process ends, in whatever way."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=".tmp")
        if _lock(handle) is not False and os.path.exists(name):
            return handle, Path(name)
        os.close(handle)  # another process took it for one that is left


def _delete_left(folder: Path, prefix: str) -> None:
    """Delete the temporary files of this name that no process holds any more."""
    for entry in os.scandir(folder):
        if entry.name.startswith(prefix) and entry.name.endswith(".tmp") and entry.is_file():
            with suppress(OSError):
                handle = os.open(entry.path, os.O_RDWR)
                try:
                    if _lock(handle):
                        os.unlink(entry.path)
                finally:
                    os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the file is ours now; None where there are no locks: what a killed writer left stays there."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True
