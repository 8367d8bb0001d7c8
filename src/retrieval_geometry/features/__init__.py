"""Local descriptors of images: from a scattering, from trained networks, and as a bag of visual words."""

from retrieval_geometry.features.backbones import load_backbone
from retrieval_geometry.features.bag_of_words import SiftBagOfWords
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.embedding import EmbeddingNetwork, GlyphCNN, load_embedding_network
from retrieval_geometry.features.ensemble import EmbeddingEnsemble, load_ensemble, save_member
from retrieval_geometry.features.local import extract_descriptors, l2_normalize
from retrieval_geometry.features.pooling import pool_descriptors
from retrieval_geometry.features.scattering import Scattering
from retrieval_geometry.features.vggm import VGGM, convert_vgg_m

__all__ = [
    "VGGM",
    "Backbone",
    "EmbeddingEnsemble",
    "EmbeddingNetwork",
    "GlyphCNN",
    "Scattering",
    "SiftBagOfWords",
    "convert_vgg_m",
    "extract_descriptors",
    "l2_normalize",
    "load_backbone",
    "load_embedding_network",
    "load_ensemble",
    "pool_descriptors",
    "save_member",
]
