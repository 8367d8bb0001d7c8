"""Two photographs of the bundled set: enough to run everything in seconds."""

import pytest
import torch

from retrieval_geometry.datasets import photo_textures
from retrieval_geometry.experiments import RunContext
from retrieval_geometry.papers.geometric.data import Setting


@pytest.fixture
def context(tmp_path) -> RunContext:
    """Profile ``quick``; results and caches go to a fresh folder."""
    return RunContext(results=tmp_path / "results", cache=tmp_path / "cache")


@pytest.fixture
def small_setting() -> Setting:
    """Twelve patches each of two photographs, three queries each."""
    images = photo_textures()
    firsts = torch.cat([(images.labels == label).nonzero()[:12, 0] for label in (0, 1)])
    queries = torch.tensor([0, 1, 2, 12, 13, 14])
    backbone = {"name": "scattering", "layer": None, "weights": None}
    return Setting(images.subset(firsts), queries, torch.arange(24), "a test", "CC0", backbone)
