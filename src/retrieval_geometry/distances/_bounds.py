r"""Lower bounds of distances, for all pairs at the price of matrix products.

Each is a theorem less a margin for rounding, so that a bound is never above the distance that is computed for
the same pair.
"""

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import blocks
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
    checked_covariance,
    pack_symmetric,
    pooled_whitener,
    product_with_each,
    squared_euclidean,
)
from retrieval_geometry.distances.riemannian import euclidean_by_product, symmetric_log
from retrieval_geometry.distances.wasserstein import factor_features
from retrieval_geometry.image_models import Gaussian

MARGIN = 1e-9
"""Rounding of a fidelity or a logarithm in float64, relative to the size of what it is computed from."""

ROUNDING = 1e-13
"""Rounding of a squared trace in float64, relative."""


def wasserstein2_squared_lower_bound(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Lower bounds ``(P, Q)`` of the squared 2-Wasserstein distance, from upper bounds of the fidelity F.

    Three bounds, of which the smallest counts:

    - pinching: F does not decrease if both covariances lose what is off the diagonal, in any common basis;
      here that of the average covariance: :math:`F \le \sum_i \sqrt{a_i b_i}`;
    - super-fidelity: :math:`F^2 \le \operatorname{tr} \Sigma_p \Sigma_q + \sqrt{(\operatorname{tr}^2 \Sigma_p
      - \operatorname{tr} \Sigma_p^2) (\operatorname{tr}^2 \Sigma_q - \operatorname{tr} \Sigma_q^2)}`;
    - duality: :math:`F^2 \le \operatorname{tr} (Y^{-1} \Sigma_p) \operatorname{tr} (Y \Sigma_q)` for any
      positive definite Y; here the transport map from the average covariance to the query's.
    """
    check_gaussians(p, q)
    average = _average(p, q)
    values, basis = torch.linalg.eigh(average)
    root = (basis * values.clamp_min(0).sqrt()) @ basis.mT
    right = [_Spread(q[j], "q", j.start, basis) for j in blocks(len(q), 40 * p.dim**2)]
    rows = []
    for i in blocks(len(p), 40 * p.dim**2):
        left = _Spread(p[i], "p", i.start, basis)
        duals = _transport_maps(left.cov, average, root)
        rows.append(torch.cat([_squared_bound(left, duals, block) for block in right], dim=1))
    return torch.cat(rows)


class _Spread:
    """What the bounds need of some images, in float64."""

    def __init__(self, g: Gaussian, side: str, start: int, basis: Tensor) -> None:
        features = factor_features(g, side, start)
        self.mean, self.trace = features.mean, features.trace
        self.cov = checked_covariance(g, side, start)
        self.packed = pack_symmetric(self.cov, torch.float64)
        self.purity = self.packed.square().sum(dim=1)
        turned = product_with_each(basis.mT, features.factor)
        self.diagonal_roots = turned.square().sum(dim=2).sqrt()


def _squared_bound(left: _Spread, duals: tuple[Tensor, Tensor], right: _Spread) -> Tensor:
    pinched = left.diagonal_roots @ right.diagonal_roots.mT
    # The differences cancel for nearly rank-one images: rounding is added where it could lower the bound.
    squares = [side.trace.square() for side in (left, right)]
    mixed = [
        (square - side.purity + ROUNDING * square).clamp_min(0).sqrt()
        for side, square in zip((left, right), squares, strict=True)
    ]
    products = left.packed @ right.packed.mT + ROUNDING * torch.outer(left.trace, right.trace)
    super_fidelity = (products + torch.outer(*mixed)).clamp_min(0).sqrt()
    weights, maps = duals
    dual = (weights.unsqueeze(1) * (maps @ right.packed.mT)).clamp_min(0).sqrt()
    fidelity = torch.minimum(torch.minimum(pinched, super_fidelity), dual)
    size = left.trace.unsqueeze(1) + right.trace
    spread = (size - 2 * fidelity - MARGIN * size).clamp_min(0)
    return squared_euclidean(left.mean, right.mean) * (1 - MARGIN) + spread


def _transport_maps(covs: Tensor, average: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    r"""For each covariance S the trace of :math:`Y^{-1} S` and Y itself, packed: two batches.

    Y is the transport map T from the average M, with :math:`T M T = S`, plus a small multiple of the
    identity, because T is singular where S is.
    """
    values, vectors = torch.linalg.eigh(root)
    kept = values > 1e-7 * values[-1]
    inverse = (vectors * torch.where(kept, 1 / values.where(kept, torch.ones_like(values)), 0.0)) @ vectors.mT
    maps, weights = [], []
    for cov in covs:
        inner, turned = torch.linalg.eigh(root @ cov @ root)
        middle = (turned * inner.clamp_min(0).sqrt()) @ turned.mT
        transport = inverse @ middle @ inverse
        transport = (transport + transport.mT) / 2
        least = torch.linalg.eigvalsh(transport)
        # A positive definite Y is all that the bound needs: its trace with S is computed, not assumed.
        shift = 1e-6 * least[-1] - least[0].clamp_max(0) + torch.finfo(cov.dtype).tiny
        positive = transport + shift * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
        lower = torch.linalg.cholesky(positive)
        weights.append(torch.cholesky_solve(cov, lower).diagonal().sum())
        maps.append(positive)
    return torch.stack(weights), pack_symmetric(torch.stack(maps), torch.float64)


def affine_invariant_lower_bound(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Lower bounds ``(P, Q)`` of the affine-invariant distance: log-Euclidean behind a common whitening.

    The exponential map does not shrink distances of positive definite matrices (Bhatia 2007, theorem 6.1.4):
    :math:`\| \log A - \log B \|_F \le d(A, B)`. A common congruence leaves d alone, and near the identity the
    two sides almost agree.
    """
    return (euclidean_by_product(*_whitened_logs(p, q)) * (1 - MARGIN) - _log_rounding(p.dim)).clamp_min(0)


def _whitened_logs(p: Gaussian, q: Gaussian) -> tuple[Tensor, Tensor]:
    """Packed logarithms of all covariances behind the whitening of their average."""
    check_gaussians(p, q)
    _, whitener = pooled_whitener(p, q)
    packed = []
    for side, g in (("p", p), ("q", q)):
        parts = []
        for i in blocks(len(g), 60 * p.dim**2):
            lower = product_with_each(whitener, checked_cholesky(g[i], side, i.start)[1])
            parts.append(pack_symmetric(symmetric_log(lower @ lower.mT), torch.float64))
        packed.append(torch.cat(parts))
    return packed[0], packed[1]


def _log_rounding(dim: int) -> float:
    """An absolute margin for logarithms of ill-conditioned matrices, beside the relative one."""
    return 1e-9 * dim


def _average(p: Gaussian, q: Gaussian) -> Tensor:
    total = torch.zeros(p.dim, p.dim, dtype=torch.float64, device=p.device)
    for g in (p, q):
        for cov in g.cov.split(64):
            total += cov.double().sum(dim=0)
    return (total + total.mT) / (2 * (len(p) + len(q)))
