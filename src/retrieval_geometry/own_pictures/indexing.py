"""The index of a folder brought up to date: what is new or changed is read, and new content described."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_geometry._image_files import open_image, to_rgb
from retrieval_geometry.own_pictures.describing import Describer
from retrieval_geometry.own_pictures.index import UNREAD, Entry, Index
from retrieval_geometry.own_pictures.pictures import Listing, read_steady

WINDOW = 64
"""Files that are read before the index takes in what was found."""

READERS = 8
"""Pictures in memory at a time, at most: a large one takes some hundred megabytes."""


@dataclass(frozen=True)
class Reading:
    """A file that was read: its entry (None if it is gone), and its features if they are new."""

    name: str
    entry: Entry | None
    features: np.ndarray | None = None


def bring_up_to_date(
    index: Index, folder: Path, listing: Listing, describer: Describer, say: Callable[[str], None]
) -> bool:
    """Read what the index does not know, and describe what is new; an interrupted call has kept what it did.

    Returns:
        Whether there was anything to read.

    Raises:
        ValueError: the network gives a picture no finite features.
    """
    names = [name for name, stamp in listing.stamps.items() if not index.knows(name, stamp)]
    if not names:
        return False
    say(f"reading {len(names):,} of {len(listing.stamps):,} files, new or changed")
    try:
        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool, _bar(len(names)) as bar:
            for start in range(0, len(names), WINDOW):
                window = names[start : start + WINDOW]
                for reading in pool.map(partial(_read, folder, index, describer), window):
                    _take(index, reading)
                    bar.update(1)
    finally:
        index.flush()
    return True


def _take(index: Index, reading: Reading) -> None:
    if reading.entry is None:
        index.catalogue.pop(reading.name, None)
        return
    if reading.features is not None:
        index.add(reading.entry.sha256, reading.features)
    index.catalogue[reading.name] = reading.entry


def _read(folder: Path, index: Index, describer: Describer, name: str) -> Reading:
    now = time.time_ns()
    try:
        content, stamp = read_steady(folder, name)
    except FileNotFoundError:
        return Reading(name, None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Reading(name, Entry(UNREAD, 0, "", reason))
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 in index:
        return Reading(name, Entry(stamp, now, sha256, ""))
    try:
        pixels = to_rgb_of(content)
    except Exception as error:  # the decoders of damaged files raise almost anything
        return Reading(name, Entry(stamp, now, sha256, reason_of(error)))
    return Reading(name, Entry(stamp, now, sha256, ""), describer(pixels, name))


def to_rgb_of(content: bytes) -> Any:
    """Decode the bytes of an image file to a uint8 array ``(H, W, 3)``."""
    with open_image(content) as image:
        return to_rgb(image)


def reason_of(error: Exception) -> str:
    """Why a file is no picture."""
    return str(error).partition("<_io")[0].strip() or type(error).__name__


def _bar(total: int) -> Any:
    """A bar that shows how far the reading is, in a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="picture", disable=None, leave=False)
