"""Autoencoder with strong variance constraints ([ae-svc] section 3.1)."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from retrieval_geometry._check import check_choice, check_count, check_number
from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.projections._objective import Objective
from retrieval_geometry.projections._trained import References, TrainedProjection, seeded_modules
from retrieval_geometry.projections.constraints import covariance_floor

CONSTRAINTS = ("batch", "running", "full")
TERMS = ("rec", "cov", "var", "mean")


class AESVC(TrainedProjection):
    r"""Autoencoder whose latent space is asked to have zero mean, unit variances and no covariances.

    .. math:: L = w_1 L_{rec} + w_2 L_{cov} + w_3 L_{var} + w_4 L_{mean}, \quad
        L_{rec} = \frac{1}{n} \sum_i \|x_i - x'_i\|^2

    Source: [ae-svc] eqs. 1 to 5. Used in no chapter.

    The other losses are those of :func:`constraint_losses`; ``cov`` is the printed one, with its diagonal.
    The paper gives weights and no more: layers, width, optimiser, batch and length of the training are
    settings here. With ``activation="identity"`` it is linear, and its optimum is known: principal axes,
    whitened (:class:`PCAWhitening` with as many components), up to a rotation.

    In a batch of n vectors ``cov`` cannot fall below ``latent - n + 1``; the default batch has twice as many
    vectors as the latent space has dimensions, if there are so many. Where the batch is too small there is a
    warning, and two other ways to measure the constraints. ``"running"``: over an exponential mean of the
    moments of the batches, whose gradient is that of the present batch. ``"full"``: over all references, by
    the exact gradient, one step an epoch, put together from batches.

    Early stopping looks at the same sum over held-out references, where ``cov`` is estimated without the
    bias of a small sample. Interrupted, ``fit`` leaves the projection as it was before.

    Args:
        latent: dimensions of the latent space; by default those of the input.
        weights: of reconstruction, covariance, variance and mean.
        constraint: ``"batch"`` as printed, ``"running"`` or ``"full"``.
        momentum: of the running moments.
        hidden: width of the inner layers; by default half of input and latent size together.
        depth: layers of the encoder, and of the decoder.
        activation: ``"relu"``, or ``"identity"`` for a linear one.
        standardize: bring each coordinate of the input to mean 0 and variance 1 first; constant ones are
            centred only.
        batch_size: by default twice the latent size, at least 256, at most all.
        lr: learning rate of Adam.
        epochs: passes over the references, at most.
        patience: epochs without a new lowest held-out value after which training ends.
        held_out: share of the references that is held out; 0 trains all epochs on all of them.
        device: where it is trained; by default where the references are.
        threads: of the CPU, as in :class:`TrainingConfig`: with one the same model whatever the processor;
            None for as many as torch uses.
        random_state: seed of weights, batches and the held-out share.

    Attributes:
        residuals_: ``mean``, ``var``, ``cov`` and ``off`` over all references, ``rec``, and ``floor``, the
            least value of ``cov`` that so many references allow.
        history_: ``train`` and ``held_out``, the loss in each epoch.
        latent_: the size of the latent space.

    Raises:
        ValueError: on ``fit``, fewer than four references, NaN or infinity, references that are all alike,
            settings out of range, or a loss that is no longer finite.

    Example:
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> model = AESVC(epochs=2).fit(x)
        >>> model.transform(x).shape, sorted(model.residuals_)
        (torch.Size([64, 4]), ['cov', 'floor', 'mean', 'off', 'rec', 'var'])
    """

    stored = (*TrainedProjection.stored, "latent_", "decoder_", "residuals_")
    latent_: int
    decoder_: nn.Module
    residuals_: dict[str, float]

    def __init__(
        self,
        latent: int | None = None,
        weights: Sequence[float] = (25, 1, 15, 1),
        constraint: str = "batch",
        momentum: float = 0.9,
        hidden: int | None = None,
        depth: int = 3,
        activation: str = "relu",
        standardize: bool = False,
        batch_size: int | None = None,
        lr: float = 1e-3,
        epochs: int = 200,
        patience: int = 20,
        held_out: float = 0.1,
        device: str | None = None,
        threads: int | None = 1,
        random_state: int = 0,
    ) -> None:
        self.latent = latent
        self.weights = weights
        self.constraint = constraint
        self.momentum = momentum
        self.hidden = hidden
        self.depth = depth
        self.activation = activation
        self.standardize = standardize
        self.batch_size = batch_size
        self.lr = lr
        self.epochs = epochs
        self.patience = patience
        self.held_out = held_out
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on references ``(n, d)``; ``y`` is not used."""
        weights = _check_weights(self.weights)
        check_choice(self.constraint, "constraint", CONSTRAINTS)
        check_number(self.momentum, "momentum", at_least=0, at_most=0.9999)
        references = References(X, self)
        dim = references.rows.dim
        latent = dim if self.latent is None else check_count(self.latent, "latent")
        batch = references.set_batch(self.batch_size, max(256, 2 * latent))
        self._warn(batch, latent, references)
        network = seeded_modules(self, lambda: self._network(dim, latent), references)
        objective = Objective(network, references, weights, self.constraint, self.momentum)
        with cpu_threads(self.threads):
            history = self._train(
                network, references, objective.terms, objective.held_out, whole=self.constraint == "full"
            )
            residuals = objective.residuals()
        self._hold(references, network["encoder"])
        self.decoder_ = network["decoder"].eval().requires_grad_(False)
        self.latent_, self.history_, self.residuals_ = latent, history, residuals
        return self

    def reconstruct(self, X: Any) -> Any:
        """What encoder and decoder make of ``(n, d)``; standardised first if the projection was so trained.

        Raises:
            ValueError: as ``transform``.
        """
        rows = self._opened(X)
        return rows.mapped(self._decoded, rows.dim)

    @torch.no_grad()
    def _decoded(self, block: Tensor) -> Tensor:
        found = self.decoder_(self.encoder_(self._standardised(block)))
        found = found / self.scale_ + self.mean_ if self.standardize else found
        return found.to(block.device, block.dtype)

    def _network(self, dim: int, latent: int) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self._layers(dim, latent), "decoder": self._layers(latent, dim)})

    def _rebuild(self) -> None:
        network = self._network(self.n_features_in_, self.latent_)
        self.encoder_, self.decoder_ = network["encoder"], network["decoder"]

    def _width(self) -> int:
        return self.latent_

    def _warn(self, batch: int, latent: int, references: References) -> None:
        n = len(references.trained)
        floor = covariance_floor(n if self.constraint == "full" else batch, latent)
        if floor and self.constraint != "running":
            remedy = (
                'take constraint="running" or a larger batch_size' if batch < n else "take a smaller latent"
            )
            warnings.warn(
                f"the covariance loss of {min(batch, n)} vectors in {latent} dimensions cannot fall below "
                f"{floor}; {remedy}",
                stacklevel=3,
            )


def _check_weights(weights: Sequence[float]) -> dict[str, float]:
    if not isinstance(weights, Sequence) or isinstance(weights, str) or len(weights) != len(TERMS):
        raise ValueError(f"weights must be four numbers, of {', '.join(TERMS)}, got {weights!r}")
    checked = (float(check_number(weight, "weights", at_least=0)) for weight in weights)
    return dict(zip(TERMS, checked, strict=True))
