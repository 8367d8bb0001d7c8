"""Random-walk similarity on a batch and its proxies, and the losses of [edms] that are made of it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from retrieval_geometry._check import check_choice, check_labels, check_number
from retrieval_geometry.losses._vectors import check_vectors
from retrieval_geometry.losses.proxies import ProxyNPairLoss, check_meta_classes, mean_npair, proxy_terms

AFFINITIES = ("clamp", "exp")
KINDS = ("contextual", "intrinsic")
TEMPERATURE = 0.05
"""Of ``affinity="exp"``: that of the authors' own code."""


def random_walk_similarity(
    points: Tensor,
    alpha: float = 0.8,
    columns: Tensor | None = None,
    affinity: str = "clamp",
    temperature: float = TEMPERATURE,
) -> Tensor:
    r"""Similarity of points along their manifold: where a random walk with restarts spends its time.

    .. math:: F = (1 - \alpha) (I - \alpha \bar S)^{-1}, \qquad \bar S = D^{-1/2} S D^{-1/2}

    Source: [edms] eq. 9, errata 1.1 and 1.2. Derived in chapter 21.

    The walk goes on with probability :math:`\alpha` (the paper calls it that of a restart, erratum 1.1). The
    affinities S of the points must not be negative, or a degree has no root (erratum 1.2); their diagonal is
    zero, so that no walk stays where it is. A cosine below the rounding of the points' dtype counts as zero:
    two points with no other neighbour would be one by it. A point without neighbours keeps its own restart
    mass :math:`1 - \alpha`. The system is symmetric and positive definite: it is solved by a Cholesky
    factorisation in double precision, and so is its adjoint for the gradient. The relative error is some
    ``1e-15 / (1 - alpha)``.

    Args:
        points: ``(n, d)`` vectors of length one, of any floating-point dtype.
        alpha: between 0 and 1, the probability to go on.
        columns: ``(c,)`` the points whose similarities are wanted; all by default.
        affinity: ``"clamp"``, the dot product where it is positive, or ``"exp"``, the authors' choice
            ``exp(max(dot product, 0) / temperature)``.
        temperature: of ``"exp"``.

    Returns:
        ``(n, c)``.

    Raises:
        ValueError: points that are no finite ``(n, d)`` or whose products overflow, alpha outside (0, 1), or
            columns that are no points.

    Example:
        >>> random_walk_similarity(torch.eye(3)[[0, 0, 1]], alpha=0.5).round(decimals=3)
        tensor([[0.6670, 0.3330, 0.0000],
                [0.3330, 0.6670, 0.0000],
                [0.0000, 0.0000, 0.5000]])
    """
    check_vectors(points, "points")
    check_alpha(alpha)
    check_choice(affinity, "affinity", AFFINITIES)
    check_number(temperature, "temperature", above=0)
    wanted = torch.arange(len(points)) if columns is None else _check_columns(columns, len(points))
    width = temperature if affinity == "exp" else None
    rounding = torch.finfo(points.dtype).eps
    # In double precision autocast lets the products alone.
    return _Walk.apply(points.double(), alpha, wanted.to(points.device), width, rounding).to(points.dtype)


def manifold_proxy_loss(
    x: Tensor,
    meta_class: Tensor,
    proxies: Tensor,
    margin: float = 5e-4,
    alpha: float = 0.8,
    kind: str = "contextual",
    affinity: str = "clamp",
) -> Tensor:
    r"""Proxy N-pair loss of random-walk similarities, the mean over a batch.

    With f the similarities of images and proxies to the K proxies (:func:`random_walk_similarity` on both
    together), an image of meta-class k asks for

    - ``"intrinsic"``: its similarity :math:`f_{n p_k}` to be larger than each other :math:`f_{n p_j}`;
    - ``"contextual"``: its row of similarities to look like that of its proxy, :math:`f_n \cdot f_{p_k}`.

    Source: [edms] eqs. 11 and 12. Derived in chapter 21.

    Args:
        x: ``(N, d)`` vectors of length one.
        meta_class: ``(N,)`` numbers from 0 to K - 1.
        proxies: ``(K, d)`` vectors of length one.
        margin: m.
        alpha: of the walk.
        kind: one of the two.
        affinity: of the walk.

    Returns:
        A scalar.

    Raises:
        ValueError: no batch, fewer than two proxies, a meta-class without a proxy, or a setting out of range.
    """
    check_choice(kind, "kind", KINDS)
    meta_class = check_meta_classes(x, meta_class, proxies)
    check_number(margin, "margin", at_least=0)
    return proxy_terms(_manifold(x, proxies, alpha, kind, affinity), meta_class, margin).mean()


