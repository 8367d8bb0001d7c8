"""The features of a folder, kept in the user's cache: an index that grows and shrinks with the folder.

A *catalogue* says which content each file has, so that a file which was moved, renamed or touched is read but
not described again. *Parts* hold features by content, some hundred pictures each, and are never changed: new
pictures make new parts, and a part with a picture that is gone is replaced by one without it. So two commands
at once lose at most each other's work, and nothing is ever half written. Each file is sealed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval_geometry._sealed import Kind
from retrieval_geometry.own_pictures.pictures import Stamp

PART = 256
"""Pictures of a part: an indexing that is killed repeats no more than these."""

SMALL_PARTS = 8
"""Parts with free places that may lie about before they are put together."""

UNSURE = 2 * 10**9
"""Nanoseconds: a file that was changed so shortly before it was read may be changed again under one time."""

UNREAD: Stamp = (0, 0, 0)
"""The stamp of a file that could not be read: it is tried again."""

ALIGNED = 64
TRIES = 5

INDEX = Kind("index of pictures", 1, "it is made again")


class Entry(NamedTuple):
    """A file as it was read, and when: its stamp, its SHA-256, and why it is no picture, if it is none."""

    stamp: Stamp
    read_at: int
    sha256: str
    reason: str

    def is_current(self, stamp: Stamp | None) -> bool:
        """Whether the file is as it was read, going by its stamp."""
        return self.stamp == stamp and max(self.stamp[1:]) + UNSURE < self.read_at


class Index:
    """The features of one folder.

    Args:
        home: our folder in the user's cache; None keeps nothing.
        folder: of the pictures.
        place: a name for the features that are asked for.
        identity: a digest of all that makes them: those of another are forgotten.
        code: a digest of what reads pictures.
        say: gets the line about damage, or about a cache that cannot be written, once each.

    Attributes:
        catalogue: an entry for each file.
    """

    def __init__(
        self,
        home: Path | None,
        folder: Path,
        place: str,
        identity: str,
        code: str,
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._folder = None if home is None else home / _digest([os.fsencode(os.path.realpath(folder))])
        self._place, self._identity, self._code = place, identity, code
        self._rows: dict[str, np.ndarray] = {}
        self._parts: dict[str, list[str]] = {}
        self._new: dict[str, np.ndarray] = {}
        self._damages: list[str] = []
        self.catalogue: dict[str, Entry] = {}
        if self._folder is not None:
            self._load_catalogue(self._folder / "catalogue")
            self._load_parts(self._folder / self._place)
        if self._damages:
            more = len(self._damages) - 1
            self._say(self._damages[0] + (f"; so are {more} other files of it" if more else ""))

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def __getitem__(self, sha256: str) -> np.ndarray:
        """The features of a picture of that content."""
        return self._rows[sha256]

    def knows(self, name: str, stamp: Stamp | None) -> bool:
        """Whether nothing need be done for a file."""
        entry = self.catalogue.get(name)
        return entry is not None and entry.is_current(stamp) and (bool(entry.reason) or entry.sha256 in self)

    def add(self, sha256: str, features: np.ndarray) -> None:
        """Take in the features of a picture; :meth:`flush` writes them, and so does a full part."""
        self._rows[sha256] = self._new[sha256] = features
        if len(self._new) >= PART:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        new, self._new = self._new, {}
        if new:
            self._write_part(new)
        if self._folder is not None:
            self._write(self._folder / "catalogue", json.dumps(self.catalogue).encode(), self._code)

    def shrink(self, names: Iterable[str]) -> None:
        """Forget every file but these, and features that no file has any more; put small parts together."""
        gone = self.catalogue.keys() - set(names)
        for name in gone:
            del self.catalogue[name]
        if gone:
            self.flush()
        live = {entry.sha256 for entry in self.catalogue.values()}
        small = {name for name, rows in self._parts.items() if len(rows) < PART}
        merged = small if len(small) > SMALL_PARTS else set()
        old = [name for name, rows in self._parts.items() if name in merged or not live.issuperset(rows)]
        kept = sorted({row for name in old for row in self._parts.pop(name)} & live)
        for start in range(0, len(kept), PART):
            if not self._write_part({row: self._rows[row] for row in kept[start : start + PART]}):
                return
        self._delete(*(name for name in old if name not in self._parts))
        self._rows = {row: features for row, features in self._rows.items() if row in live}

    def _load_catalogue(self, path: Path) -> None:
        content = self._read(path, self._code)
        if content is not None:
            entries = json.loads(content)
            self.catalogue = {name: Entry(tuple(stamp), *rest) for name, (stamp, *rest) in entries.items()}

    def _load_parts(self, place: Path) -> None:
        tried: set[str] = set()
        for _ in range(TRIES):  # another command may just put parts together
            names = [name for name in _names(place) if name.startswith(self._identity) and name not in tried]
            if not names:
                return
            for name in names:
                content = self._read(place / name, self._identity)
                if content is not None:
                    rows = _unpack(content)
                    self._parts[name] = list(rows)
                    self._rows |= rows
            tried.update(names)

    def _read(self, path: Path, about: str) -> bytes | None:
        """The content of a file of the index, None where it cannot be had; a damaged one is deleted."""
        try:
            return INDEX.read(path, about)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._damages.append(str(error))
            with suppress(OSError):
                path.unlink()
        except OSError as error:
            self._damages.append(f"{INDEX.name} {path} cannot be read: {error.strerror}; {INDEX.remedy}")
        return None

    def _write_part(self, rows: dict[str, np.ndarray]) -> bool:
        name = f"{self._identity}-{_digest(row.encode() for row in sorted(rows))}"
        if self._folder is None or not self._write(
            self._folder / self._place / name, _pack(rows), self._identity
        ):
            return False
        self._parts[name] = list(rows)
        return True

    def _write(self, path: Path, content: bytes, about: str) -> bool:
        """Write a file; the first that cannot be written is said, and nothing more is tried."""
        if self._folder is None:
            return False
        try:
            INDEX.write(path, content, about)
        except OSError as error:
            self._folder = None
            self._say(f"note: features are not kept for the next time: {path}: {error.strerror or error}")
            return False
        return True

    def _delete(self, *names: str) -> None:
        """Delete some parts, and those of an older network or code."""
        if self._folder is None:
            return
        place = self._folder / self._place
        for name in {*names, *(name for name in _names(place) if not name.startswith(self._identity))}:
            with suppress(OSError):
                (place / name).unlink()


def _names(place: Path) -> list[str]:
    """The parts that lie in a folder, without what is being written."""
    try:
        return sorted(name for name in os.listdir(place) if not name.startswith("."))
    except OSError:
        return []


def _pack(rows: dict[str, np.ndarray]) -> bytes:
    """Some features in one: a line that says whose they are and of which shape, and their numbers."""
    features = np.stack(list(rows.values())).astype("<f4")
    head = json.dumps([list(rows), features.shape[1:]]).encode()
    return head.ljust(-(len(head) + 1) % ALIGNED + len(head)) + b"\n" + features.tobytes()


def _unpack(content: bytes) -> dict[str, np.ndarray]:
    end = content.index(b"\n") + 1
    names, shape = json.loads(content[:end])
    features = np.frombuffer(content, "<f4", offset=end).reshape(len(names), *shape)
    return dict(zip(names, features, strict=True))


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
