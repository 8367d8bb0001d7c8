"""Formulas of [edms] as printed where they are wrong, beside the corrected ones: for the errata only.

Nothing in the package trains with them. Each function is a printed formula, typed in as it stands; beside it
stands the corrected one, or the name of the module that has it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Triplets(NamedTuple):
    """Random triplets with their proxies, as :func:`random_triplets` draws them.

    Attributes:
        image_loss: ``(n,)``, eq. 3 for one negative.
        proxy_loss: ``(n,)``, eq. 4 for one other proxy.
        lead: ``(n,)``, d(x, p_k) - d(x, p_j).
        epsilon: ``(n,)``, the larger distance of the two images from their proxies.
    """

    image_loss: Tensor
    proxy_loss: Tensor
    lead: Tensor
    epsilon: Tensor

    @property
    def gap(self) -> Tensor:
        """The left side of [edms] eq. 5."""
        return (self.image_loss - self.proxy_loss).abs()


def random_triplets(n: int, reach: float, dim: int = 3, margin: float = 5e-4, seed: int = 0) -> Triplets:
    """Anchors, proxies, and images near their proxies, all of length one, drawn at random.

    Args:
        n: number of triplets.
        reach: Euclidean distance of an image from its proxy before both are put on the sphere.
        dim: of the space.
        margin: m.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(5, n, dim, generator=generator, dtype=torch.float64)
    x, proxy, other, *steps = functional.normalize(drawn, dim=-1)
    right, wrong = (
        functional.normalize(p + reach * step, dim=1) for p, step in zip((proxy, other), steps, strict=True)
    )
    of_images, of_proxies = (
        functional.softplus((x * (b - a)).sum(dim=1) + margin) for a, b in ((right, wrong), (proxy, other))
    )
    lead = (x * (other - proxy)).sum(dim=1)
    epsilon = proxy_radius(torch.stack([right, wrong], dim=1), torch.stack([proxy, other], dim=1))
    return Triplets(of_images, of_proxies, lead, epsilon)


def walk_matrix(points: Tensor) -> Tensor:
    """The matrix of [edms] eq. 9 on clamped dot products, ``(n, n)`` from ``(n, d)``, step by step.

    :func:`~retrieval_geometry.losses.random_walk_similarity` has it inside; here it stands alone, to walk.
    """
    affinity = (points @ points.mT).clamp_min(0).fill_diagonal_(0)
    roots = affinity.sum(dim=1).rsqrt()
    return roots.unsqueeze(1) * affinity * roots


def restarted_walk(steps: Tensor, restart: float) -> Tensor:
    """Where a walk from place 0 is found in the long run, that restarts there with some probability.

    Args:
        steps: ``(n, n)``, row i the probabilities of a step from i.
        restart: probability to go back to place 0 instead of a step.

    Returns:
        ``(n,)`` probabilities, by repetition of the step.
    """
    start = torch.zeros(len(steps), dtype=steps.dtype)
    start[0] = 1
    found = start
    for _ in range(500):  # an error shrinks by 1 - restart each time
        found = restart * start + (1 - restart) * found @ steps
    return found


def visits(walk: Tensor, restart: float) -> Tensor:
    r"""Where a walk spends its time that goes back to its start with probability ``restart`` at each step.

    .. math:: r \sum_{t \ge 0} (1 - r)^t W^t = r (I - (1 - r) W)^{-1}

    With r = 1 - alpha this is [edms] eq. 9; the paper calls alpha the probability of a restart, and with r =
    alpha it is another matrix (erratum 1.1).

    Args:
        walk: ``(n, n)``, W, symmetric, with eigenvalues in [-1, 1].
        restart: r, above 0 and below 1.

    Returns:
        ``(n, n)``.

    Example:
        >>> visits(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 0.5)
        tensor([[0.6667, 0.3333],
                [0.3333, 0.6667]])
    """
    identity = torch.eye(len(walk), dtype=walk.dtype, device=walk.device)
    return torch.cholesky_solve(restart * identity, torch.linalg.cholesky(identity - (1 - restart) * walk))


def degrees_as_printed(points: Tensor) -> Tensor:
    """Degrees of [edms] section 5 as printed, **wrong**: sums of dot products, which may be negative.

    The normalisation divides by their roots, which do not exist for these (erratum 1.2).
    :func:`~retrieval_geometry.losses.random_walk_similarity` makes the affinities non-negative first.

    Args:
        points: ``(n, d)`` vectors of length one.

    Returns:
        ``(n,)``; the diagonal is left out, as printed.
    """
    products = points @ points.mT
    return products.sum(dim=1) - products.diagonal()


def loss_gap(x: Tensor, right: Tensor, wrong: Tensor, proxy: Tensor, other: Tensor, margin: float) -> Tensor:
    r"""The difference that [edms] eq. 5 bounds: between the N-pair loss and the proxy loss of a triplet.

    .. math:: \left| \log \frac{1 + e^{s(x, x^-) - s(x, x^+) + m}}{1 + e^{s(x, p_j) - s(x, p_k) + m}} \right|

    Args:
        x: ``(n, d)`` anchors of length one.
        right: ``(n, d)``, an image of the same class.
        wrong: ``(n, d)``, an image of another class.
        proxy: ``(n, d)``, the proxy of ``right``.
        other: ``(n, d)``, the proxy of ``wrong``.
        margin: m.

    Returns:
        ``(n,)``.
    """
    image, by_proxy = ((x * (b - a)).sum(dim=1) + margin for a, b in ((right, wrong), (proxy, other)))
    return (functional.softplus(image) - functional.softplus(by_proxy)).abs()


def proxy_radius(images: Tensor, proxies: Tensor) -> Tensor:
    """The epsilon of [edms] eq. 5: the largest distance 1 - cosine of an image from its proxy.

    Args:
        images: ``(..., n, d)`` of length one.
        proxies: ``(..., n, d)``, that of each.

    Returns:
        ``(...)``.
    """
    return (1 - (images * proxies).sum(dim=-1)).amax(dim=-1)


def gap_bound_as_printed(epsilon: Tensor) -> Tensor:
    """The bound of [edms] eq. 5 as printed, **wrong**: two epsilon (erratum 1.3).

    It rests on a triangle inequality, which 1 - cosine does not have.
    """
    return 2 * epsilon


def gap_bound(epsilon: Tensor) -> Tensor:
    r"""The bound corrected: :math:`2 \sqrt{2 \epsilon}` (erratum 1.3).

    The softplus has slopes below one, so the gap is at most that of the exponents; each product with x
    changes by the Euclidean distance of image and proxy at most, which is the root of twice 1 - cosine.
    """
    return 2 * (2 * epsilon).sqrt()


def proxy_objective(proxy: Tensor, images: Tensor, initial: Tensor) -> Tensor:
    r"""What [edms] eq. 7 minimises, at any proxy, of any length.

    As printed, the proxy may be any vector, **wrong**: where all exponents are negative, twice as long a
    proxy is better, and the infimum 0 is reached by none (erratum 1.4).
    :func:`~retrieval_geometry.losses.hard_proxies` stays on the sphere.

    .. math:: \log \Bigl(1 + \sum_n e^{s(p, x_n) - s(p, p_k)}\Bigr)

    Args:
        proxy: ``(..., d)``.
        images: ``(n, d)`` of the meta-class, without the initial proxy.
        initial: ``(d,)``, where it began.

    Returns:
        ``(...)``.
    """
    exponents = proxy @ (images - initial).mT
    return functional.pad(exponents, (0, 1)).logsumexp(dim=-1)
