"""Batches of some images of each of some classes."""

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_dense, check_kind, check_labels


class MPerClassBatches:
    """Batches of ``per_class`` images of each of ``batch_size / per_class`` classes, for pair losses.

    Source: Hermans et al. 2017; the weights are this package's own. Derived in chapter 10.

    An epoch is a random permutation of the classes, cut into batches; classes that do not fill a last batch
    wait for a later epoch. Of a class, ``per_class`` different images are drawn at random; a class that has
    fewer gives each of its images at least once, and some of them again. With weights an image is drawn
    ``per_class`` times its share of the weight of its class on average, in every batch as nearly as whole
    numbers allow: the images of a coreset then represent those that they stand for.

    Batch t depends on the seed and on t alone: nothing is remembered, so a resumed run and several processes
    agree on it by construction.

    Args:
        labels: ``(n,)`` integers.
        batch_size: images in a batch.
        per_class: images of one class in a batch, m.
        seed: of the draws.
        weights: ``(n,)`` positive, such as those of a coreset; None draws without them.

    Attributes:
        batches_per_epoch: number of batches in which every class appears at most once.

    Raises:
        ValueError: labels that are no list of integers or hold one class; a batch that ``per_class`` does not
            divide, that holds one class only, or that needs more classes than there are; weights that are not
            one positive number for each image.

    Example:
        >>> batches = MPerClassBatches(torch.tensor([0, 0, 0, 1, 1, 2, 2]), batch_size=4, per_class=2)
        >>> batches.batch(5)
        tensor([0, 2, 3, 4])
    """

    def __init__(
        self, labels: Tensor, batch_size: int, per_class: int, seed: int = 0, weights: Tensor | None = None
    ) -> None:
        labels = check_labels(labels).cpu()
        self.batch_size = check_count(batch_size, "batch_size")
        self.per_class = check_count(per_class, "per_class")
        self.seed = check_count(seed, "seed", at_least=0)
        self._weights = None if weights is None else _check_weights(weights, len(labels))
        order = labels.argsort(stable=True)
        self._members = torch.tensor_split(order, _borders(labels))
        self._classes_per_batch = self._check_sizes(len(self._members))
        self.batches_per_epoch = len(self._members) // self._classes_per_batch

    def batch(self, t: int) -> Tensor:
        """Return the indices of batch t, ``(batch_size,)`` int64: class after class.

        Raises:
            ValueError: t is negative.
        """
        epoch, place = divmod(check_count(t, "t", at_least=0), self.batches_per_epoch)
        # Two streams of random numbers: one for each epoch, one for each batch.
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._members))
        drawn = np.random.default_rng((self.seed, 1, t))
        start = place * self._classes_per_batch
        chosen = order[start : start + self._classes_per_batch]
        return torch.cat([self._draw(self._members[label], drawn) for label in chosen.tolist()])

    def _draw(self, members: Tensor, rng: np.random.Generator) -> Tensor:
        if self._weights is not None:
            # Evenly spaced marks on the line of all weights: an image meets its share, rounded up or down.
            ends = self._weights[members].cumsum(0).numpy()
            marks = (np.arange(self.per_class) + rng.random()) / self.per_class * ends[-1]
            places = np.searchsorted(ends, marks, side="right").clip(max=len(members) - 1)
            return members[torch.from_numpy(places)]
        rounds = -(-self.per_class // len(members))
        order = np.concatenate([rng.permutation(len(members)) for _ in range(rounds)])
        return members[torch.from_numpy(order[: self.per_class])]

    def _check_sizes(self, n_classes: int) -> int:
        if n_classes < 2:
            raise ValueError(f"labels must hold at least two classes, got {n_classes}")
        n_chosen, rest = divmod(self.batch_size, self.per_class)
        if rest or n_chosen < 2:
            raise ValueError(
                f"batch_size = {self.batch_size} must be a multiple of per_class = {self.per_class}, "
                "at least twice it: a batch of one class has no negatives"
            )
        if n_chosen > n_classes:
            raise ValueError(
                f"batch_size = {self.batch_size} with per_class = {self.per_class} needs {n_chosen} classes, "
                f"but there are {n_classes}; take a smaller batch or more images per class"
            )
        return n_chosen


def _check_weights(weights: Tensor, n_images: int) -> Tensor:
    check_dense(check_kind(weights, "weights", Tensor), "weights")
    if weights.is_complex() or weights.shape != (n_images,) or not (weights.isfinite() & (weights > 0)).all():
        raise ValueError(
            f"weights must be {n_images} positive numbers, one for each image, got {weights.dtype} of shape "
            f"{tuple(weights.shape)}; leave images of weight zero out"
        )
    found = weights.detach().double().cpu()
    return found / found.max()  # only ratios count, and sums do not overflow


def _borders(labels: Tensor) -> list[int]:
    """Where a new class begins among the sorted labels."""
    counts = labels.unique(return_counts=True)[1]
    return counts.cumsum(dim=0)[:-1].tolist()
