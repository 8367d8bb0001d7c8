"""Small generated images for the tests of features."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.datasets import ImageSet


@pytest.fixture
def toy_images() -> ImageSet:
    """Six random images of six sizes in two classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = {
        f"{'ab'[i % 2]}/{i}": torch.randint(
            0, 256, (3, 40 + 3 * i, 50 + i), dtype=torch.uint8, generator=generator
        )
        for i in range(6)
    }
    return ImageSet("toy", torch.arange(6) % 2, ("a", "b"), tuple(pixels), "0", pixels.__getitem__)
