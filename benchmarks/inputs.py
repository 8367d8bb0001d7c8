"""Descriptors to measure with: synthetic ones with a known spectrum and, where they are given, real ones."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from retrieval_geometry.datasets import load_image_folder
from retrieval_geometry.features import extract_descriptors, load_backbone
from retrieval_geometry.image_models import GaussianMixture
from retrieval_geometry.reporting.results import DatasetInfo, WeightsInfo

SPECTRA = {"fast": (1.0, 45.0, 0.6), "slow": (0.2, 1e9, 0.2)}
"""Of an image, the k-th standard direction has variance k^-a exp(-k / b); the directions themselves are drawn
from a common distribution whose variances fall like k^-c. (a, b, c): ``fast`` is like the last layer of a
trained network, ``slow`` nearly white."""

CLASSES = 40
OWN_SHARE = 0.5
"""Share of an image's directions that is its own; the rest belongs to its class."""

MEAN_SHARE = 0.33
"""Variance of the means over images, as a share of the variance of the descriptors of an image."""

SIZES = 0.4
"""Standard deviation of the logarithm of an image's scale."""

SYNTHETIC_LICENCE = "drawn from a random generator"


@dataclass(frozen=True)
class Inputs:
    """Where descriptors come from.

    Args:
        seed: of the synthetic ones.
        real: ``(n, N, D)`` descriptors of real images in random order, or None.
        dataset: which images, for the record.
        weights: of which network.
    """

    seed: int
    real: Tensor | None
    dataset: DatasetInfo
    weights: WeightsInfo | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of descriptors that can be drawn."""
        return (*SPECTRA, "real") if self.real is not None else tuple(SPECTRA)

    @property
    def typical(self) -> str:
        """The kind that is nearest to what the paper compares."""
        return "real" if self.real is not None else "fast"

    def draw(self, n: int, points: int, dim: int, kind: str | None = None) -> Tensor:
        """Descriptors ``(n, points, dim)`` of n images, float32; of the real ones no more than there are."""
        kind = kind or self.typical
        if kind == "real":
            assert self.real is not None
            return self.real[:n, :points, :dim].contiguous()
        return synthetic_descriptors(n, points, dim, kind, torch.Generator().manual_seed(self.seed))

    def mixtures(self, n: int, components: int, dim: int) -> GaussianMixture:
        """Mixtures of diagonal components with means and spreads of a trained network's size."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.rand(n, components, generator=generator) + 0.1
        centres = self.draw(n, components, dim, "fast")
        variances = (
            0.1
            * centres.var(dim=1, keepdim=True)
            * (0.5 + torch.rand(n, components, dim, generator=generator))
        )
        return GaussianMixture(weights / weights.sum(dim=1, keepdim=True), centres, variances)


def synthetic_descriptors(n: int, points: int, dim: int, kind: str, generator: torch.Generator) -> Tensor:
    """Normal descriptors ``(n, points, dim)`` of n images from a few classes, with a spectrum of SPECTRA."""
    power, length, pooled_power = SPECTRA[kind]
    rank = min(dim, 2 * points)
    k = torch.arange(1, max(rank, dim) + 1).float()
    spread = (k[:rank].pow(-power) * (-k[:rank] / length).exp()).sqrt()
    pooled = k[:dim].pow(-pooled_power / 2)

    def directions(count: int) -> Tensor:
        return torch.randn(count, rank, dim, generator=generator) * pooled

    class_basis, class_mean = directions(CLASSES), directions(CLASSES)[:, 0]
    old, new = (1 - OWN_SHARE) ** 0.5, OWN_SHARE**0.5
    mean_size = (MEAN_SHARE * spread.square().sum()).sqrt()
    images = []
    for image in range(n):
        label, own = image % CLASSES, directions(1)[0]
        mean = old * class_mean[label] + new * directions(1)[0, 0]
        coefficients = torch.randn(points, rank, generator=generator) * spread
        size = (SIZES * torch.randn((), generator=generator)).exp()
        images.append(size * (mean_size * mean + coefficients @ (old * class_basis[label] + new * own)))
    return torch.stack(images)


def synthetic_inputs(seed: int) -> Inputs:
    """Only synthetic descriptors."""
    sample = synthetic_descriptors(2, 8, 16, "fast", torch.Generator().manual_seed(seed))
    digest = hashlib.sha256(sample.numpy().tobytes()).hexdigest()
    return Inputs(seed, None, DatasetInfo("synthetic descriptors", 0, CLASSES, digest, SYNTHETIC_LICENCE))


def real_inputs(images: Path, weights: Path, seed: int, limit: int | None = None) -> Inputs:
    """Descriptors of the images of a folder or zip archive, by a SqueezeNet 1.1 with the weights of a file.

    Args:
        images: what ``load_image_folder`` reads.
        weights: a state dict.
        seed: of the order in which images are taken, and of the synthetic descriptors.
        limit: take no more images than this.
    """
    found = load_image_folder(images)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:limit]
    backbone = load_backbone("squeezenet1_1", weights=weights)
    descriptors = extract_descriptors(found.subset(order), backbone, progress=False)
    return Inputs(
        seed,
        descriptors,
        DatasetInfo(found.name, len(found), len(found.classes), found.sha256, "of the given images"),
        WeightsInfo(backbone.weights, backbone.weights_sha256),
    )
