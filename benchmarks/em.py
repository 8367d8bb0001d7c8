"""Gaussian mixtures by EM: the honest row, where no speed-up is claimed."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture

from benchmarks.measure import side_by_side
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.image_models import fit_mixture

ITERATIONS = 20
FLOOR = 1e-3


def mixture_row(settings: Settings) -> Row:
    """As many iterations for both, from the same kind of start; the note compares the likelihoods reached."""
    k = settings.components if settings.points >= settings.components else settings.points // 2
    n_images = min(settings.images, 4)
    x = settings.inputs.draw(n_images, settings.points, settings.dim)

    def peer(dtype: torch.dtype) -> list[float]:
        reached = []
        for points in x.to(dtype).numpy():
            floor = FLOOR * float(points.var(axis=0).mean())
            model = SklearnMixture(
                k,
                covariance_type="diag",
                tol=0.0,
                max_iter=ITERATIONS,
                init_params="k-means++",
                reg_covar=floor,
                random_state=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                reached.append(float(model.fit(points).score(points)))
        return reached

    def ours() -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            fitted = fit_mixture(x, k, max_iterations=ITERATIONS, tolerance=0.0, variance_floor=FLOOR)
        return fitted.log_prob(x).double().mean(dim=1).tolist()

    peers = {"scikit-learn, float64": torch.float64, "scikit-learn, float32": torch.float32}
    works: dict[str, Callable[[], object]] = {name: partial(peer, dtype) for name, dtype in peers.items()}
    times = side_by_side({"ours": ours, **works}, settings.budget)
    return Row(
        "mixture_em",
        f"EM for {k} diagonal components, {ITERATIONS} iterations",
        "image",
        f"D = {settings.dim}, {settings.points} descriptors, float64",
        Side("retrieval_geometry", times["ours"].per(n_images)),
        tuple(Side(name, times[name].per(n_images)) for name in peers),
        note=f"mean log-likelihood of a descriptor: ours {np.mean(ours()):.1f} nats, "
        f"scikit-learn {np.mean(peer(torch.float64)):.1f}",
    )
