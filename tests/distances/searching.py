"""Images of easy and of hostile spectra, and what a search of them must find."""

from __future__ import annotations

import torch

from retrieval_geometry.distances import GalleryIndex, pairwise, rank
from retrieval_geometry.image_models import Gaussian

SPECTRA = ("random", "equal", "rank one", "steep", "scales", "duplicates", "grid")


def gaussians(kind: str, n: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Gaussian:
    """Return images whose covariances have spectra of the given kind."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotations = torch.linalg.qr(normal(n, dim, dim)).Q
    spectra = {
        "random": normal(n, dim).exp(),
        "equal": torch.ones(n, dim, dtype=torch.float64),
        "rank one": torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.long), dim).double(),
        "steep": (torch.logspace(0, -8, dim, dtype=torch.float64) * normal(n, 1).exp()),
        "scales": torch.logspace(-6, 6, n, dtype=torch.float64)[:, None] * normal(n, dim).square() + 1e-9,
        "duplicates": normal(1, dim).exp().expand(n, dim),
        "grid": torch.ones(n, dim, dtype=torch.float64) * torch.randint(1, 3, (n, 1), generator=generator),
    }[kind]
    means = normal(n, dim)
    if kind == "duplicates":
        rotations, means = rotations[:1].expand(n, dim, dim), means[:1].expand(n, dim)
    if kind == "grid":
        means = torch.randint(0, 2, (n, dim), generator=generator).double()
    factor = rotations * spectra.sqrt().unsqueeze(1)
    return Gaussian(means, factor @ factor.mT).to(dtype)


def assert_equals_the_full_sort(p: Gaussian, q: Gaussian, distance: str, k: int) -> None:
    """Compare with the stable sort of all pairs, ties included."""
    found = rank(p, q, distance, k)
    full = pairwise(distance, p, q).sort(dim=1, stable=True)
    assert torch.equal(found.indices, full.indices[:, :k])
    assert torch.equal(found.distances, full.values[:, :k])
    assert (found.evaluated >= k).all()
    assert (found.evaluated <= len(q)).all()


def assert_is_searched_exactly(p: Gaussian, q: Gaussian, distance: str, k: int) -> None:
    """By ``rank`` and by an index, which keep apart what they prepare."""
    assert_equals_the_full_sort(p, q, distance, k)
    found, kept = rank(p, q, distance, k), GalleryIndex(q, distance).rank(p, k)
    assert torch.equal(found.indices, kept.indices)
    assert torch.equal(found.distances, kept.distances)
