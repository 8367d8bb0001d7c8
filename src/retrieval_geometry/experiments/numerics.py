"""How far each distance of the registry is from its exact value, over condition, scale, rank and dtype."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry.distances import DISTANCES
from retrieval_geometry.experiments.exact import GAUSSIAN, MIXTURE, exact
from retrieval_geometry.image_models import Gaussian, GaussianMixture

DIM = 6
POINTS = 4
CONDITIONS = tuple(10.0**e for e in range(0, 13, 2))
SCALES = tuple(10.0**e for e in range(-8, 9, 4))
RANKS = tuple(range(1, DIM + 1))
DTYPES = (torch.float32, torch.float64)


class Case(NamedTuple):
    """Two images: the condition of their covariances, the size of their descriptors, rank, dtype."""

    condition: float = 1.0
    scale: float = 1.0
    rank: int = DIM
    dtype: torch.dtype = torch.float64


class Cell(NamedTuple):
    """The relative error of a distance, or None and why the package would not compute it."""

    error: float | None
    refusal: str = ""


INVERSE = ("kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean")
"""Distances that need an inverse or a logarithm of a covariance."""

LABELS = {
    "kl": "KL",
    "symmetric_kl": "KL, symmetric",
    "wasserstein2": "Wasserstein",
    "wasserstein2_squared": "Wasserstein²",
    "affine_invariant": "affine-invariant",
    "stein": "Stein",
    "log_euclidean": "log-Euclidean",
    "euclidean_mean": "means",
    "cosine_mean": "means, cosine",
    "variational_kl": "variational KL",
    "symmetric_variational_kl": "var. KL, symm.",
    "mixture_wasserstein2_squared": "mixture Wasserst.²",
    "sinkhorn": "Sinkhorn",
}
"""What the figures call the distances."""


def promised(name: str, case: Case) -> float:
    """The relative error that the docstrings of the distances allow, with all that is in a batch.

    An inverse is as exact as the Cholesky factor that it comes from: float64 times the condition.
    """
    if case.dtype == torch.float32:
        return 1e-3
    # The second term is the rounding of float64 as an inverse magnifies it.
    return max(1e-6, 1e-16 * case.condition) if name in INVERSE else 1e-6


def answered(name: str, case: Case) -> bool:
    """Whether the package promises a value, and not a refusal by name.

    Below full rank there is no inverse, and a mixture has no component without a width. At full rank an
    inverse is given up to a condition of 1e6 in float32, and of 1e12 in float64; between two images whose
    conditions multiply to more than 1e20, the affine-invariant distance is refused earlier.
    """
    if name in MIXTURE:
        return case.rank == DIM
    # Two conditions of 1e10 multiply to the 1e20 beyond which the distance is refused.
    limit = 1e6 if case.dtype == torch.float32 else 1e10 if name == "affine_invariant" else 1e12
    return name not in INVERSE or (case.rank == DIM and case.condition <= limit)


def full_rank_cases(dtype: torch.dtype) -> list[Case]:
    """Conditions times scales."""
    return [Case(c, s, DIM, dtype) for c in CONDITIONS for s in SCALES]


def rank_cases(dtype: torch.dtype) -> list[Case]:
    """Ranks, the eigenvalues that are left within a factor of 100."""
    return [Case(100.0, 1.0, rank, dtype) for rank in RANKS]


def measured(cases: Iterable[Case], names: Sequence[str] = tuple(DISTANCES)) -> dict[str, dict[Case, Cell]]:
    """For each distance the cell of each case."""
    found: dict[str, dict[Case, Cell]] = {name: {} for name in names}
    for case in cases:
        for kind in (GAUSSIAN, MIXTURE, ("sinkhorn",)):
            chosen = [name for name in names if name in kind]
            if chosen:
                for name, cell in _of_kind(chosen, case).items():
                    found[name][case] = cell
    return found


def keeps_promise(name: str, case: Case, cell: Cell) -> bool:
    """Whether a value is within the promised error, and refused where none is promised."""
    if cell.error is None:
        return not answered(name, case)
    return answered(name, case) and cell.error <= promised(name, case)


def worst_errors(
    found: Mapping[str, Mapping[Case, Cell]], axis: str, values: Iterable[float], below: float = math.inf
) -> np.ndarray:
    """The largest error of each distance at each value, as a power of ten.

    Args:
        found: cells of each distance of :data:`LABELS`, as :func:`measured` returns them.
        axis: the field of a case, such as ``"condition"``.
        values: of that field.
        below: the largest condition that is looked at.

    Returns:
        Decimal logarithms (distances, values), at least -17; infinity where any case was refused.
    """
    return np.array([[_worst(found[name], axis, value, below) for value in values] for name in LABELS])


def _worst(found: Mapping[Case, Cell], axis: str, value: float, below: float) -> float:
    cells = (c for case, c in found.items() if getattr(case, axis) == value and case.condition <= below)
    # An error of 0 has no logarithm: it counts as below all digits of float64.
    errors = [math.inf if cell.error is None else max(cell.error, 1e-17) for cell in cells]
    return float(np.log10(max(errors)))


def _of_kind(names: Sequence[str], case: Case) -> dict[str, Cell]:
    """Cells of distances that compare images of one kind: the images are made once."""
    try:
        p, q = (images(names[0], case, seed) for seed in (1, 2))
    # A mixture with a variance of 0 is refused when it is made, before any distance.
    except ValueError as error:
        return {name: Cell(None, str(error)) for name in names}
    return {name: _cell(name, p, q) for name in names}


def _cell(name: str, p: Any, q: Any) -> Cell:
    try:
        value = float(DISTANCES[name](p, q))
    except ValueError as error:
        return Cell(None, str(error))
    right = exact(name, p, q)
    return Cell(float(abs(value - right) / abs(right)))


def images(name: str, case: Case, seed: int) -> Any:
    """A batch of one image as the distance called ``name`` wants it, rounded to the dtype of the case."""
    generator = torch.Generator().manual_seed(seed)
    if name in MIXTURE:
        return _mixture(case, generator)
    factor = _factor(case, float(seed), generator)  # images of two sizes: else they are one at condition 1
    mean = case.scale * _normal(generator, 1, DIM)
    if name == "sinkhorn":
        points = mean + (factor @ _normal(generator, case.rank, POINTS)).mT
        return points.unsqueeze(0).to(case.dtype)
    # Below full rank the factor is what the package gets: it is rounded first, and the product from it.
    factor = factor if case.rank == DIM else factor.to(case.dtype)
    cov = (factor @ factor.mT).to(case.dtype).unsqueeze(0)
    return Gaussian(mean.to(case.dtype), cov, None if case.rank == DIM else factor.unsqueeze(0))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _factor(case: Case, size: float, generator: torch.Generator) -> Tensor:
    """``(D, rank)``: orthogonal columns whose squared lengths span the condition."""
    # Random directions: on the axes, rounding would be kinder than it is.
    axes = torch.linalg.qr(_normal(generator, DIM, DIM)).Q[:, : case.rank]
    return case.scale * size * axes * _spectrum(case, case.rank).sqrt()


def _spectrum(case: Case, n: int) -> Tensor:
    return torch.logspace(0, -1, n, base=case.condition, dtype=torch.float64)


def _mixture(case: Case, generator: torch.Generator) -> GaussianMixture:
    """Two components; variances beyond the rank are 0, which no mixture takes."""
    share = 0.3 + 0.4 * torch.rand(1, 1, generator=generator, dtype=torch.float64)
    means = case.scale * _normal(generator, 1, 2, DIM)
    variances = torch.zeros(1, 2, DIM, dtype=torch.float64)
    for component in range(2):
        axes = torch.randperm(DIM, generator=generator)[: case.rank]
        variances[0, component, axes] = case.scale**2 * _spectrum(case, case.rank)
    parts = torch.cat([share, 1 - share], dim=1), means, variances
    return GaussianMixture(*(part.to(case.dtype) for part in parts))
