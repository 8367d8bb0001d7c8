"""Images as probability distributions over their local descriptors."""

from retrieval_geometry.image_models.gaussian import Gaussian, fit_gaussian

__all__ = ["Gaussian", "fit_gaussian"]
