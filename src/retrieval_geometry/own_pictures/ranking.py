"""The pictures of a folder in the order of their distance from some queries."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_geometry._folders import user_cache
from retrieval_geometry._text import printable
from retrieval_geometry.own_pictures.describing import Describer
from retrieval_geometry.own_pictures.index import UNREAD, Index
from retrieval_geometry.own_pictures.indexing import bring_up_to_date, reason_of, to_rgb_of
from retrieval_geometry.own_pictures.pictures import Listing, identify, list_folder, read_query
from retrieval_geometry.own_pictures.request import Request, code_digest

DIGITS = 6
"""Decimals of a cosine distance: what features in single precision carry, on any processor."""

AT_ONCE = 4096

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What was found for one query. Used in no chapter.

    Attributes:
        query: its file.
        nearest: name (the path below the folder) and distance of each picture, the nearest first.
    """

    query: Path
    nearest: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class SearchResult:
    """What was found in a folder for each query, in their order. Used in no chapter."""

    folder: Path
    request: Request
    found: tuple[Found, ...]


def to_stderr(note: str) -> None:
    """Print a note at once."""
    print(printable(note), file=sys.stderr, flush=True)


def rank_pictures(
    queries: Sequence[Path],
    folder: Path,
    request: Request | None = None,
    k: int = 10,
    outputs: Sequence[tuple[Path, str]] = (),
    say: Say = to_stderr,
) -> SearchResult:
    """The ``k`` pictures of a folder nearest to each query.

    Source: this package's own; with models of distributions the system of [geometric]. Used in no chapter.

    Files that are no image are left out and named in notes; so are a query's own file, wherever it lies in
    the folder, second names of one file (links), and files that are about to be written. Equal distances
    stand in the order of names.

    Args:
        queries: image files.
        folder: searched at any depth.
        request: what is compared, and how.
        k: how many.
        outputs: files that will be written, and what each is.
        say: gets each note as it arises.

    Raises:
        FileNotFoundError: no such query, folder or weight file.
        ValueError: a query is no image, the folder holds none, an unknown name, or a distance that does not
            fit the model.
    """
    request = request or Request()
    say(f"ranking {folder} by {request}")
    with Describer(request) as describer:
        if request.device != "cpu" or not request.is_pooled:
            describer.check(request)
        contents = [read_query(query) for query in queries]
        home = _home(say)
        written = {identify(path)[0]: f"it is the {what}" for path, what in outputs}
        listing = list_folder(folder, written, home)
        index = Index(home, folder, request.place, request.identity, code_digest(), say)
        asked = [
            _features(query, content, index, describer)
            for query, content in zip(queries, contents, strict=True)
        ]
        if bring_up_to_date(index, folder, listing, describer, say):
            _say_what_changed(index, listing, list_folder(folder, written, home), say)
    index.shrink(listing.stamps)
    own = [listing.files.get(identify(query)[0], "") for query in queries]
    _say_what_is_skipped(index, listing, own, say)
    names = [name for name in listing.stamps if name in index.catalogue and not index.catalogue[name].reason]
    _check_that_some_are_left(folder, index, names, own)
    rows = [index[index.catalogue[name].sha256] for name in names]
    values = _compare(request, [query.name for query in queries], asked, names, rows, say)
    found = (
        Found(query, _nearest(names, row, me, k)) for query, row, me in zip(queries, values, own, strict=True)
    )
    return SearchResult(folder, request, tuple(found))


def _compare(
    request: Request,
    queries: Sequence[str],
    asked: Sequence[np.ndarray],
    names: Sequence[str],
    rows: Sequence[np.ndarray],
    say: Say,
) -> np.ndarray:
    """Distances ``(Q, n)``, NaN for pictures that have none."""
    if not request.is_pooled:
        from retrieval_geometry.own_pictures.distributions import distances

        return distances(request, queries, asked, names, rows, say)
    for query, x in zip(queries, asked, strict=True):
        if not x.any():
            raise ValueError(f"QUERY {query} has features of zeros alone, which point nowhere; ask another")
    for name, x in zip(names, rows, strict=True):
        if not x.any():
            say(f"skipped {name}: its features are zeros")
    return np.stack([cosine_distances(x, rows) for x in asked])


def cosine_distances(x: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """One minus the cosine between a vector ``(D,)`` and each of n others, ``(n,)`` float64.

    As half the squared distance between their directions, which has no rounding where they are equal. A
    vector of zeros has none: NaN.
    """
    direction = _directions(x[None])
    blocks = (_directions(np.stack(rows[i : i + AT_ONCE])) for i in range(0, len(rows), AT_ONCE))
    return np.concatenate([((block - direction) ** 2).sum(axis=1) for block in blocks]).round(DIGITS + 1) / 2


def _directions(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


def _nearest(names: Sequence[str], values: np.ndarray, own: str, k: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(values, kind="stable")
    kept = [i for i in order.tolist() if names[i] != own and not np.isnan(values[i])]
    return tuple((names[i], float(values[i])) for i in kept[:k])


def _features(query: Path, content: bytes, index: Index, describer: Describer) -> np.ndarray:
    """Those of a query: from the index, if it holds the same picture."""
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 in index:
        return index[sha256]
    try:
        pixels = to_rgb_of(content)
    except Exception as error:  # the decoders of damaged files raise almost anything
        raise ValueError(f"QUERY must be an image: {query.name}: {reason_of(error)}") from None
    return describer(pixels, query.name)


def _home(say: Say) -> Path | None:
    """Our folder in the user's cache."""
    try:
        return user_cache().absolute() / "pictures"
    except (RuntimeError, OSError) as error:  # no home, or no current folder
        say(f"note: features are not kept for the next time: {error}")
        return None


def _say_what_changed(index: Index, before: Listing, after: Listing, say: Say) -> None:
    """Compare a folder with what was read of it; what went away is forgotten."""
    gone = [name for name in before.stamps if name not in after.stamps]
    came = [name for name in after.stamps if name not in before.stamps]
    read = {name: index.catalogue[name].stamp for name in before.stamps if name in index.catalogue}
    changed = [name for name, now in after.stamps.items() if now and read.get(name, now) not in (now, UNREAD)]
    told = [
        f"{len(names):,} {what} ({names[0]}{', ...' if names[1:] else ''})"
        for what, names in (("came", came), ("went", gone), ("changed", changed))
        if names
    ]
    if told:
        say(f"note: the folder changed while it was read: {', '.join(told)}; rank again to see it as it is")
    for name in gone:
        del before.stamps[name]


def _say_what_is_skipped(index: Index, listing: Listing, own: Sequence[str], say: Say) -> None:
    alone = len(own) == 1
    for name in listing.stamps:
        entry = index.catalogue.get(name)
        if entry and entry.reason:
            say(f"skipped {name}: {entry.reason}")
    for name, reason in listing.skipped.items():
        say(f"skipped {name}: {reason}")
    for name in sorted([*filter(None, own), *listing.again] if alone else listing.again):
        first = listing.again.get(name, name)
        say(f"skipped {name}: it is {'the query' if first in own and alone else f'the same file as {first}'}")


def _check_that_some_are_left(folder: Path, index: Index, names: Sequence[str], own: Sequence[str]) -> None:
    if not names:
        skipped = [(name, entry.reason) for name, entry in index.catalogue.items() if entry.reason]
        more = f"; {len(skipped)} files were skipped, the first: {': '.join(skipped[0])}" if skipped else ""
        raise ValueError(f"{folder} holds no image{more or ': it is empty'}")
    if any(list(names) == [name] for name in own):
        raise ValueError(f"{folder} holds no image besides the query")
