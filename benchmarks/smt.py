"""Sparse matrix transform: the cached greedy search against one that looks everywhere at each step."""

from typing import Any

import numba
import numpy as np

from benchmarks.measure import side_by_side
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.image_models import fit_smt
from retrieval_geometry.image_models._smt_search import search
from retrieval_geometry.reporting.tables import format_seconds


@numba.njit
def naive_greedy(cov: Any, order: int, pairs: Any) -> None:
    """Rotate the most correlated pair of coordinates, found among all pairs at every step; compiled."""
    dim = len(cov)
    for step in range(order):
        best, p, q = -1.0, 0, 1
        for i in range(dim):
            for j in range(i + 1, dim):
                value = cov[i, j] * cov[i, j] / (cov[i, i] * cov[j, j])
                if value > best:
                    best, p, q = value, i, j
        theta = 0.5 * np.arctan2(-2 * cov[p, q], cov[p, p] - cov[q, q])
        c, s = np.cos(theta), np.sin(theta)
        for k in range(dim):
            a, b = cov[p, k], cov[q, k]
            cov[p, k], cov[q, k] = c * a - s * b, s * a + c * b
        for k in range(dim):
            a, b = cov[k, p], cov[k, q]
            cov[k, p], cov[k, q] = c * a - s * b, s * a + c * b
        pairs[step, 0], pairs[step, 1] = p, q


def smt_row(settings: Settings) -> Row:
    """One image, a fixed number of rotations: the search alone, and in the note the whole fit."""
    # As many descriptors as keep every direction varied: the naive search has no floor for variances.
    x = settings.inputs.draw(1, 2 * settings.dim, settings.dim, "fast")
    centred = (x[0] - x[0].mean(dim=0)).double()
    cov = (centred.mT @ centred / len(centred)).numpy()
    order, floor = settings.rotations, 1e-6 * float(np.diag(cov).mean())
    pairs = np.empty((order, 2), np.int64)
    naive_greedy(np.eye(2), 1, pairs[:1])  # compiles it, as the next line does ours
    fit_smt(x[:, :, :8], order=4, shrinkage=1.0)
    times = side_by_side(
        {
            "search": lambda: search(cov, floor, order),
            "fit": lambda: fit_smt(x, order=order, shrinkage=1.0),
            "naive": lambda: naive_greedy(cov.copy(), order, pairs),
        },
        settings.budget,
    )
    ours = search(cov, floor, order).pairs
    return Row(
        "smt",
        f"sparse matrix transform, search of {order} rotations",
        "image",
        f"D = {settings.dim}, {len(centred)} descriptors, float64",
        Side("retrieval_geometry", times["search"]),
        (Side("naive greedy search, compiled", times["naive"]),),
        mark=20,
        identical=bool(np.array_equal(ours, pairs[: len(ours)])),
        note=f"with forming covariances before and after: {format_seconds(times['fit'].seconds)}",
    )