def manifold_npair_loss(
    x: Tensor, labels: Tensor, margin: float = 5e-4, alpha: float = 0.8, affinity: str = "clamp"
) -> Tensor:
    """N-pair loss with margin of random-walk similarities within a batch: EDMS (RW), without proxies.

    Source: [edms] eqs. 3 and 9. Derived in chapter 21.

    Args:
        x: ``(N, d)`` vectors of length one.
        labels: ``(N,)`` classes or meta-classes.
        margin: m.
        alpha: of the walk.
        affinity: of the walk.

    Returns:
        A scalar, the mean over all pairs of an anchor and a positive; 0 where there are none.

    Raises:
        ValueError: as :func:`~retrieval_geometry.losses.npair_margin_loss` and
            :func:`random_walk_similarity`.
    """
    check_vectors(x, "x")
    check_number(margin, "margin", at_least=0)
    labels = check_labels(labels, len(x)).to(x.device)
    return mean_npair(random_walk_similarity(x, alpha, affinity=affinity), labels, margin)


def authors_manifold_loss(
    x: Tensor,
    meta_class: Tensor,
    proxies: Tensor,
    alpha: float = 0.8,
    temperature: float = TEMPERATURE,
    margin: float = 0.0,
    context_weight: float = 1.0,
) -> Tensor:
    """The manifold loss as the authors' own code has it, the mean over a batch.

    Source: [edms] section 6, in the authors' code as it survives in the tests of pytorch-metric-learning's
    ``ManifoldLoss``. Derived in chapter 21.

    It differs from [edms] eqs. 11 and 12 in four things: affinities are exponential, only violated
    comparisons (a difference above zero) enter the sum, contexts are compared by the cosine of whole rows,
    similarities to images included, and both losses are added. The authors learn the proxies, one for each
    class. With ``temperature=0.5`` and its margin this is that library's loss.

    Args:
        x: ``(N, d)`` vectors of length one.
        meta_class: ``(N,)`` numbers from 0 to K - 1.
        proxies: ``(K, d)`` vectors of length one.
        alpha: of the walk.
        temperature: of the affinities.
        margin: m; the authors have none.
        context_weight: of the contextual part.

    Returns:
        A scalar.

    Raises:
        ValueError: as :func:`manifold_proxy_loss`.
    """
    meta_class = check_meta_classes(x, meta_class, proxies)
    check_number(margin, "margin", at_least=0)
    check_number(context_weight, "context_weight", at_least=0)
    everything = torch.cat([x, proxies])
    rows = random_walk_similarity(everything, alpha, affinity="exp", temperature=temperature)
    images, own = rows[: len(x)], rows[len(x) :]
    context = functional.normalize(images, dim=1) @ functional.normalize(own, dim=1).mT
    intrinsic, contextual = (
        proxy_terms(similarity, meta_class, margin, violated_only=True).mean()
        for similarity in (images[:, len(x) :], context)
    )
    return intrinsic + context_weight * contextual


