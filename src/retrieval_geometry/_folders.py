"""Folders of results, caches and recorded results: in a checkout below ``build`` and ``book``.

Nothing is ever kept in the folder that one happens to be in.
"""

import os
from pathlib import Path

CACHE = "RETRIEVAL_GEOMETRY_CACHE"
"""The environment variable that names the folder for results and caches outside a checkout."""


def project_root(start: str | Path | None = None) -> Path | None:
    """The folder at or above ``start`` (default: here) with the sources of the book; None outside one.

    Source: this package's own. Used in no chapter.

    Raises:
        ValueError: ``start`` is no path.
    """
    if start is not None and (not isinstance(start, str | os.PathLike) or "\0" in str(start)):
        raise ValueError(f"start must be a path, got {start!r}")
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file() and (folder / "book" / "chapters").is_dir():
            return folder
    return None


def results_dir() -> Path:
    """Folder of the results of this machine: ``build/results`` of the checkout, else in the user's cache.

    Source: this package's own. Used in no chapter.
    """
    root = project_root()
    return root / "build" / "results" if root else user_cache() / "results"


def cache_dir() -> Path:
    """Where descriptors and finished parts are kept: ``build/cache`` of the checkout, or the user's cache."""
    root = project_root()
    return root / "build" / "cache" if root else user_cache()


def recorded_dir() -> Path:
    """Folder of the recorded runs: ``book/results`` of the checkout, else in the installed package.

    Source: this package's own. Used in no chapter.
    """
    root = project_root()
    return root / "book" / "results" if root else Path(__file__).parent / "recorded"


def user_cache() -> Path:
    """The user's own folder for what can be made again, or the one that :data:`CACHE` names."""
    given = os.environ.get(CACHE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "retrieval-geometry"
