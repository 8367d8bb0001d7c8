"""Finished parts of a long run, kept so that an interrupted run goes on behind the last of them."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from retrieval_geometry._sealed import Kind, parse_json
from retrieval_geometry._sources import PACKAGE, combined, loaded_sources
from retrieval_geometry.reporting._decode import decode
from retrieval_geometry.reporting.results import MethodResult

PART = Kind("part of a run", 1, "it is made again")


@dataclass(frozen=True)
class Part:
    """Metrics of a method, the nearest images of every query, and the seconds that they took."""

    entry: MethodResult
    nearest: tuple[tuple[int, ...], ...]
    seconds: float


Kept = TypeVar("Kept")


class Checkpoints:
    """The parts of one run, by name.

    They are kept under a digest of all that they depend on: whatever the caller names, torch, and the modules
    of the functions that make them with all that these import. After a change of any of it a part is made
    anew.

    Args:
        cache: the folder of a run's caches; parts lie in one below it.
        make: a function that makes parts.
        identity: what else the parts depend on, as JSON values.
    """

    def __init__(self, cache: Path, make: Callable[..., Any], **identity: Any) -> None:
        self._cache = cache
        self._modules = frozenset({_module_of(make)})
        # torch may change a sum in its last bits, and a training with it; other libraries decide no part.
        self._identity = json.dumps([identity, torch.__version__], sort_keys=True)

    def made_by(self, make: Callable[..., Any]) -> Self:
        """The same for parts that this function has a hand in as well."""
        # A copy: others that hold this object keep their folder.
        more = copy.copy(self)
        more._modules = self._modules | {_module_of(make)}
        return more

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        digest = combined([self._identity, _source(self._modules)])
        return self._cache / "parts" / digest

    def get(self, name: str, kind: type[Kept] = Part) -> Kept | None:  # type: ignore[assignment]
        """A part that was finished, of this kind; None if it was not.

        None as well if its file is damaged: then a line on stderr says that it is made again.
        """
        content = PART.recover(*self._place(name, kind))
        return None if content is None else decode(kind, parse_json(content.decode()))

    def put(self, name: str, part: Any) -> None:
        """Keep a part, a dataclass."""
        path, about = self._place(name, type(part))
        PART.write(path, json.dumps(asdict(part), allow_nan=False).encode(), about)

    def _place(self, name: str, kind: type) -> tuple[Path, str]:
        """The file of a part, and what it is about: one in the place of another is not used."""
        folder = self.folder
        return folder / f"{name}.part", f"{folder.name} {name} {kind.__name__}"


def _module_of(function: Callable[..., Any]) -> str:
    # A partial says that it comes from functools.
    while isinstance(function, partial):
        function = function.func
    return function.__module__


@cache
def _source(modules: frozenset[str]) -> str:
    """A digest of the modules and of what they import; others than this package's are named only."""
    sources = loaded_sources()
    # A test or a notebook may make parts: there is no file of the package to digest.
    own = {name for name in modules if name.split(".")[0] == PACKAGE}
    files = sources.closure(*map(sources.file, own))
    return combined([sources.digest(files), *sorted(modules - own)])
