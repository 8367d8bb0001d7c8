"""Distances between models of the local descriptors of pictures: the system of [geometric]."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._check import ImageError
from retrieval_geometry.distances import pairwise
from retrieval_geometry.image_models import fit_gaussian, fit_mixture, smt_covariance
from retrieval_geometry.own_pictures.request import FOR_MIXTURES, Request

NEED_FULL_RANK = ("kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean")
SHRINKAGE = 0.1
COMPONENTS = 64
AT_ONCE = {"gaussian": 128, "smt": 128, "mixture": 1}
"""Pictures whose models are made at once; seeds of mixtures would depend on who else is there."""


def distances(
    request: Request,
    queries: Sequence[str],
    asked: Sequence[np.ndarray],
    names: Sequence[str],
    rows: Sequence[np.ndarray],
    say: Callable[[str], None],
) -> np.ndarray:
    """Distances ``(Q, n)`` of pictures from queries, NaN for pictures of which there is no model.

    Args:
        request: model, distance and device.
        queries: their names.
        asked: their local descriptors ``(N, D)``.
        names: of the pictures.
        rows: their local descriptors.
        say: gets the pictures that are left out.

    Raises:
        ValueError: an error of the model or the distance names the file.
    """
    full_rank = request.distance in NEED_FULL_RANK
    kept = list(range(len(names)))
    if request.model != "gaussian" or full_rank:
        _refuse_flat(queries, asked)
        kept = [i for i in kept if not _is_flat(rows[i])]
        for i in sorted(set(range(len(names))).difference(kept)):
            say(f"skipped {names[i]}: it is constant")
        if not kept:
            raise ValueError("every image of the folder is constant: there is nothing to rank")
    if request.model == "gaussian" and full_rank:
        say(f"note: covariances are shrunk by {SHRINKAGE} towards a multiple of the identity")
    models = [_fit([name], [x], request) for name, x in zip(queries, asked, strict=True)]
    values = np.full((len(queries), len(names)), np.nan)
    at_once = AT_ONCE[request.model]
    for some in (kept[start : start + at_once] for start in range(0, len(kept), at_once)):
        own = [names[i] for i in some]
        q = _fit(own, [rows[i] for i in some], request)
        for row, query, p in zip(values, queries, models, strict=True):
            row[some] = _compare(request.distance, p, q, query, own)
    return values


def _refuse_flat(queries: Sequence[str], asked: Sequence[np.ndarray]) -> None:
    for query, x in zip(queries, asked, strict=True):
        if _is_flat(x):
            raise ValueError(
                f"QUERY {query} is constant, so its covariance is zero: use --model gaussian with "
                "--distance wasserstein2, euclidean_mean or cosine_mean"
            )


def _is_flat(x: np.ndarray) -> bool:
    """Whether descriptors ``(N, D)`` are all alike: their covariance is zero."""
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an infinite one is refused by the models, with a better message
        return bool(np.linalg.norm(x - x.mean(axis=0)) <= 1e-5 * np.linalg.norm(x))


def _fit(names: Sequence[str], rows: Sequence[np.ndarray], request: Request) -> Any:
    """Models of some pictures; an error names the file."""
    # In double precision, in which nearly flat images still have positive definite covariances.
    x = torch.from_numpy(np.stack(rows)).to(request.device, torch.float64)
    try:
        return _models(x, request)
    except ImageError as error:
        raise error.called(names[error.image]) from None


def _models(x: Tensor, request: Request) -> Any:
    if request.model == "smt":
        return smt_covariance(x)
    if request.model == "mixture":
        mixture = fit_mixture(x, min(COMPONENTS, x.shape[1]))
        return mixture if request.distance in FOR_MIXTURES else mixture.collapse()
    return fit_gaussian(x, shrinkage=SHRINKAGE if request.distance in NEED_FULL_RANK else 0.0)


def _compare(distance: str, p: Any, q: Any, query: str, names: Sequence[str]) -> np.ndarray:
    """Distances ``(n,)`` of some pictures from a query; an error names the file."""
    try:
        return pairwise(distance, p, q)[0].cpu().numpy()
    except ImageError as error:
        raise error.called(query if error.side == "p" else names[error.image]) from None
