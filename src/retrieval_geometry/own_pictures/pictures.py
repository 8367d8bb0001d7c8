"""The files of a folder that may be pictures: listed, told apart, and read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_geometry._image_files import is_junk, read_file, walk

Stamp = tuple[int, int, int]
"""Size, and the times of the last change of content and of anything, in nanoseconds."""

TRIES = 3


@dataclass
class Listing:
    """The files of a folder; a name is the path below it, with forward slashes.

    Attributes:
        stamps: of each file; None where it has none, such as a link to nowhere.
        files: the file that a name leads to, whatever links are on the way.
        again: further names of a file, each with the first.
        skipped: names that are left out, and why.
    """

    stamps: dict[str, Stamp | None] = field(default_factory=dict)
    files: dict[object, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def list_folder(folder: Path, outputs: Mapping[object, str], cache: Path | None) -> Listing:
    """List a folder at any depth.

    Args:
        folder: of pictures.
        outputs: files that are to be written, and what each is.
        cache: our own files, of which none is a picture either.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"FOLDER must be a folder of images, but there is no folder {folder}")
    found = Listing()
    own = "" if cache is None else os.path.join(os.path.realpath(cache), "")
    top = os.path.realpath(folder)
    inside = own.startswith(os.path.join(top, ""))
    for name in sorted(name for name in walk(folder) if not is_junk(name)):
        path = os.path.join(folder, name)
        if inside and os.path.realpath(path).startswith(own):
            continue
        file, stamp = identify(path)
        if file in outputs:
            found.skipped[name] = outputs[file]
        elif file in found.files:
            found.again[name] = found.files[file]
        else:
            found.files[file] = name
            found.stamps[name] = stamp
    return found


def identify(path: str | Path) -> tuple[object, Stamp | None]:
    """The file that a path leads to, and its stamp."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path), None
    file = (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(path)
    return file, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_steady(folder: Path, name: str) -> tuple[bytes, Stamp]:
    """The content of a file that nobody changes meanwhile, and its stamp.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, is too large, or changes whenever it is read.
    """
    for _ in range(TRIES):
        before = identify(folder / name)[1]
        content = read_file(folder, name)
        if before is not None and before == identify(folder / name)[1]:
            return content, before
    raise ValueError("it changes while it is read")


def read_query(query: Path) -> bytes:
    """The content of a query.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large for an image.
    """
    if not query.is_file():
        raise FileNotFoundError(f"QUERY must be an image file, but there is no file {query}")
    try:
        return read_file(query.parent, query.name)
    except ValueError as error:
        raise ValueError(f"QUERY must be an image: {query.name}: {error}") from None