class ManifoldProxyLoss(ProxyNPairLoss):
    """:func:`manifold_proxy_loss` with proxies that are set from outside, as a loss of embeddings and labels.

    Source: [edms] eqs. 11 and 12. Used in chapter 21.

    The labels are meta-classes. :attr:`proxies` is a buffer, which hard proxies renew each epoch.

    Args:
        proxies: ``(K, d)``; scaled to length one, as the embeddings are.
        margin: m.
        alpha: of the walk.
        kind: ``"contextual"`` or ``"intrinsic"``.
        affinity: ``"clamp"`` or ``"exp"``.

    Raises:
        ValueError: a setting out of range; on call as :func:`manifold_proxy_loss`, or an embedding that is
            zero.
    """

    def __init__(
        self,
        proxies: Tensor,
        margin: float = 5e-4,
        alpha: float = 0.8,
        kind: str = "contextual",
        affinity: str = "clamp",
    ) -> None:
        super().__init__(proxies, margin)
        self.alpha = check_alpha(alpha)
        self.kind = check_choice(kind, "kind", KINDS)
        self.affinity = check_choice(affinity, "affinity", AFFINITIES)

    def _similarity(self, x: Tensor, proxies: Tensor) -> Tensor:
        return _manifold(x, proxies, self.alpha, self.kind, self.affinity)


def check_alpha(alpha: float) -> float:
    """Refuse what is no probability to go on strictly between 0 and 1."""
    check_number(alpha, "alpha", above=0)
    if alpha >= 1:
        raise ValueError(f"alpha must be below 1, the probability to go on, got {alpha!r}")
    return alpha


def _manifold(x: Tensor, proxies: Tensor, alpha: float, kind: str, affinity: str) -> Tensor:
    """Similarity ``(N, K)`` of images to proxies along the manifold, or of what they see of it."""
    everything = torch.cat([x, proxies])
    columns = torch.arange(len(x), len(everything), device=x.device)
    to_proxies = random_walk_similarity(everything, alpha, columns, affinity)
    images, own = to_proxies[: len(x)], to_proxies[len(x) :]
    return images if kind == "intrinsic" else images @ own.mT


def _check_columns(columns: Tensor, n_points: int) -> Tensor:
    found = check_labels(columns, None, "columns")
    if torch.as_tensor(columns).dtype == torch.bool:
        raise ValueError("columns must be numbers of points, got truth values; use .nonzero().flatten()")
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= n_points):
        raise ValueError(f"columns must be numbers of points from 0 to {n_points - 1}, got {columns}")
    return found


class _Walk(torch.autograd.Function):
    """Columns of the similarities F of points, with the gradient in closed form.

    With G the gradient of F, that of the normalised affinities is alpha A^-1 G F^T, A the system: one more
    solve by the same factor. It is passed on to the logarithms of the affinities, whose shares of a degree
    are a softmax: no affinity is too large or too small for it.
    """

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, alpha: float, columns: Tensor, width: float | None, rounding: float
    ) -> Tensor:
        products = points @ points.mT
        if not products.isfinite().all():
            raise ValueError("points must be of length one, got some whose products overflow")
        lengths = products.diagonal().sqrt()
        products *= products > rounding * lengths.unsqueeze(1) * lengths
        products.fill_diagonal_(0)
        slopes = torch.where(products > 0, products.reciprocal() if width is None else 1 / width, 0.0)
        # Shares of a degree. A point without neighbours has none, and its row stays zero.
        if width is None:
            shares = products / products.sum(dim=1, keepdim=True)
        else:
            shares = (products / width).fill_diagonal_(-torch.inf).softmax(dim=1)
        shares.nan_to_num_(nan=0.0)
        roots = shares.sqrt()
        walk = roots * roots.mT
        system = walk * -alpha
        system.diagonal().add_(1)
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed.any():
            raise ValueError(f"alpha is too near 1 for double precision, got {alpha!r}; take 1 - 1e-12")
        restarts = torch.zeros(len(points), len(columns), dtype=walk.dtype, device=walk.device)
        restarts[columns, torch.arange(len(columns), device=walk.device)] = 1 - alpha
        found = torch.cholesky_solve(restarts, factor)
        ctx.alpha = alpha
        ctx.save_for_backward(points, slopes, shares, walk, factor, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        points, slopes, shares, walk, factor, found = ctx.saved_tensors
        of_walk = ctx.alpha * torch.cholesky_solve(grad, factor) @ found.mT
        of_logarithms = (of_walk + of_walk.mT) * walk  # a product of two points stands in two places
        of_degrees = -0.5 * of_logarithms.sum(dim=1, keepdim=True) * shares
        of_products = (of_logarithms + of_degrees + of_degrees.mT) * slopes
        return of_products @ points, None, None, None, None
