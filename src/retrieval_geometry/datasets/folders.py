"""Images of the user's own: a folder of class folders, a zip of one, or a flat folder."""

import hashlib
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from retrieval_geometry._check import check_path
from retrieval_geometry._files import file_sha256
from retrieval_geometry._image_files import check_image, is_junk, read_file, refuse_large, walk
from retrieval_geometry.datasets._pixels import decode_rgb
from retrieval_geometry.datasets.image_set import ImageSet, SkippedFile

DAMAGES = (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, EOFError)
"""Errors of reading a damaged or an encrypted archive."""


def load_image_folder(path: str | os.PathLike[str]) -> ImageSet:
    """Images of a folder: the folders in it are the classes, whatever lies below them.

    Source: this package's own. Used in chapter 91.

    A zip archive of such a folder does as well; it is read where it is and never unpacked. A folder (or
    archive) that wraps all the class folders is passed over. Without folders all images form one class,
    ``""``. Every file is decoded once, to find the damaged ones; pixels are read when they are asked for.

    Files of any mode become uint8 RGB: upright by EXIF, 16 bits scaled to 8, transparency over white. Files
    that are no image, damaged, in no class folder beside class folders, larger than 512 MB or than some 89
    million pixels are listed in ``skipped``, and so are 16-bit images of unknown white; hidden files and the
    leavings of macOS and Windows are ignored. Classes are named in Unicode's composed form (NFC), in which
    one name has one spelling. Links are followed, but not to a folder above.

    Returns:
        An :class:`ImageSet` in the order of the paths; an id is the path below the folder, such as
        ``"brick/wall.png"``. The sha256 is that of the archive, or of the names and bytes of the images.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file that is no zip archive, or no image is left.
    """
    path = check_path(path, "path")
    if path.is_dir():
        return image_set_from(path.name or str(path), path, walk(path), partial(read_file, path))
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or zip archive at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a zip archive (or the archive is damaged)")
    return image_set_from(path.stem, path, members(path), partial(read_member, path), file_sha256(path))


def image_set_from(
    name: str,
    place: Path,
    files: Iterator[str] | list[str],
    read: Callable[[str], bytes],
    sha256: str | None = None,
) -> ImageSet:
    """Make an image set of files whose bytes ``read`` gives by name.

    Args:
        name: of the set.
        place: for messages.
        files: names, with forward slashes.
        read: gives the bytes of a file.
        sha256: of the whole; None computes it from the files.

    Raises:
        ValueError: none of the files is an image.
    """
    names = sorted({file for file in files if not is_junk(file)})
    with ThreadPoolExecutor() as pool:  # decoders work outside the interpreter's lock
        checked = dict(zip(names, pool.map(partial(_check, read), names), strict=True))
    kept = [file for file in names if not checked[file][1]]
    skipped = [SkippedFile(file, reason) for file, (_, reason) in checked.items() if reason]
    wrapper = _wrapper(kept)
    ids = [file.removeprefix(wrapper) for file in kept]
    if any("/" in image_id for image_id in ids):
        loose = [wrapper + image_id for image_id in ids if "/" not in image_id]
        skipped += [SkippedFile(file, "lies in no class folder, though others do") for file in loose]
        ids = [image_id for image_id in ids if "/" in image_id]
    if not ids:
        raise ValueError(f"{place} holds no image{_reasons(skipped)}")
    owners = [composed(image_id.rpartition("/")[0].partition("/")[0]) for image_id in ids]
    known = sorted(set(owners))
    # Names as well as bytes: labels follow from the names.
    content = [f"{composed(image_id)} {checked[wrapper + image_id][0]}\n" for image_id in ids]
    return ImageSet(
        name=name,
        labels=torch.tensor([known.index(owner) for owner in owners]),
        classes=tuple(known),
        ids=tuple(ids),
        sha256=sha256 or hashlib.sha256("".join(content).encode(errors="surrogateescape")).hexdigest(),
        read=partial(_decode, read, wrapper),
        skipped=tuple(skipped),
    )


def composed(name: str) -> str:
    """The name in Unicode's composed form: macOS spells an accented letter in two signs, others in one."""
    return unicodedata.normalize("NFC", name)


def _check(read: Callable[[str], bytes], file: str) -> tuple[str, str]:
    """Return the sha256 of a file, and why it cannot be used (empty where it can)."""
    try:
        content = read(file)
        check_image(content)
    except Exception as error:  # the decoders of damaged files raise almost anything
        return "", str(error).partition("<_io")[0].strip() or type(error).__name__
    return hashlib.sha256(content).hexdigest(), ""


def _decode(read: Callable[[str], bytes], wrapper: str, image_id: str) -> Tensor:
    return decode_rgb(read(wrapper + image_id))


def _wrapper(files: list[str]) -> str:
    """Find the folder, with a slash at its end, that wraps all class folders; empty where there is none."""
    wrapper = ""
    while files and all(file.removeprefix(wrapper).count("/") >= 2 for file in files):
        tops = {file.removeprefix(wrapper).partition("/")[0] for file in files}
        if len(tops) > 1:
            break
        wrapper += tops.pop() + "/"
    return wrapper


def _reasons(skipped: list[SkippedFile]) -> str:
    if not skipped:
        return ": it is empty"
    return f"; {len(skipped)} files were skipped, the first: {skipped[0].path} ({skipped[0].reason})"


def members(archive: Path) -> list[str]:
    """List the files of a zip archive.

    Raises:
        ValueError: its list is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return [info.filename for info in opened.infolist() if not info.is_dir()]
    except DAMAGES as error:
        raise ValueError(f"{archive} is a damaged zip archive: {error}") from None


def read_member(archive: Path, member: str) -> bytes:
    """Read a member of a zip archive, of a reasonable size.

    Raises:
        ValueError: a path that leads out of the archive, or a member too large for an image.
    """
    if ".." in PurePosixPath(member).parts or PurePosixPath(member).is_absolute():
        raise ValueError("the path leads out of the archive")
    # One open archive per process: file positions must not be shared after a fork.
    handle = _open_archive(archive, os.getpid())
    refuse_large(handle.getinfo(member).file_size)  # reading stops at this size whatever the stream holds
    return handle.read(member)


@lru_cache(maxsize=4)
def _open_archive(archive: Path, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)
