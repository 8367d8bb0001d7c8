"""Projections that are trained: references in batches, epochs of Adam, early stopping on a held-out tenth."""

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retrieval_geometry._check import (
    check_choice,
    check_count,
    check_device,
    check_flag,
    check_number,
    check_seed,
)
from retrieval_geometry._seeded import seeded
from retrieval_geometry._tolerances import NULL_DIRECTION
from retrieval_geometry.projections._base import Projection
from retrieval_geometry.projections._rows import Rows
from retrieval_geometry.projections.moments import StreamingMoments, check_variation, moments_of

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "identity": nn.Identity}

HELD_BYTES = 2**31
"""References that take more bytes than this are read from their file, batch after batch."""

Losses = Iterable[tuple[Tensor, bool]]
"""Terms of the loss, and after which of them the optimiser steps."""


class TrainedProjection(Projection):
    """A network that is fitted by gradient descent; see :class:`AESVC` for its settings."""

    stored: ClassVar[tuple[str, ...]] = (
        "n_features_in_",
        "dtype_",
        "mean_",
        "scale_",
        "history_",
        "encoder_",
    )
    hidden: int | None
    depth: int
    activation: str
    standardize: bool
    batch_size: int | None
    lr: float
    epochs: int
    patience: int
    held_out: float
    device: str | None
    threads: int | None
    random_state: int

    mean_: Tensor
    scale_: Tensor
    encoder_: nn.Module
    dtype_: str
    history_: dict[str, list[float]]

    def _check_settings(self) -> None:
        for name in ("depth", "epochs", "patience"):
            check_count(getattr(self, name), name)
        for name in ("hidden", "batch_size", "threads"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, at_least=2 if name == "batch_size" else 1)
        check_choice(self.activation, "activation", ACTIVATIONS)
        check_number(self.lr, "lr", above=0)
        check_number(self.held_out, "held_out", at_least=0, at_most=0.5)
        check_flag(self.standardize, "standardize")
        check_seed(self.random_state, "random_state")

    def _layers(self, inputs: int, outputs: int) -> nn.Sequential:
        """A chain of linear layers with activations between them."""
        width = (inputs + outputs) // 2 if self.hidden is None else self.hidden
        parts: list[nn.Module] = []
        for a, b in pairwise((inputs, *(width,) * (self.depth - 1), outputs)):
            parts += [nn.Linear(a, b), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*parts[:-1])

    def _train(
        self,
        network: nn.Module,
        references: "References",
        losses: Callable[[list[Tensor]], Losses],
        validate: Callable[[], Tensor],
        whole: bool = False,
    ) -> dict[str, list[float]]:
        """Train until the held-out value stops falling; the network has the weights of its lowest.

        Args:
            network: trained in place.
            references: what it is trained on.
            losses: gives, for the batches of an epoch, terms of the loss, and whether a step follows.
            validate: the value of the held-out references.
            whole: batches of an epoch hold all references, the last one fewer than the others.
        """
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        generator = torch.Generator().manual_seed(self.random_state)
        history: dict[str, list[float]] = {"train": [], "held_out": []}
        best: tuple[float, Any] = (torch.inf, None)
        bar = tqdm(range(self.epochs), desc="training", unit="epoch", delay=5, disable=None, leave=False)
        for epoch in bar:
            terms = losses(references.batches(generator, whole))
            history["train"].append(self._checked(self._epoch(optimizer, terms), epoch))
            if not len(references.held):
                continue
            with torch.no_grad():
                value = self._checked(float(validate()), epoch)
            history["held_out"].append(value)
            if value < best[0]:
                best = value, copy.deepcopy(network.state_dict())
            if epoch - history["held_out"].index(best[0]) >= self.patience:
                break
        bar.close()
        if best[1] is not None:
            network.load_state_dict(best[1])
        if not all(bool(p.isfinite().all()) for p in network.parameters()):
            self._checked(torch.nan, len(history["train"]) - 1)
        return history

    def _epoch(self, optimizer: torch.optim.Optimizer, terms: Losses) -> float:
        total, steps = 0.0, 0
        for loss, steps_now in terms:
            loss.backward()
            total += float(loss.detach())
            if steps_now:
                optimizer.step()
                optimizer.zero_grad()
                steps += 1
        return total / max(steps, 1)

    def _checked(self, value: float, epoch: int) -> float:
        if not abs(value) < torch.inf:
            raise ValueError(
                f"the loss is NaN or infinite in epoch {epoch}, with lr = {self.lr}; try a lower lr, or "
                "standardize=True if X has large coordinates"
            )
        return value

    def _standardised(self, block: Tensor) -> Tensor:
        """A block as the network takes it."""
        given = block.to(self.mean_.device, self.mean_.dtype)
        return (given - self.mean_) * self.scale_ if self.standardize else given

    @torch.no_grad()
    def _project(self, block: Tensor) -> Tensor:
        return self.encoder_(self._standardised(block)).to(block.device, block.dtype)

    def _hold(self, references: "References", encoder: nn.Module) -> None:
        """Take what a finished training has found: one that is interrupted leaves everything as it was."""
        self.n_features_in_ = references.rows.dim
        self.dtype_ = str(references.rows.dtype).removeprefix("torch.")
        self.mean_, self.scale_ = references.mean, references.scale
        self.encoder_ = encoder.eval().requires_grad_(False)


