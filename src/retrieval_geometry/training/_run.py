"""One training run: its parts, its steps, and its state for a checkpoint."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from retrieval_geometry._check import check_count, check_kind, check_number
from retrieval_geometry.datasets import ImageSet, MPerClassBatches
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.training._images import HELD_BYTES, PreparedImages
from retrieval_geometry.training._objective import describe, unchanged
from retrieval_geometry.training._state import digest, seed_step, step_generator
from retrieval_geometry.training.config import Augmentation, TrainingConfig
from retrieval_geometry.training.embedding import trunk_features

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FREE_SETTINGS = ("steps", "checkpoint_every", "accelerator")
"""Settings that may change when a run goes on from a checkpoint."""


class NonFiniteLossError(ArithmeticError):
    """A step met NaN or infinity and was not made.

    Attributes:
        step: counted from 0.
        image_ids: the images of its batch.
    """

    def __init__(self, what: str, step: int, image_ids: tuple[str, ...]) -> None:
        self.step, self.image_ids = step, image_ids
        super().__init__(
            f"{what} at step {step} are NaN or infinite; the step was not made. Try a lower learning rate, "
            f"and look at the {len(image_ids)} images of the batch: {', '.join(image_ids[:8])}, ..."
        )


class Run:
    """Network, objective, optimiser and batches of one training run."""

    def __init__(
        self,
        fabric: "Fabric",
        network: EmbeddingNetwork,
        objective: nn.Module,
        images: ImageSet,
        config: TrainingConfig,
        cache: str | os.PathLike[str] | None,
        weights: Tensor | None,
    ) -> None:
        self.fabric, self.config = fabric, config
        _check_shares(network, config.batch_size, fabric.world_size)
        self.network, self.objective = network.to(fabric.device), objective.to(fabric.device)
        self._ids = check_kind(images, "images", ImageSet).ids
        self._labels = images.labels.unique(return_inverse=True)[1]
        sizes = config.batch_size, config.per_class
        self._sampler = MPerClassBatches(self._labels, *sizes, config.seed, weights)
        optimizer = self._make_optimizer()
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._optimizer: Any = fabric.setup_optimizers(optimizer)
        for tensor in (*network.state_dict().values(), *objective.state_dict().values()):
            if fabric.world_size > 1 and isinstance(tensor, Tensor):
                torch.distributed.broadcast(tensor, 0)  # all start from the weights of the first process
        self._features, self._pixels = None, PreparedImages(images, network, config.augment.shift)
        if network.freeze_trunk and config.augment == Augmentation():
            self._features = trunk_features(network, images, config.batch_size, cache)
        elif self._pixels.n_bytes <= HELD_BYTES:
            self._pixels.hold()
        network.train()
        objective.train()
        self._settings, self._start = self._describe(images, weights), describe(objective)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a checkpoint shares with a run that goes on from it."""
        return self._settings | unchanged(self._start, describe(self.objective))

    def batches(self, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Give each step with this process's share of its batch: pixels, or features of a frozen trunk."""
        size = self.config.batch_size // self.fabric.world_size
        own = slice(self.fabric.global_rank * size, (self.fabric.global_rank + 1) * size)
        shares = (self._sampler.batch(step)[own] for step in range(first, stop))
        if self._features is not None:
            for step, share in enumerate(shares, start=first):
                yield step, self._features[share]
            return
        for step, pixels in enumerate(self._pixels.batches(shares), start=first):
            # Drawn for the whole batch, so that the number of processes changes nothing.
            generator = step_generator(self.config.seed, step)
            yield step, self.config.augment.apply(pixels, generator, own, self.config.batch_size)

    def step(self, step: int, batch: Tensor) -> float:
        """Make one update of the network; returns the loss before it."""
        seed_step(self.config.seed, step)
        self._renew(step)
        # The order of Algorithm 1 of [rankmi], but for its statistics, which come before the embedding here.
        indices = self._sampler.batch(step)
        ids = tuple(self._ids[i] for i in indices.tolist())
        with self.fabric.autocast():
            compute = self.network if self._features is None else self.network.project
            share = compute(batch.to(self.fabric.device))
        embeddings = self._gathered(share.float())  # losses compare all pairs of the whole batch
        if not embeddings.detach().isfinite().all():
            raise NonFiniteLossError("embeddings", step, ids)
        labels = self._labels[indices].to(self.fabric.device)
        inner_step: Callable[[Tensor, Tensor], None] | None = getattr(self.objective, "inner_step", None)
        if inner_step is not None:
            inner_step(embeddings.detach(), labels)
        loss = _check_loss(self.objective(embeddings, labels))
        if not loss.detach().isfinite():
            raise NonFiniteLossError("loss values", step, ids)
        self._optimizer.zero_grad()
        self.objective.zero_grad()
        self.fabric.backward(loss)
        if not self._gradients_are_shared():
            raise NonFiniteLossError("gradients", step, ids)
        # Rates follow from the step alone: a resumed run needs no scheduler's state.
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.config.lr_scale(step)
        self._optimizer.step()
        return float(loss.detach())

    def _renew(self, step: int) -> None:
        """Show all images to an objective that asks for them, at the beginning of each of its epochs."""
        renew: Callable[[Tensor, Tensor], None] | None = getattr(self.objective, "renew", None)
        if renew is None:
            return
        if step % check_count(getattr(self.objective, "renew_every", 0), "objective.renew_every"):
            return
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                embedded = self._embedded().to(self.fabric.device)
                wrong = (~embedded.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()
                if wrong:
                    raise NonFiniteLossError("embeddings", step, tuple(self._ids[i] for i in wrong))
                renew(embedded, self._labels.to(self.fabric.device))
        finally:
            self.network.train(was_training)

    def _embedded(self) -> Tensor:
        """All images, without augmentation."""
        size, device = self.config.batch_size, self.fabric.device
        if self._features is not None:
            return torch.cat([self.network.project(part.to(device)) for part in self._features.split(size)])
        # The middle of an image with margins is the image as it is embedded otherwise.
        first, last = self.config.augment.shift, self.config.augment.shift + self.network.input_size
        parts = self._pixels.batches(torch.arange(len(self._labels)).split(size))
        return torch.cat([self.network(part[..., first:last, first:last].to(device)) for part in parts])

    def validated(self, validate: Callable[[EmbeddingNetwork], float]) -> float:
        """The value that the first process finds for the network."""
        self.network.eval()
        with torch.no_grad():
            value = float(validate(self.network))
        self.network.train()
        return check_number(self.fabric.broadcast(value), "the value of validate(network)")

    def progress_bar(self, first: int) -> tqdm:
        """A bar that shows up after five seconds, in a terminal, in one process."""
        quiet = None if self.fabric.is_global_zero else True
        total = self.config.steps
        return tqdm(
            total=total, initial=first, desc="training", unit="step", delay=5, disable=quiet, leave=False
        )

    def state(self) -> dict[str, Any]:
        """All that changes in a run; random numbers begin anew at each step."""
        parts = {"network": self.network, "objective": self.objective, "optimizer": self._optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state that :meth:`state` gave."""
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        groups = self.network.parameter_groups(config.lr, config.trunk_lr_factor)
        for group in groups:
            group["weight_decay"] = config.weight_decay
        own = list(self.objective.parameters())
        # Proxies and boundaries; an objective with an inner step has an optimiser of its own.
        if own and not hasattr(self.objective, "inner_step"):
            groups.append({"params": own, "lr": config.objective_lr, "weight_decay": 0.0})
        if config.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
        return (torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW)(groups, lr=config.lr)

    def _gathered(self, share: Tensor) -> Tensor:
        """The embeddings of the whole batch; gradients flow into this process's share."""
        if self.fabric.world_size == 1:
            return share
        parts: list[Tensor] = list(self.fabric.all_gather(share.detach()))
        parts[self.fabric.global_rank] = share  # the only part with a gradient
        return torch.cat(parts)

    def _gradients_are_shared(self) -> bool:
        """Sum the network's gradients over the processes; False where one is not finite.

        The objective's gradients are those of the whole batch in every process already. With a loss scaler an
        overflow is its affair: it skips the step.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        if self.fabric.world_size > 1:
            # A sum, not a mean: every process has the loss of the whole batch, and a share of its gradient.
            flat = self.fabric.all_reduce(flat, reduce_op="sum")  # type: ignore[assignment]
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, total in zip(gradients, flat.split(sizes), strict=True):
                gradient.copy_(total.view_as(gradient))
        own = [p.grad for p in self.objective.parameters() if p.grad is not None]
        finite = all(bool(gradient.isfinite().all()) for gradient in (flat, *own))
        return finite or self.config.precision == "16-mixed"

    def _describe(self, images: ImageSet, weights: Tensor | None) -> dict[str, Any]:
        settings = {k: v for k, v in asdict(self.config).items() if k not in FREE_SETTINGS}
        drawn = () if weights is None else (weights.tolist(),)
        content = digest((images.sha256, images.ids, images.labels.tolist(), *drawn))
        return {**settings, "network": self.network.identity, "images": content}


def start_fabric(config: TrainingConfig) -> "Fabric":
    """One process, or the processes that ``torchrun`` has started."""
    from lightning_fabric import Fabric  # slow to import

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world > 1 else 1
    fabric = Fabric(
        accelerator=_accelerator(config.accelerator),
        strategy="ddp" if world > 1 else "auto",
        devices=local,
        num_nodes=world // local,
        precision=config.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _accelerator(name: str) -> str:
    """The accelerator behind ``"auto"``; fabric would take an Apple GPU first, which has no float64."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _check_shares(network: EmbeddingNetwork, batch_size: int, processes: int) -> None:
    if batch_size % processes:
        raise ValueError(
            f"batch_size = {batch_size} must be a multiple of the number of processes, {processes}"
        )
    live = any(isinstance(part, _BatchNorm) and part.training for part in network.train().modules())
    if processes > 1 and live:
        raise ValueError(
            "the network's batch norm would see one process's share of a batch and make the result depend on "
            "their number; use freeze_batch_norm=True, or one process"
        )


def _check_loss(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"objective(embeddings, labels) must give one number that depends on the embeddings, got {found}"
        )
    return loss.reshape(())
