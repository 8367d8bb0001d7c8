"""Images as probability distributions over their local descriptors."""

from retrieval_geometry.image_models.gaussian import Gaussian, fit_gaussian
from retrieval_geometry.image_models.mixture import GaussianMixture, fit_mixture
from retrieval_geometry.image_models.smt import Rotations, SMTFit, fit_smt, smt_covariance

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "Rotations",
    "SMTFit",
    "fit_gaussian",
    "fit_mixture",
    "fit_smt",
    "smt_covariance",
]
