"""Two photographs of the bundled set: enough to run everything in seconds."""

import pytest
import torch

from retrieval_geometry.datasets import photo_textures
from retrieval_geometry.experiments.data import Setting


@pytest.fixture
def small_setting(monkeypatch, tmp_path) -> Setting:
    """Twelve patches each of two photographs, three queries each; results and caches go to a fresh folder."""
    monkeypatch.chdir(tmp_path)
    images = photo_textures()
    firsts = torch.cat([(images.labels == label).nonzero()[:12, 0] for label in (0, 1)])
    queries = torch.tensor([0, 1, 2, 12, 13, 14])
    backbone = {"name": "scattering", "layer": None, "weights": None}
    return Setting(images.subset(firsts), queries, torch.arange(24), "a test", "CC0", backbone)
