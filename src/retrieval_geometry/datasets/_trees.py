"""Published data sets as they lie on disk: a folder or a zip archive of it, listed once and read lazily."""

import hashlib
import zipfile
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from retrieval_geometry._files import file_sha256
from retrieval_geometry._image_files import is_junk, read_file, walk
from retrieval_geometry.datasets._pixels import decode_rgb
from retrieval_geometry.datasets.folders import DAMAGES, members, read_member
from retrieval_geometry.datasets.image_set import ImageSet


@dataclass(frozen=True)
class Tree:
    """The files below a folder, or below a folder of a zip archive.

    Attributes:
        place: the folder or the archive.
        inside: of an archive, the folder in it with a slash at its end; empty for the top.
    """

    place: Path
    inside: str = ""

    @cached_property
    def files(self) -> frozenset[str]:
        """Paths below the folder, with forward slashes; hidden files are left out."""
        if self.place.is_dir():
            return frozenset(file for file in walk(self.place) if not is_junk(file))
        cut = len(self.inside)
        return frozenset(
            name[cut:] for name in members(self.place) if name.startswith(self.inside) and not is_junk(name)
        )

    def read(self, file: str) -> bytes:
        """Read a file; every fault of it is a ValueError or an OSError.

        Raises:
            ValueError: a path that leads out, a file too large for an image, a damaged archive.
            OSError: the file cannot be read.
        """
        if self.place.is_dir():
            return read_file(self.place, file)
        try:
            return read_member(self.place, self.inside + file)
        except DAMAGES as error:
            raise ValueError(f"{self.place} is damaged at {file}: {error}") from None

    def lines(self, file: str) -> list[tuple[int, list[str]]]:
        """Read a text file as the words of each line with its number, empty lines left out.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no text in UTF-8.
        """
        if file not in self.files:
            raise FileNotFoundError(f"{file} is missing from {self.place}; unpack the archive again")
        found = []
        for number, line in enumerate(self.read(file).removeprefix(BOM_UTF8).splitlines(), start=1):
            try:
                found.append((number, line.decode("utf-8").split()))
            except UnicodeDecodeError:
                raise ValueError(f"{self.place}: {file}, line {number}: no text in UTF-8") from None
        return [(number, words) for number, words in found if words]

    def image_set(
        self, name: str, files: Sequence[str], labels: Sequence[int], classes: Sequence[str]
    ) -> ImageSet:
        """Make an image set of some of the files, none of which is read before it is asked for.

        Its sha256 is that of the archive; of a folder, that of the names, labels and sizes of the images: to
        read a hundred thousand files for it would take minutes.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is named twice.
        """
        if len(set(files)) < len(files):
            twice = next(file for file, count in Counter(files).items() if count > 1)
            raise ValueError(
                f"the lists of {name} in {self.place} name the image {twice} twice; fetch them again"
            )
        missing = [file for file in files if file not in self.files]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(files)} images of {name} are missing from {self.place}, the "
                f"first: {missing[0]}; unpack the archive again"
            )
        return ImageSet(
            name=name,
            labels=torch.tensor(labels, dtype=torch.int64),
            classes=tuple(classes),
            ids=tuple(files),
            sha256=self._sha256(files, labels),
            read=partial(_decode, name, self.read),
        )

    def _sha256(self, files: Sequence[str], labels: Sequence[int]) -> str:
        if not self.place.is_dir():
            return file_sha256(self.place)
        digest = hashlib.sha256()
        for file, label in zip(files, labels, strict=True):
            size = (self.place / file).stat().st_size
            digest.update(f"{file} {label} {size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_tree(root: Path, folders: Sequence[str], archives: Sequence[str], marker: str) -> Tree | None:
    """Find a folder or a zip archive that holds a file or folder by the name of ``marker``.

    Args:
        root: the data root, or the set itself.
        folders: where it may lie below ``root``.
        archives: patterns of archives below ``root``.
        marker: a path that is in the folder of the set and hardly elsewhere.
    """
    for folder in (*(root / name for name in folders), root):
        if (folder / marker).exists():
            return Tree(folder)
    found = [root] if root.is_file() else [path for name in archives for path in sorted(root.glob(name))]
    for archive in found:
        if (inside := _folder_of(archive, marker)) is not None:
            return Tree(archive, inside)
    return None


def _folder_of(archive: Path, marker: str) -> str | None:
    """The folder of an archive that holds the marker; None if none does, or it is no archive."""
    if not zipfile.is_zipfile(archive):
        return None
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except DAMAGES:
        return None
    for name in sorted(names, key=len):
        before, found, behind = f"/{name}".partition(f"/{marker}")
        if found and behind[:1] in ("", "/"):
            return f"{before}/".removeprefix("/")
    return None


def _decode(name: str, read: Callable[[str], bytes], file: str) -> Tensor:
    try:
        return decode_rgb(read(file))
    except Exception as error:  # the decoders of damaged files raise almost anything
        reason = str(error).partition("<_io")[0].strip() or type(error).__name__
        raise ValueError(
            f"image {file!r} of {name} cannot be used ({reason}); fetch it again, or leave it out with "
            "images.subset"
        ) from None
