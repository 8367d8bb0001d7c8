"""Small image files for the tests of data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def save_noise(path: Path, size: tuple[int, int] = (9, 7), seed: int = 0) -> np.ndarray:
    """Write random RGB pixels, ``size`` wide and high; returns ``(H, W, 3)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Two classes with two and three images."""
    for seed, name in enumerate(
        ["brick/b.png", "brick/a.png", "moss/1.png", "moss/2.png", "moss/deep/3.png"]
    ):
        save_noise(tmp_path / "set" / name, seed=seed)
    return tmp_path / "set"
