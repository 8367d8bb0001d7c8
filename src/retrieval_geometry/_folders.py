"""Where results, caches and recorded results lie: in a checkout below ``build`` and ``book``, else elsewhere.

Nothing is ever kept in the folder that one happens to be in.
"""

import os
from pathlib import Path

CACHE = "RETRIEVAL_GEOMETRY_CACHE"
"""The environment variable that names the folder for results and caches outside a checkout."""


def project_root(start: str | Path | None = None) -> Path | None:
    """The folder at or above ``start`` (default: here) with the sources of the book; None outside one."""
    if start is not None and (not isinstance(start, str | os.PathLike) or "\0" in str(start)):
        raise ValueError(f"start must be a path, got {start!r}")
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file() and (folder / "book" / "chapters").is_dir():
            return folder
    return None


def results_dir() -> Path:
    """Where runs on this machine are kept: ``build/results`` of the checkout, else in the user's cache."""
    root = project_root()
    return root / "build" / "results" if root else _user_cache() / "results"


def cache_dir() -> Path:
    """Where descriptors and finished parts are kept: ``build/cache`` of the checkout, or the user's cache."""
    root = project_root()
    return root / "build" / "cache" if root else _user_cache()


def recorded_dir() -> Path:
    """Where the recorded runs lie: ``book/results`` of the checkout, else in the installed package."""
    root = project_root()
    return root / "book" / "results" if root else Path(__file__).parent / "recorded"


def _user_cache() -> Path:
    given = os.environ.get(CACHE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "retrieval-geometry"
