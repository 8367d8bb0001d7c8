"""The training loop: one device, several devices and several nodes by the same code."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.training._run import NonFiniteLossError, Run, start_fabric
from retrieval_geometry.training._state import (
    isolated_random_state,
    read_checkpoint,
    write_checkpoint,
)
from retrieval_geometry.training.config import TrainingConfig

__all__ = ["History", "NonFiniteLossError", "train"]

Validate = Callable[[EmbeddingNetwork], float]


@dataclass
class History:
    """Losses and validations of a training run. Used in chapter 10.

    Attributes:
        losses: the objective at each step.
        validations: pairs (updates made, value).
        stopped_early: whether the values stopped improving before the last step.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    stopped_early: bool = False

    @property
    def best(self) -> tuple[int, float] | None:
        """The first of the best validations; None without one."""
        return max(self.validations, key=lambda pair: pair[1], default=None)

    def is_stale(self, patience: int) -> bool:
        """Whether the best value is followed by ``patience`` others."""
        values = [value for _, value in self.validations]
        # The best counts itself: above ``patience`` so many others have followed it.
        return len(values) - values.index(max(values)) > patience


def train(
    network: EmbeddingNetwork,
    objective: nn.Module,
    images: ImageSet,
    config: TrainingConfig,
    validate: Validate | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    weights: Tensor | None = None,
) -> History:
    """Train a network, in place, to a small value of ``objective(embeddings, labels)``.

    Source: this package's own; with an ``inner_step`` [rankmi] Algorithm 1. Used in chapter 10.

    Step t embeds a batch that depends on the seed and on t alone (:class:`MPerClassBatches`, then the
    augmentation). If the objective has ``inner_step(embeddings, labels)`` it is called first, with detached
    embeddings, and the objective's parameters are its own affair; otherwise they are trained as well, at
    ``objective_lr``. If it has ``renew(embeddings, labels)`` it is shown all images, without augmentation,
    before the first step and every ``renew_every`` steps: so proxies are found on the whole training set.
    Labels count the classes of ``images`` from 0 in ascending order. Random draws of the objective come from
    torch's or numpy's global state, set anew at each step, or from a generator that is in its ``state_dict``.

    Several processes: start the script with ``torchrun``. Each embeds its share of the batch; the embeddings
    are gathered, all compute the same loss on the whole batch, and the gradients are summed. The result is
    that of one process, up to rounding. On the CPU a run that was interrupted and resumed gives the same
    numbers bit for bit, and so does one with another number of threads outside (``config.threads``).

    A frozen trunk without augmentation is run once over the images; then the head alone is trained.

    Args:
        network: trained in place, and left on the device of the training, in training mode.
        objective: a module in the manner of pytorch-metric-learning.
        images: the training images.
        config: the settings.
        validate: gives the network a value, the larger the better, every ``validate_every`` steps and after
            the last; the network is in evaluation mode meanwhile. The weights of the best value are those
            that the network has in the end.
        checkpoint: a file that holds the run every ``checkpoint_every`` steps and at its end. If it exists
            the run goes on from it; more steps may be asked for then.
        cache: a folder that keeps the features of a frozen trunk.
        weights: ``(n,)``, the frequency of each image relative to the others of its class: for a coreset its
            weights, so that the gradient is on average that of the images that it stands for. By default all
            images of a class are drawn alike.

    Raises:
        ValueError: images, weights, batch and processes do not go together, an objective that is no scalar or
            does not depend on the embeddings, or a checkpoint that is damaged or of other settings, which are
            named. The settings of an objective are all that hangs on it and does not change in training, but
            for the values of parameters.
        NonFiniteLossError: embeddings, loss or gradients are NaN or infinite; the step and the images are
            named, and the network has the weights from before the step.

    Example:
        >>> from pytorch_metric_learning.losses import TripletMarginLoss
        >>> from retrieval_geometry.datasets import handwritten_digits
        >>> from retrieval_geometry.features import load_embedding_network
        >>> config = TrainingConfig(steps=2, batch_size=8, per_class=2, accelerator="cpu")
        >>> history = train(load_embedding_network(dim=8), TripletMarginLoss(), handwritten_digits(), config)
        >>> len(history.losses)
        2
    """
    with isolated_random_state(), cpu_threads(config.threads):
        run = Run(start_fabric(config), network, objective, images, config, cache, weights)
        record = _Record(run, validate, None if checkpoint is None else Path(checkpoint))
        record.resume()
        first = len(record.history.losses)
        stop = first if record.history.stopped_early else config.steps
        with run.progress_bar(first) as bar:
            for step, batch in run.batches(first, stop):
                record.enter(run.step(step, batch))
                bar.update()
                if record.history.stopped_early:
                    break
        if record.best is not None:
            network.load_state_dict(record.best)
    return record.history


class _Record:
    """The history of a run so far, on disk and in memory."""

    def __init__(self, run: Run, validate: Validate | None, path: Path | None) -> None:
        self._run, self._validate, self._path = run, validate, path
        self.history = History()
        self.best: dict[str, Tensor] | None = None  # weights of the best validation

    def resume(self) -> None:
        """Take up the run where its checkpoint, if there is one, left it."""
        stored = None if self._path is None else read_checkpoint(self._path, self._run.settings)
        if stored is not None:
            self._run.load(stored["run"])
            self.history, self.best = History(**stored["history"]), stored["best"]

    def enter(self, loss: float) -> None:
        """Record a step; validate and write a checkpoint when it is time."""
        config = self._run.config
        self.history.losses.append(loss)
        done = len(self.history.losses)
        is_last = done == config.steps
        if self._validate is not None and (is_last or done % config.validate_every == 0):
            self.history.validations.append((done, self._run.validated(self._validate)))
            # The first of equal values is the best: later ones do not replace its weights.
            if self.history.best == self.history.validations[-1]:
                network = self._run.network.state_dict()
                self.best = {name: value.detach().clone() for name, value in network.items()}
            self.history.stopped_early = not is_last and self.history.is_stale(config.patience)
        ends = is_last or self.history.stopped_early
        if self._path is not None and (ends or done % config.checkpoint_every == 0):
            self._write(self._path)

    def _write(self, path: Path) -> None:
        if self._run.fabric.is_global_zero:
            state = {"run": self._run.state(), "best": self.best, "history": vars(self.history)}
            write_checkpoint(path, self._run.settings, state)
        self._run.fabric.barrier()
