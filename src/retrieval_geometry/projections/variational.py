"""Variational autoencoder: the non-linear reduction that [ae-svc] compares with, one model a size."""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from retrieval_geometry._check import check_count, check_number
from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.projections._trained import References, TrainedProjection, seeded_modules


class VAE(TrainedProjection):
    r"""Variational autoencoder with a standard normal prior; embeddings are the means of the encoder.

    .. math:: L = \frac{1}{n} \sum_i \Bigl[ \|x_i - x'_i\|^2
        + \beta \, D_{KL}(N(\mu_i, \mathrm{diag}\, \sigma_i^2) \| N(0, I)) \Bigr]

    Source: Kingma and Welling 2013; [ae-svc] section 5.1 for its use. Used in no chapter.

    Args:
        latent: dimensions of the latent space; by default those of the input.
        beta: weight of the divergence; 2 is a Gaussian of variance 1 around the reconstruction.
        hidden: width of the inner layers; by default half of input and latent size together.
        depth: layers of the encoder, and of the decoder.
        activation: ``"relu"`` or ``"identity"``.
        standardize: bring each coordinate of the input to mean 0 and variance 1 first; otherwise small
            coordinates are not worth their divergence, and the latent space collapses.
        batch_size: by default 256.
        lr: learning rate of Adam.
        epochs: passes over the references, at most.
        patience: epochs without a new lowest held-out value after which training ends.
        held_out: share of the references that is held out.
        device: where it is trained; by default where the references are.
        threads: of the CPU.
        random_state: seed of weights, batches, noise and the held-out share.

    Attributes:
        latent_: the size of the latent space.
        history_: ``train`` and ``held_out``, the loss in each epoch.

    Raises:
        ValueError: on ``fit``, as :class:`AESVC`.

    Example:
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> VAE(latent=2, epochs=2).fit_transform(x).shape
        torch.Size([64, 2])
    """

    stored = (*TrainedProjection.stored, "latent_")
    latent_: int

    def __init__(
        self,
        latent: int | None = None,
        beta: float = 1.0,
        hidden: int | None = None,
        depth: int = 3,
        activation: str = "relu",
        standardize: bool = True,
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
        self.beta = beta
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
        check_number(self.beta, "beta", at_least=0)
        references = References(X, self)
        dim = references.rows.dim
        latent = dim if self.latent is None else check_count(self.latent, "latent")
        references.set_batch(self.batch_size, 256)
        network = seeded_modules(self, lambda: self._network(dim, latent), references)
        noise = torch.Generator().manual_seed(self.random_state)

        def loss(indices: Tensor, drawn: bool) -> Tensor:
            x = references.take(indices)
            mean, log_variance = network["encoder"](x).chunk(2, dim=1)
            z = mean
            if drawn:
                draws = torch.randn(mean.shape, generator=noise, dtype=mean.dtype).to(mean.device)
                z = mean + draws * (log_variance / 2).exp()
            rec = (x - network["decoder"](z)).square().sum(dim=1)
            return (rec + self.beta * gaussian_divergence(mean, log_variance)).mean()

        def terms(batches: list[Tensor]) -> Iterator[tuple[Tensor, bool]]:
            return ((loss(indices, drawn=True), True) for indices in batches)

        with cpu_threads(self.threads):
            # Held-out references are decoded from the means: their loss has no noise.
            history = self._train(network, references, terms, lambda: loss(references.held, drawn=False))
        self._hold(references, network["encoder"])
        self.latent_, self.history_ = latent, history
        return self

    def _network(self, dim: int, latent: int) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self._layers(dim, 2 * latent), "decoder": self._layers(latent, dim)})

    def _rebuild(self) -> None:
        self.encoder_ = self._layers(self.n_features_in_, 2 * self.latent_)

    @torch.no_grad()
    def _project(self, block: Tensor) -> Tensor:
        found = self.encoder_(self._standardised(block))[:, : self.latent_]
        return found.to(block.device, block.dtype)

    def _width(self) -> int:
        return self.latent_


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of Gaussians ``(n, d)`` from a standard normal one, ``(n,)``."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
