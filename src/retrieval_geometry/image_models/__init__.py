"""Images as probability distributions over their local descriptors."""

from retrieval_geometry.image_models.gaussian import Gaussian, fit_gaussian
from retrieval_geometry.image_models.mixture import GaussianMixture, fit_mixture

__all__ = ["Gaussian", "GaussianMixture", "fit_gaussian", "fit_mixture"]
