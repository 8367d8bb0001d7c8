"""Projections of embeddings, in scikit-learn's manner: ``fit(references)``, ``transform(embeddings)``.

Whitening in closed form, the networks of [ae-svc], controls, and the theory of what they do to a cosine.
"""

from retrieval_geometry.projections._base import Projection
from retrieval_geometry.projections.autoencoder import AESVC
from retrieval_geometry.projections.constraints import constraint_losses, covariance_floor
from retrieval_geometry.projections.controls import AllButTheTop, RandomRotation, Truncation
from retrieval_geometry.projections.distillation import SS2D, SSD
from retrieval_geometry.projections.files import load_projection, save_projection
from retrieval_geometry.projections.moments import StreamingMoments, streaming_moments
from retrieval_geometry.projections.nested import nested_similarity_loss
from retrieval_geometry.projections.quantization import ProductQuantization
from retrieval_geometry.projections.theory import (
    cosine_variance,
    cosine_variance_gradient,
    effective_dimension,
    exact_cosine_variance,
    exceedance_probability,
    squared_length_dispersion,
)
from retrieval_geometry.projections.variational import VAE
from retrieval_geometry.projections.whitening import PCAWhitening

__all__ = [
    "AESVC",
    "SS2D",
    "SSD",
    "VAE",
    "AllButTheTop",
    "PCAWhitening",
    "ProductQuantization",
    "Projection",
    "RandomRotation",
    "StreamingMoments",
    "Truncation",
    "constraint_losses",
    "cosine_variance",
    "cosine_variance_gradient",
    "covariance_floor",
    "effective_dimension",
    "exact_cosine_variance",
    "exceedance_probability",
    "load_projection",
    "nested_similarity_loss",
    "save_projection",
    "squared_length_dispersion",
    "streaming_moments",
]
