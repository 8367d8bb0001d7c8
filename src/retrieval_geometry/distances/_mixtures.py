"""Checks, a common frame and component divergences, for the distances between mixtures."""

import torch
from torch import Tensor

from retrieval_geometry._check import check_same_kind
from retrieval_geometry.distances._gaussians import check_scale, image_namer
from retrieval_geometry.image_models import GaussianMixture


def check_mixtures(p: GaussianMixture, q: GaussianMixture) -> None:
    """Refuse mixtures that cannot be compared; each has checked its weights, means and variances itself.

    Raises:
        ValueError: not a :class:`GaussianMixture`, other dimensions, dtypes or devices, or descriptors too
            large or too small for float64.
    """
    for name, mixture in (("p", p), ("q", q)):
        if not isinstance(mixture, GaussianMixture):
            raise ValueError(f"{name} must be a GaussianMixture, got {type(mixture).__name__}")
    if p.dim != q.dim:
        raise ValueError(f"p and q must have the same dimension, got {p.dim} and {q.dim}")
    check_same_kind([p.means, q.means], "p and q")
    for name, mixture in (("p", p), ("q", q)):
        check_scale(mixture.means, mixture.variances, image_namer(name, 0))


@torch.no_grad()
def pooled_scale(p: GaussianMixture, q: GaussianMixture) -> tuple[Tensor, Tensor]:
    """A centre and a standard deviation ``(D,)`` for all components together, float64.

    Both distances between diagonal components do not change under a common shift, the divergence under a
    common scaling of the axes neither; near the origin, products lose fewer digits. Medians over the images,
    so that no image owns them.
    """
    centres = torch.cat([m.means.double().mean(dim=1) for m in (p, q)])
    centre = centres.median(dim=0).values
    spreads = [((m.means.double() - centre).square() + m.variances.double()).mean(dim=1) for m in (p, q)]
    return centre, torch.cat(spreads).median(dim=0).values.sqrt()


def component_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Divergence of every component from every component, ``(P, K, Q, L)``, entry by entry in float64.

    .. math:: D(a \| b) = \frac12 \sum_d \left[ \frac{v_{ad}}{v_{bd}} - 1 - \log\frac{v_{ad}}{v_{bd}}
              + \frac{(m_{ad} - m_{bd})^2}{v_{bd}} \right]

    It is plain and slow, with K L D numbers a pair: for single images and as the reference.
    """
    m, n = p.means.double()[:, :, None, None], q.means.double()
    v, w = p.variances.double()[:, :, None, None], q.variances.double()
    ratio = v / w
    # Not the logarithm of the ratio, which may be no number of float64 where both logarithms are.
    return (ratio - 1 - (v.log() - w.log()) + (m - n).square() / w).sum(dim=-1) / 2
