"""Objective of [ae-svc] eq. 5: constraints over a batch, running moments, or all references."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from retrieval_geometry.projections._trained import References
from retrieval_geometry.projections.constraints import (
    ConstraintLosses,
    as_floats,
    covariance_floor,
    live_moments,
    losses_of_moments,
    unbiased_losses,
)
from retrieval_geometry.projections.moments import moments_of_blocks


class Objective:
    """The loss of an epoch, of the held-out references, and of all."""

    def __init__(
        self,
        network: nn.ModuleDict,
        references: References,
        weights: dict[str, float],
        constraint: str,
        momentum: float,
    ) -> None:
        self.encoder, self.decoder = network["encoder"], network["decoder"]
        self.references, self.weights = references, weights
        self.constraint, self.momentum = constraint, momentum
        self._running: tuple[Tensor, Tensor] | None = None
        self._mean = torch.zeros(())  # of the latent vectors of an epoch

    def terms(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, bool]]:
        """Terms of the loss of an epoch, and whether a step follows."""
        if self.constraint == "full":
            yield from self._whole(batches)
            return
        for before, indices in enumerate(batches):
            x = self.references.take(indices)
            z = self.encoder(x)
            self._mean = (self._mean * before + z.detach().mean(dim=0)) / (before + 1)
            yield self._sum(self._reconstruction(x, z), losses_of_moments(*self._moments(z))), True

    def _moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of a batch, or of the batches so far."""
        if self.constraint == "batch":
            mean = z.mean(dim=0)
            return mean, (z - mean).mT @ (z - mean) / len(z)
        own = z.detach().mean(dim=0), z.detach().mT @ z.detach() / len(z)
        if self._running is None:
            self._running = own
        else:
            pairs = zip(own, self._running, strict=True)
            mean, second = (torch.lerp(new, old, self.momentum) for new, old in pairs)
            self._running = mean, second
        return live_moments(z, *self._running)

    def _whole(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, bool]]:
        """All references as one batch, which need not fit in memory: first their moments, then gradients."""
        n = sum(map(len, batches))
        with torch.no_grad():
            moments = moments_of_blocks(self.encoder(self.references.take(part)) for part in batches)
        second = moments.covariance + torch.outer(moments.mean, moments.mean)
        self._mean = moments.mean.to(self.references.mean.dtype)
        for number, indices in enumerate(batches, start=1):
            x, share = self.references.take(indices), len(indices) / n
            z = self.encoder(x)
            live = live_moments(z, self._mean, second.to(z.dtype), share)
            constraints = self._sum(torch.zeros_like(z[0, 0]), losses_of_moments(*live))
            once = constraints - (1 - share) * constraints.detach()  # each term has the value of its share
            yield once + share * self.weights["rec"] * self._reconstruction(x, z), number == len(batches)

    def held_out(self) -> Tensor:
        """The loss of the held-out references."""
        x = self.references.take(self.references.held)
        z = self.encoder(x)
        return self._sum(self._reconstruction(x, z), unbiased_losses(z, self._mean))

    @torch.no_grad()
    def residuals(self) -> dict[str, float]:
        """All losses over all references, in float64."""
        rec = 0.0

        def latent() -> Iterator[Tensor]:
            nonlocal rec
            for x in self.references.all("measuring the constraints"):
                z = self.encoder(x)
                rec += float((x - self.decoder(z)).double().square().sum())
                yield z

        moments = moments_of_blocks(latent())
        found = as_floats(losses_of_moments(moments.mean, moments.covariance))
        floor = covariance_floor(moments.n, len(moments.mean))
        return {**found, "rec": rec / moments.n, "floor": float(floor)}

    def _reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        return (x - self.decoder(z)).square().sum(dim=1).mean()

    def _sum(self, reconstruction: Tensor, losses: ConstraintLosses) -> Tensor:
        w = self.weights
        constraints = w["cov"] * losses["cov"] + w["var"] * losses["var"] + w["mean"] * losses["mean"]
        return w["rec"] * reconstruction + constraints
