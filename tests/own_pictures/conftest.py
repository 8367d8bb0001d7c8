"""A folder of pictures, and a network that is quick and keeps count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_geometry.own_pictures import SearchResult, rank_pictures
from retrieval_geometry.own_pictures.describing import Describer

Asked = tuple[SearchResult, list[str], list[str]]


def save(path: Path, seed: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    """A picture of noise, with a shade and a tint of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 100, (size[1], size[0], 3)) + noise.integers(0, 156, 3)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def index_files(tmp_path: Path, part: bool | None = None) -> list[Path]:
    """The files of the index, or its parts, or its catalogue."""
    files = sorted(file for file in (tmp_path / "kept").rglob("*") if file.is_file())
    return [file for file in files if part is None or (file.name != "catalogue") == part]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(6):
        save(tmp_path / "D" / f"{seed}.png", seed)
    return tmp_path / "D"


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return save(tmp_path / "query.png", 100)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that the network has seen, the query's among them."""
    names: list[str] = []

    def quick(self: Describer, pixels: np.ndarray, name: str) -> np.ndarray:
        names.append(name)
        return pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)

    monkeypatch.setattr(Describer, "__call__", quick)
    return names


@pytest.fixture
def ask(
    folder: Path, query: Path, described: list[str]
) -> Callable[[], tuple[SearchResult, list[str], list[str]]]:
    """Rank the folder: the answer, the pictures of the folder that were described for it, the notes."""

    def asked() -> tuple[SearchResult, list[str], list[str]]:
        described.clear()
        notes: list[str] = []
        answer = rank_pictures([query], folder, k=100, say=notes.append)
        return answer, sorted(name for name in described if name != query.name), notes

    return asked