class References:
    """The references of a training, standardised if asked for, and which of them are held out."""

    def __init__(self, X: Any, settings: TrainedProjection) -> None:
        settings._check_settings()
        fewest = 4 if settings.held_out else 2
        why = ", of which two are held out" if settings.held_out else " to have a covariance"
        self.rows = rows = Rows(X, at_least=fewest, why=why)
        self.moments: StreamingMoments = check_variation(moments_of(rows))
        self.device = rows.device if settings.device is None else check_device(settings.device, rows.dtype)
        variances = self.moments.covariance.diagonal()
        # What does not vary is centred only, as scikit-learn's StandardScaler has it.
        constant = variances <= NULL_DIRECTION * variances.max()
        self.mean = self.moments.mean.to(self.device, rows.dtype)
        self.scale = torch.where(constant, 1.0, variances).rsqrt().to(self.device, rows.dtype)
        self._standardize = settings.standardize
        generator = torch.Generator().manual_seed(settings.random_state)
        order = torch.randperm(rows.n, generator=generator)
        count = max(2, round(settings.held_out * rows.n)) if settings.held_out else 0
        self.held, self.trained = order[:count].sort().values, order[count:].sort().values
        self.batch = 0
        size = rows.n * rows.dim * rows.dtype.itemsize
        self._data = rows.take(torch.arange(rows.n)).to(self.device) if size <= HELD_BYTES else None

    def set_batch(self, wanted: int | None, default: int) -> int:
        """Settle the size of a batch: as wanted, by default ``default``, at most all that are trained on."""
        self.batch = min(default if wanted is None else wanted, len(self.trained))
        return self.batch

    def batches(self, generator: torch.Generator, whole: bool = False) -> list[Tensor]:
        """Numbers of the references of each batch of an epoch; those over are left out unless ``whole``."""
        order = self.trained[torch.randperm(len(self.trained), generator=generator)]
        parts = list(order.split(self.batch))
        return parts if whole or len(parts[-1]) == self.batch else parts[:-1]

    def take(self, indices: Tensor) -> Tensor:
        """References of those numbers, as the network takes them."""
        if self._data is None:
            found = self.rows.take(indices).to(self.device)
        else:
            found = self._data[indices.to(self.device)]
        return (found - self.mean) * self.scale if self._standardize else found

    def all(self, doing: str) -> Iterator[Tensor]:
        """All references in order, block after block."""
        for _, block in self.rows.blocks(doing):
            found = block.to(self.device)
            yield (found - self.mean) * self.scale if self._standardize else found


def seeded_modules(settings: TrainedProjection, make: Callable[[], nn.Module], references: References) -> Any:
    """Modules whose weights are drawn from the seed, in the dtype and on the device of the references."""
    with seeded(settings.random_state):
        return make().to(references.device, references.rows.dtype)
