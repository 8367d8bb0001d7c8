"""The search for the rotations of one image, and the choice of order and shrinkage on held-out descriptors.

Matrices are numpy float64 here, because they go to compiled loops; batches of them are torch float64 on the
CPU. The loops are imported where they are called: numba is slow to import.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._compiled import Floats, Integers

FOLDS = 3
SHRINKAGES = torch.linspace(0.01, 1, 100, dtype=torch.float64)  # zero is left out: it can be singular
TIE = 1e-9
"""Nats per descriptor: likelihoods that differ by no more are equal, and the first is chosen."""

ROW_PADDING = 8  # rows of a power of two entries would meet in the same lines of the processor's cache


class Path(NamedTuple):
    """The rotations of one covariance, with the variances before them and of the pair after each."""

    start: Floats
    pairs: Integers
    angles: Floats
    changed: Floats

    def variances(self, order: int) -> Floats:
        """The variances after the first ``order`` rotations."""
        found = self.start.copy()
        found[self.pairs[:order].ravel()] = self.changed[:order].ravel()  # the last of equals counts
        return found

    def rotate(self, points: Floats, order: int) -> Floats:
        """Rotate ``(D, n)`` points by the first ``order`` rotations."""
        from retrieval_geometry.image_models._smt_kernels import rotate_rows

        rotated = np.array(points, order="C")
        rotate_rows(rotated, self.pairs[:order], self.angles[:order])
        return rotated


def search(cov: Floats, floor: float, order: int) -> Path:
    """Find at most ``order`` greedy rotations of a ``(D, D)`` covariance; variances stop at ``floor``.

    A direction at the floor counts as constant: it has no correlations, at the start as later.
    """
    from retrieval_geometry.image_models._smt_kernels import greedy_rotations

    dim = len(cov)
    start = np.maximum(np.diag(cov), floor)
    scale = np.sqrt(start)
    correlations = np.zeros((dim, dim + ROW_PADDING))
    # Zeros on the diagonal: no coordinate is its own partner.
    correlations[:, :dim] = cov / np.outer(scale, scale)
    np.fill_diagonal(correlations, 0)
    correlations[start <= floor, :dim], correlations[:, :dim][:, start <= floor] = 0, 0
    pairs, angles, changed = np.empty((order, 2), np.int64), np.empty(order), np.empty((order, 2))
    steps = greedy_rotations(correlations, start.copy(), floor, pairs, angles, changed)
    return Path(start, pairs[:steps], angles[:steps], changed[:steps])


class Fold(NamedTuple):
    """Training and held-out descriptors ``(b, n, D)``, ``(b, m, D)``, both centred by the training mean."""

    train: Tensor
    held: Tensor


def split_folds(points: Tensor, permutation: Tensor, zero_mean: bool) -> list[Fold]:
    """Deal the descriptors into folds; each is held out once."""
    folds = []
    for k in range(FOLDS):
        held = torch.zeros(points.shape[1], dtype=torch.bool)
        held[permutation[k::FOLDS]] = True
        train = points[:, ~held]
        # Held-out descriptors are centred by the training mean: their own is not known to the model.
        shift = 0.0 if zero_mean else train.mean(dim=1, keepdim=True)
        folds.append(Fold(train - shift, points[:, held] - shift))
    return folds


def second_moment(points: Tensor) -> Tensor:
    """Return ``(b, D, D)``, the mean outer product of the descriptors."""
    return points.mT @ points / points.shape[1]


def search_all(points: Tensor, floors: Floats, orders: Sequence[int], pool: Executor) -> list[Path]:
    """Search the rotations of each image of a batch ``(b, n, D)``, on all threads of the pool."""
    return list(pool.map(search, second_moment(points).numpy(), floors, orders))


def likelihood_curve(path: Path, held: Tensor, order: int) -> Floats:
    """Return the mean log-likelihood of held-out ``(m, D)`` after 0, 1, ..., ``order`` rotations."""
    from retrieval_geometry.image_models._smt_kernels import held_out_curve

    curve = np.empty(order + 1)
    points = np.array(held.mT.numpy(), order="C")
    held_out_curve(points, path.start.copy(), path.pairs, path.angles, path.changed, curve)
    return curve


def order_curves(folds: list[Fold], paths: list[list[Path]], order: int, pool: Executor) -> Floats:
    """Return ``(b, order + 1)``: the mean log-likelihood of a descriptor, over all folds, at each order."""
    total: Floats = np.zeros((len(folds[0].held), order + 1))
    for fold, fold_paths in zip(folds, paths, strict=True):
        curves = pool.map(likelihood_curve, fold_paths, fold.held, [order] * len(fold_paths))
        # Folds differ by a descriptor in size: each descriptor counts once.
        total += fold.held.shape[1] * np.stack(list(curves))
    return total / sum(fold.held.shape[1] for fold in folds)


def choose_shrinkage(
    folds: list[Fold], paths: list[list[Path]], floors: Floats, orders: Sequence[int]
) -> Tensor:
    """Return the shrinkages ``(b,)`` of [geometric] eq. 6 that make held-out descriptors most likely."""
    total = torch.zeros(len(orders), len(SHRINKAGES), dtype=torch.float64)
    for fold, fold_paths in zip(folds, paths, strict=True):
        variances = [path.variances(order) for path, order in zip(fold_paths, orders, strict=True)]
        live = torch.from_numpy(np.stack(variances) > floors[:, None])
        scale = torch.from_numpy(np.stack(variances)).sqrt().unsqueeze(2)
        train, held = (_rotate_all(part, fold_paths, orders) / scale for part in fold)
        total += fold.held.shape[1] * _shrinkage_likelihoods(train, held, live)
    return SHRINKAGES[first_of_best(total / sum(fold.held.shape[1] for fold in folds))]


def first_of_best(likelihoods: Tensor) -> Tensor:
    """The first position ``(b,)`` in each row that is within :data:`TIE` of the best."""
    return (likelihoods >= likelihoods.amax(dim=1, keepdim=True) - TIE).int().argmax(dim=1)


def _rotate_all(points: Tensor, paths: list[Path], orders: Sequence[int]) -> Tensor:
    """Rotate the points ``(b, n, D)`` of each image by the rotations found for it, ``(b, D, n)``."""
    columns = zip(paths, points.mT.numpy(), orders, strict=True)
    return torch.from_numpy(np.stack([path.rotate(one, order) for path, one, order in columns]))


def _shrinkage_likelihoods(train: Tensor, held: Tensor, live: Tensor) -> Tensor:
    r"""Return the mean log-likelihood ``(b, A)`` of ``held (b, D, m)`` at each shrinkage, but for a constant.

    In the rotated coordinates, divided by their SMT deviations, eq. 6 reads :math:`\alpha I + (1 - \alpha) R`
    with R the second moment of the training points there: one spectrum of R serves all shrinkages. Directions
    at the floor, those not ``live (b, D)``, do not depend on the shrinkage and are left out.
    """
    train, held = train * live.unsqueeze(2), held * live.unsqueeze(2)
    # alpha I + (1 - alpha) R has R's eigenvectors, and eigenvalues alpha + (1 - alpha) r.
    values, basis = _spectrum(train / train.shape[2] ** 0.5)
    energy = (basis.mT @ held).square().mean(dim=2)
    # Outside the span of the training points R is 0: the eigenvalue there is alpha.
    rest = (held.square().sum(dim=1).mean(dim=1) - energy.sum(dim=1)).clamp(min=0)
    eigenvalues = SHRINKAGES + (1 - SHRINKAGES) * values.unsqueeze(2)
    spanned = (eigenvalues.log() + energy.unsqueeze(2) / eigenvalues).sum(dim=1)
    n_rest = live.sum(dim=1) - values.shape[1]  # takes back the directions at the floor that `spanned` counts
    unspanned = n_rest.unsqueeze(1) * SHRINKAGES.log() + rest.unsqueeze(1) / SHRINKAGES
    return -0.5 * (spanned + unspanned)


def _spectrum(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(b, r)`` and eigenvectors ``(b, D, r)`` of ``factor @ factor.mT``, r = min(D, n)."""
    if factor.shape[1] <= factor.shape[2]:
        values, basis = torch.linalg.eigh(factor @ factor.mT)
        return values.clamp(min=0), basis
    values, coefficients = torch.linalg.eigh(factor.mT @ factor)
    negligible = values <= 1e-12 * values[:, -1:]  # of rounding only: leave these directions to the rest
    inverse_root = torch.where(negligible, 0.0, values.clamp(min=1e-300).rsqrt())
    return values.masked_fill(negligible, 0.0), (factor @ coefficients) * inverse_root.unsqueeze(1)
