"""Local descriptors of images: from a scattering, from trained networks, and as a bag of visual words."""

from retrieval_geometry.features.backbones import load_backbone
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.local import extract_descriptors, l2_normalize
from retrieval_geometry.features.scattering import Scattering

__all__ = ["Backbone", "Scattering", "extract_descriptors", "l2_normalize", "load_backbone"]
