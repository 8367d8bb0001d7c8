"""Expectation maximisation for many small diagonal mixtures at once.

Everything here works on float64 tensors of centred descriptors ``(b, N, D)``. With the features ``[x, x^2]``
both steps are one matrix product an image: the log-densities are linear in them, and the M-step needs only
their responsibility-weighted sums.
"""

import math

import torch
from torch import Tensor

Parameters = tuple[Tensor, Tensor, Tensor]  # weights (b, K), means (b, K, D), variances (b, K, D)

SAME = 1e-12  # squared distances below this share of the squared lengths are rounding

LOST = 10 * torch.finfo(torch.float64).eps  # a component with less than this many points has none


def moments(x: Tensor) -> Tensor:
    """Return the features ``[x, x^2]``, ``(b, N, 2D)``."""
    return torch.cat([x, x.square()], dim=2)


def log_joint(features: Tensor, weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Return the log of weight times density for each descriptor and component, ``(b, N, K)``."""
    # log w + log N(x; m, v) = c + x m / v - x^2 / 2v, linear in the features.
    precisions = variances.reciprocal()
    coefficients = torch.cat([means * precisions, -0.5 * precisions], dim=2)
    norms = (means.square() * precisions + (2 * math.pi * variances).log()).sum(dim=2)
    return torch.baddbmm((weights.log() - 0.5 * norms).unsqueeze(1), features, coefficients.mT)


def maximise(features: Tensor, responsibilities: Tensor, floor: Tensor) -> Parameters:
    """M-step: greatest expected likelihood among parameters with variances of at least ``floor (b,)``.

    A component without points takes the image's own mean and variance, so that it stays a density.
    """
    # Dempster et al. 1977: masses, means and second moments under the responsibilities.
    mass = responsibilities.sum(dim=1)
    sums = responsibilities.mT @ features
    lost = (mass < LOST).unsqueeze(2)
    expected = torch.where(lost, features.mean(dim=1, keepdim=True), sums / mass.clamp(min=LOST).unsqueeze(2))
    means, squares = expected.chunk(2, dim=2)
    # E[x^2] - m^2 of centred descriptors; the floor is the constrained maximum, not a repair.
    variances = torch.maximum(squares - means.square(), floor[:, None, None])
    mass = mass + LOST  # a lost component keeps a weight whose logarithm is finite
    return mass / mass.sum(dim=1, keepdim=True), means, variances


def kmeans_plus_plus(x: Tensor, draws: Tensor) -> Tensor:
    """Draw K seeds per image by k-means++ (Arthur and Vassilvitskii 2007).

    Each seed is drawn in proportion to its squared distance to the seeds before it.

    Args:
        x: ``(b, N, D)``.
        draws: ``(b, K)`` uniform numbers in [0, 1).

    Returns:
        The index of the nearest seed of each descriptor, one-hot ``(b, N, K)``.
    """
    n_images, n_points, _ = x.shape
    first = n_points * torch.arange(n_images, device=x.device)
    products = x @ x.mT  # one pass over the data instead of one for each seed
    norms = products.diagonal(dim1=1, dim2=2)
    nearest = torch.ones_like(norms)  # the first seed is uniform
    labels = torch.zeros_like(norms, dtype=torch.long)
    for k in range(draws.shape[1]):
        steps = nearest.cumsum(dim=1)
        # The inverse of the distribution function, at a uniform draw.
        threshold = draws[:, k : k + 1] * steps[:, -1:]
        chosen = torch.searchsorted(steps, threshold, right=True).clamp(max=n_points - 1)
        # |x - s|^2 = |x|^2 + |s|^2 - 2 x s, from products that are there already.
        with_seed = products.flatten(0, 1).index_select(0, first + chosen.squeeze(1))
        lengths = norms + norms.gather(1, chosen)
        distance = lengths - 2 * with_seed
        distance.masked_fill_(distance <= SAME * lengths, 0)
        closer = distance < nearest if k else torch.ones_like(labels, dtype=torch.bool)
        nearest = torch.where(closer, distance, nearest)
        labels = torch.where(closer, k, labels)
    return torch.nn.functional.one_hot(labels, draws.shape[1]).to(x.dtype)


def expectation_maximisation(
    features: Tensor, parameters: Parameters, floor: Tensor, max_iterations: int, tolerance: float
) -> tuple[Parameters, int]:
    """EM steps until the mean log-likelihood of each image moves by less than ``tolerance``.

    An image that has settled leaves the batch.

    Returns:
        The parameters, and the number of images that had not settled.
    """
    settled = tuple(torch.empty_like(part) for part in parameters)
    active = torch.arange(len(features), device=features.device)
    previous = torch.full((len(features),), -torch.inf, dtype=features.dtype, device=features.device)
    for _ in range(max_iterations):
        joint = log_joint(features, *parameters)
        total = joint.logsumexp(dim=2, keepdim=True)  # E-step: responsibilities are exp(joint - total)
        parameters = maximise(features, joint.sub_(total).exp_(), floor)
        likelihood = total.squeeze(2).mean(dim=1)
        moving = (likelihood - previous).abs() >= tolerance
        previous = likelihood
        if moving.all():
            continue
        for store, part in zip(settled, parameters, strict=True):
            store[active[~moving]] = part[~moving]
        active, previous, features, floor = (part[moving] for part in (active, previous, features, floor))
        parameters = tuple(part[moving] for part in parameters)  # type: ignore[assignment]
        if not len(active):
            break
    for store, part in zip(settled, parameters, strict=True):
        store[active] = part
    return settled, len(active)  # type: ignore[return-value]
