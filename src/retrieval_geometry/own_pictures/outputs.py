"""Files that show what was found: where they may be written, and the small pictures in them."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval_geometry._image_files import open_image, read_file, to_rgb

PLOT_ENDINGS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
PAGE_ENDINGS = (".html", ".htm")


def check_output(option: str, file: Path, endings: Sequence[str], queries: Sequence[Path]) -> None:
    """Refuse a file that cannot be written, or had better not.

    Raises:
        ValueError: another ending, or it is a query.
        FileNotFoundError: its folder is not there.
    """
    if file.suffix.lower() not in endings:
        raise ValueError(f"{option} must end in one of {', '.join(endings)}; got {file.name!r}")
    if not file.resolve().parent.is_dir():
        raise FileNotFoundError(f"{option} {file}: there is no folder {file.parent}")
    if os.path.realpath(file) in map(os.path.realpath, queries):
        raise ValueError(f"{option} {file} is the query, which it would overwrite; give another file")


def thumbnail(path: Path, side: int) -> Image.Image:
    """A picture, upright and in RGB, of at most so many pixels a side.

    Raises:
        OSError: the file is gone.
        Exception: it is no image any more.
    """
    with open_image(read_file(path.parent, path.name)) as image:
        image.draft(None, (2 * side, 2 * side))  # a JPEG is decoded no larger than that needs
        small = Image.fromarray(to_rgb(image))
    small.thumbnail((side, side))
    return small


def shortest_endings(paths: Sequence[str]) -> list[str]:
    """As much of the end of each path as tells it from the others, in whole parts.

    >>> shortest_endings(["2019/sea/a.png", "2020/sea/a.png", "2020/b.png"])
    ['2019/sea/a.png', '2020/sea/a.png', 'b.png']
    """
    parts = [path.split("/") for path in paths]
    endings = Counter("/".join(part[-n:]) for part in parts for n in range(1, len(part) + 1))
    return [
        next((end for n in range(1, len(part)) if endings[end := "/".join(part[-n:])] == 1), "/".join(part))
        for part in parts
    ]
