"""Public benchmarks, read from where the user has put them, and a list of them."""

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from retrieval_geometry._check import check_path
from retrieval_geometry._image_files import read_file
from retrieval_geometry.datasets.folders import image_set_from, load_image_folder, members
from retrieval_geometry.datasets.image_set import ImageSet
from retrieval_geometry.datasets.metric_learning import BENCHMARKS, Benchmark

DTD_URL = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"

_ATTRIBUTES = """
banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted
fibrous flecked freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined
marbled matted meshed paisley perforated pitted pleated polka-dotted porous potholed scaly smeared
spiralled sprinkled stained stratified striped studded swirly veined waffled woven wrinkled
zigzagged
"""
DTD_ATTRIBUTES = frozenset(_ATTRIBUTES.split())
"""The words by which people described the textures, and the names of the 47 folders."""


@dataclass(frozen=True)
class DatasetStatus:
    """One row of the list of data sets: its contents, its licence, and its place. Used in no chapter."""

    name: str
    description: str
    licence: str
    found: bool
    place: str


def load_dtd(root: str | os.PathLike[str], split: str | Sequence[str] | None = None) -> ImageSet:
    """The Describable Textures Dataset: 5,640 images, 47 attributes, 120 each.

    Source: Cimpoi et al. 2014. Used in chapter 4.

    Under ``root`` it is looked for as torchvision and the official archive lay it out (``dtd/dtd``,
    ``dtd``), as plain folders named after attributes, and as a zip archive ``dtd*.zip`` of them; ``root`` may
    also be the set itself. A part of the set will do.

    Args:
        root: the data root, or the set itself.
        split: None for all images; an official split such as ``"test1"``, or several: ``"train1+val1"`` or
            ``("train1", "val1")``. [geometric] queries with test1 against train1+val1.

    Raises:
        FileNotFoundError: the set is not there (the message says where to get it and where to put it), or an
            image or a list of the split is missing.
        ValueError: an unknown split, or an official split of a copy without the official lists.
    """
    place = _find_dtd(check_path(root, "root"))
    if place is None:
        raise FileNotFoundError(
            f"DTD is not under {root}. Get dtd-r1.0.1.tar.gz from {DTD_URL} and unpack it there, so that "
            f"{Path(root) / 'dtd' / 'images' / 'banded'} is a folder of images"
        )
    splits = _split_names(split)
    if not splits:
        images = load_image_folder(place / "images" if _is_official(place) else place)
        complete = set(images.classes) == DTD_ATTRIBUTES
        return replace(images, name="DTD" if complete else f"DTD, {len(images.classes)} attributes")
    if not _is_official(place):
        raise ValueError(
            f"split = {split!r} is an official split, but {place} comes without labels/{splits[0]}.txt; "
            "use split=None and query_database_split, or the official archive"
        )
    listed = [line for name in splits for line in _read_split(place, name)]
    missing = [line for line in listed if not (place / "images" / line).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(listed)} images of DTD {'+'.join(splits)} are missing under "
            f"{place / 'images'}, the first: {missing[0]}; unpack the archive again"
        )
    return image_set_from(
        f"DTD {'+'.join(splits)}", place / "images", listed, partial(read_file, place / "images")
    )


def available_datasets(data_root: str | os.PathLike[str]) -> list[DatasetStatus]:
    """List of the supported data sets, each with its place; only the names of folders are read.

    Source: this package's own. Used in chapter 4.

    Raises:
        ValueError: a data root that is no path.

    Example:
        >>> [row.name for row in available_datasets("no/such/folder") if row.found]
        ['photo textures', 'glyphs', 'handwritten digits']
    """
    dtd = _find_dtd(check_path(data_root, "data_root"))
    return [
        *_bundled(),
        DatasetStatus(
            "DTD",
            f"Describable Textures: 5,640 photographs, 47 attributes ({DTD_URL})",
            "for research",
            dtd is not None,
            str(dtd or Path(data_root) / "dtd"),
        ),
        *(_benchmark_status(benchmark, Path(data_root)) for benchmark in BENCHMARKS.values()),
    ]


def _bundled() -> list[DatasetStatus]:
    return [
        DatasetStatus(
            "photo textures",
            "396 patches of 18 photographs that scikit-image and scikit-learn ship",
            "CC0, CC BY 2.0, public domain; per photograph in datasets.PHOTOGRAPHS",
            True,
            "bundled",
        ),
        DatasetStatus(
            "glyphs",
            "650 Unicode characters in 16 typefaces that matplotlib ships",
            "Bitstream Vera and Arev (DejaVu), STIX font licence",
            True,
            "bundled",
        ),
        DatasetStatus(
            "handwritten digits",
            "1,797 digits of 8 x 8 pixels that scikit-learn ships",
            "CC BY 4.0",
            True,
            "bundled",
        ),
    ]


def _benchmark_status(benchmark: Benchmark, root: Path) -> DatasetStatus:
    tree = benchmark.find(root)
    return DatasetStatus(
        benchmark.title,
        f"{benchmark.description} ({benchmark.url})",
        benchmark.licence,
        tree is not None,
        str(tree.place if tree else root / benchmark.folders[0]),
    )


def _find_dtd(root: Path) -> Path | None:
    """Find the folder or archive of the set: official layouts first, then plain folders, then archives."""
    folders = [root / "dtd" / "dtd", root / "dtd", root]
    for folder in folders:
        if _is_official(folder):
            return folder
    for folder in folders:
        if folder.is_dir() and any((folder / name).is_dir() for name in DTD_ATTRIBUTES):
            return folder
    archives = [root] if root.is_file() else sorted(root.glob("dtd*.zip"))
    return next((archive for archive in archives if _archive_holds_dtd(archive)), None)


def _is_official(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "labels").is_dir()


def _archive_holds_dtd(archive: Path) -> bool:
    if not zipfile.is_zipfile(archive):
        return False
    try:
        return any(DTD_ATTRIBUTES & set(name.split("/")[:-1]) for name in members(archive))
    except ValueError:
        return False


def _split_names(split: str | Sequence[str] | None) -> list[str]:
    names = [] if split is None else split.split("+") if isinstance(split, str) else list(split)
    for name in names:
        if not re.fullmatch(r"(train|val|test)([1-9]|10)", name):
            raise ValueError(
                f"split must be made of train1 to train10, val1 to val10 and test1 to test10, got {split!r}"
            )
    if split is not None and not names:
        raise ValueError("split names no split; use None for all images")
    return names


def _read_split(place: Path, name: str) -> list[str]:
    path = place / "labels" / f"{name}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"the list of the split {name} is missing: {path}; unpack the archive again")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {error.start}); unpack the archive again"
        ) from None
    return [line.strip() for line in lines if line.strip()]
