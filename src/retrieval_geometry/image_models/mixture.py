"""A mixture of normal distributions with diagonal covariances for each image, fitted by EM.

Sixty-four components on 169 descriptors leave many components with one or two points, whose variance would
fall to zero. Two rules keep every mixture a density: variances stop at a floor, a small share of the image's
mean variance, and a component that has lost all of its points falls back to the image's own normal
distribution with a weight near zero. Clamping at the floor is the exact constrained maximum of the M-step, so
the likelihood still never falls.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import (
    ImageError,
    check_count,
    check_finite,
    check_floating,
    check_generator,
    check_number,
)
from retrieval_geometry.image_models._descriptors import check_descriptors, check_variance, check_varied
from retrieval_geometry.image_models._em import (
    expectation_maximisation,
    kmeans_plus_plus,
    log_joint,
    maximise,
    moments,
)
from retrieval_geometry.image_models.gaussian import Gaussian, Index, keep_batch_axis


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A batch of B mixtures of K normal distributions in D dimensions, with diagonal covariances.

    Derived in chapter 2.

    Attributes:
        weights: ``(B, K)``, not negative, summing to one over K.
        means: ``(B, K, D)``.
        variances: ``(B, K, D)``, the positive diagonals of the covariances.

    Indexing keeps the batch axis: ``m[3]`` is a batch of one, ``m[2:5]`` of three.

    Raises:
        ValueError: no tensors of float32 or float64, shapes, dtypes or devices that do not belong together,
            weights that are no probabilities, or a variance that is not positive (the image is named).
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        parts = {"weights": self.weights, "means": self.means, "variances": self.variances}
        for name, part in parts.items():
            check_floating(part, name)
        if self.means.ndim != 3 or 0 in self.means.shape[1:]:
            raise ValueError(
                "means must have shape (images, components, dimensions) with a component and a dimension, "
                f"got {tuple(self.means.shape)}"
            )
        for name, part in parts.items():
            shape = self.means.shape[: part.ndim] if name == "weights" else self.means.shape
            if part.shape != shape or part.ndim != (2 if name == "weights" else 3):
                raise ValueError(
                    f"{name} has shape {tuple(part.shape)}, which does not go with means of shape "
                    f"{tuple(self.means.shape)}: weights are (images, components), variances like means"
                )
            if part.dtype != self.means.dtype or part.device != self.means.device:
                raise ValueError(
                    "weights, means and variances must share one dtype and one device; convert with .to"
                )
        self._check_values()

    def _check_values(self) -> None:
        weights, variances = self.weights.detach(), self.variances.detach()
        off = ~((weights >= 0).all(dim=1) & ((weights.sum(dim=1) - 1).abs() < 1e-3))
        if off.any():
            image = int(off.nonzero()[0])
            after = f" must be non-negative and sum to 1, got {weights[image]}"
            raise ImageError("weights of ", image, after)
        flat = ~((variances > 0) & variances.isfinite()).flatten(1).all(dim=1)
        if flat.any():
            raise ImageError("variances of ", int(flat.nonzero()[0]), " must be positive and finite")
        wild = ~self.means.detach().isfinite().flatten(1).all(dim=1)
        if wild.any():
            raise ImageError("means of ", int(wild.nonzero()[0]), " must be finite, got a NaN or infinity")

    def __len__(self) -> int:
        return self.weights.shape[0]

    def __getitem__(self, index: Index) -> "GaussianMixture":
        keep = keep_batch_axis(index, len(self))
        return GaussianMixture(self.weights[keep], self.means[keep], self.variances[keep])

    @property
    def dim(self) -> int:
        """The number of dimensions D."""
        return self.means.shape[2]

    @property
    def n_components(self) -> int:
        """The number of components K."""
        return self.means.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the weights, the means and the variances share."""
        return self.means.dtype

    @property
    def device(self) -> torch.device:
        """The device that the weights, the means and the variances share."""
        return self.means.device

    def to(self, *args: object, **kwargs: object) -> "GaussianMixture":
        """Move or convert every part, as ``Tensor.to`` does."""
        parts = (self.weights, self.means, self.variances)
        return GaussianMixture(*(part.to(*args, **kwargs) for part in parts))  # type: ignore[call-overload]

    def collapse(self) -> Gaussian:
        r"""Return the one normal distribution with the mixture's mean and covariance ([geometric] eq. 1).

        .. math:: \tilde\mu = \sum_a \omega_a \mu_a, \qquad
            \tilde\Sigma = \sum_a \omega_a \left(\Sigma_a + (\mu_a - \tilde\mu)(\mu_a - \tilde\mu)^\top\right)

        The result has full rank, because every variance is positive: it carries no factor.

        Raises:
            ValueError: the covariance of an image overflows (it is named).
        """
        # Law of total variance: within the components, and between their means.
        mean = torch.einsum("bk,bkd->bd", self.weights, self.means)
        spread = (self.means - mean.unsqueeze(1)) * self.weights.sqrt().unsqueeze(2)
        cov = spread.mT @ spread
        cov.diagonal(dim1=-2, dim2=-1).add_(torch.einsum("bk,bkd->bd", self.weights, self.variances))
        check_finite(cov.detach(), "the covariance")
        return Gaussian(mean, cov)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density (natural log) of ``x (B, N, D)`` under each image's mixture, ``(B, N)``.

        Raises:
            ValueError: ``x`` is not finite, not of the mixture's number of images and dimensions, or so far
                away that its log-density overflows (the image is named).
        """
        check_descriptors(x)
        if x.shape[0] != len(self) or x.shape[2] != self.dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, the mixture {len(self)} images of {self.dim} dimensions"
            )
        shift = x.double().mean(dim=1, keepdim=True)  # near the data, squares lose no digits
        means = self.means.double() - shift
        joint = log_joint(moments(x.double() - shift), self.weights.double(), means, self.variances.double())
        return check_finite(joint.logsumexp(dim=2).to(x.dtype), "the log-density")


def fit_mixture(
    x: Tensor,
    n_components: int = 64,
    generator: torch.Generator | None = None,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    variance_floor: float = 1e-3,
    memory_bytes: int = 2**28,
    progress: bool = False,
) -> GaussianMixture:
    """Mixture of K diagonal normal distributions of the descriptors of each image, fitted by EM.

    Source: [geometric] section 2.2; Dempster et al. 1977. Derived in chapter 2.

    Expectation maximisation runs in float64, whatever the dtype of ``x``, for all images of a chunk at once,
    every step a matrix product. It starts from seeds drawn by k-means++ and stops, image by image, when the
    mean log-likelihood of a descriptor changes by less than ``tolerance``. The result does not depend on
    ``memory_bytes``.

    Args:
        x: ``(B, N, D)`` descriptors, float32 or float64.
        n_components: K, at most N.
        generator: source of the seeds; None stands for a fresh generator with seed 0.
        max_iterations: EM iterations at most; a warning says how many images were still moving.
        tolerance: in nats per descriptor.
        variance_floor: least variance, as a share of the image's variance averaged over dimensions.
        memory_bytes: working memory; sets how many images are fitted at once.
        progress: show a bar over images, in a terminal.

    Returns:
        A :class:`GaussianMixture` with weights ``(B, K)``, means and variances ``(B, K, D)``, in the dtype of
        ``x``.

    Raises:
        ValueError: a wrong shape or dtype, a NaN or infinite descriptor, fewer descriptors than components,
            an image whose descriptors are all equal or whose mean variance is outside 1e-30 to 1e32 in
            float32, 1e-140 to 1e140 in float64 (it is named), or a setting out of its range.

    Example:
        >>> x = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
        >>> sorted(round(mean, 3) for mean in fit_mixture(x, n_components=2).means.flatten().tolist())
        [0.5, 10.5]
    """
    check_varied(check_descriptors(x))
    _check_settings(x, n_components, max_iterations, tolerance, variance_floor, memory_bytes)
    source = check_generator(generator)
    # All draws at once: the cut into chunks does not change them.
    draws = torch.rand((len(x), n_components), generator=source, device=source.device, dtype=torch.float64)
    fitted: list[tuple[Tensor, Tensor, Tensor]] = []
    n_moving = 0
    with tqdm(total=len(x), desc="mixtures", unit="image", disable=None if progress else True) as bar:
        for part, draw in zip(*_chunks(x, draws.to(x.device), n_components, memory_bytes), strict=True):
            n_before = sum(len(weights) for weights, _, _ in fitted)
            parameters, moving = _fit_chunk(part, draw, variance_floor, max_iterations, tolerance, n_before)
            fitted.append(parameters)
            n_moving += moving
            bar.update(len(part))
    if n_moving:
        warnings.warn(
            f"{n_moving} of {len(x)} mixtures still moved by more than tolerance={tolerance} nats per "
            f"descriptor after {max_iterations} iterations; raise max_iterations to let them settle",
            stacklevel=2,
        )
    return GaussianMixture(*(torch.cat(parts) for parts in zip(*fitted, strict=True)))


def _chunks(
    x: Tensor, draws: Tensor, n_components: int, memory_bytes: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Cut the images into runs whose float64 working set fits the budget."""
    n_points, dim = x.shape[1:]
    size_of_all = n_points * (6 * dim + 4 * n_components + n_points) + 6 * n_components * dim
    size = max(1, int(memory_bytes) // (8 * int(size_of_all)))
    return list(x.split(size)), list(draws.split(size))


def _fit_chunk(
    x: Tensor, draws: Tensor, variance_floor: float, max_iterations: int, tolerance: float, n_before: int
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Fit the images of one chunk, the first of which is image ``n_before`` of the batch.

    Returns:
        Parameters in the dtype of x, and how many images had not settled.
    """
    points = x.double()
    shift = points.mean(dim=1, keepdim=True)
    points = points - shift  # near 0, E[x^2] - m^2 loses no digits
    features = moments(points)
    variance = points.square().mean(dim=(1, 2))
    check_variance(variance, x, n_before)
    floor = variance_floor * variance
    # The clusters of the seeds as responsibilities: EM begins with an M-step.
    start = maximise(features, kmeans_plus_plus(points, draws), floor)
    (weights, means, variances), moving = expectation_maximisation(
        features, start, floor, max_iterations, tolerance
    )
    return (weights.to(x.dtype), (means + shift).to(x.dtype), variances.to(x.dtype)), moving


def _check_settings(
    x: Tensor,
    n_components: int,
    max_iterations: int,
    tolerance: float,
    variance_floor: float,
    memory_bytes: int,
) -> None:
    check_count(n_components, "n_components")
    check_count(max_iterations, "max_iterations")
    check_count(memory_bytes, "memory_bytes")
    check_number(tolerance, "tolerance", at_least=0)
    check_number(variance_floor, "variance_floor", above=0, at_most=1)
    if x.shape[1] < n_components:
        raise ValueError(
            f"n_components={n_components} needs at least as many descriptors per image, got {x.shape[1]}: "
            "take fewer components, or descriptors from a larger image or an earlier layer"
        )
