"""Backbones by name."""

from retrieval_geometry._check import check_choice
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.scattering import Scattering


def load_backbone(name: str = "scattering", device: str = "cpu") -> Backbone:
    """Make an extractor of local descriptors by its name."""
    check_choice(name, "name", ["scattering"])
    return Scattering().to(device).eval()
