"""Finished parts of a long run, kept so that an interrupted run goes on behind the last of them."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

import retrieval_geometry
from retrieval_geometry._files import replacing
from retrieval_geometry.reporting._decode import decode
from retrieval_geometry.reporting.results import MethodResult, results_dir


@dataclass(frozen=True)
class Part:
    """What a method reached, the nearest images of every query, and the seconds that took."""

    entry: MethodResult
    nearest: tuple[tuple[int, ...], ...]
    seconds: float


Kept = TypeVar("Kept")


class Checkpoints:
    """The parts of one run, by name.

    They are kept under a hash of all that they depend on: whatever the caller names, torch, and the source
    of this package. After any change a run begins anew.
    """

    def __init__(self, **identity: Any) -> None:
        everything = [identity, torch.__version__, _sources()]
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        self.folder = results_dir().parent / "cache" / "parts" / digest[:32]

    def get(self, name: str, kind: type[Kept] = Part) -> Kept | None:  # type: ignore[assignment]
        """A part that was finished, of this kind; None if it was not, or if its file is damaged."""
        try:
            return decode(kind, json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def put(self, name: str, part: Any) -> None:
        """Keep a part, a dataclass."""
        with replacing(self.folder / f"{name}.json") as file:
            file.write_text(json.dumps(asdict(part)), encoding="utf-8")


@cache
def _sources() -> str:
    """A hash of the package's source."""
    root = Path(retrieval_geometry.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
