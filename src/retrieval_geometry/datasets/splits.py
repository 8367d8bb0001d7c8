"""Which images ask, and which are searched."""

import torch
from torch import Tensor

from retrieval_geometry._check import check_count


def query_database_split(labels: Tensor, per_class: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``per_class`` queries of every class at random; all other images are the database.

    Args:
        labels: ``(n,)`` integers.
        per_class: queries per class; [geometric] has two.
        seed: of the draw; the same seed gives the same split.

    Returns:
        The indices of the queries and of the database, both ascending.

    Raises:
        ValueError: a class has no image left for the database, so that its queries could find nothing.

    Example:
        >>> query, database = query_database_split(torch.tensor([0, 0, 0, 1, 1, 1]), per_class=1)
        >>> len(query), len(database)
        (2, 4)
    """
    order = torch.randperm(len(_check_labels(labels)), generator=torch.Generator().manual_seed(seed))
    return _take(labels, order, per_class)


def first_per_class(labels: Tensor, per_class: int = 2) -> tuple[Tensor, Tensor]:
    """Split as :func:`query_database_split` does, with the first images of every class as queries.

    Raises:
        ValueError: a class has no image left besides its queries.

    Example:
        >>> first_per_class(torch.tensor([0, 1, 0, 1]), per_class=1)
        (tensor([0, 1]), tensor([2, 3]))
    """
    return _take(labels, torch.arange(len(_check_labels(labels))), per_class)


def _check_labels(labels: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype.is_floating_point:
        found = getattr(labels, "dtype", type(labels)), tuple(getattr(labels, "shape", ()))
        raise ValueError(f"labels must be a tensor of n integers, got {found[0]} of shape {found[1]}")
    if len(labels) == 0:
        raise ValueError("labels is empty: there is nothing to split")
    return labels


def _take(labels: Tensor, order: Tensor, per_class: int) -> tuple[Tensor, Tensor]:
    """Make queries of the images of each class that come first in ``order``."""
    check_count(per_class, "per_class")
    classes, counts = labels.unique(return_counts=True)
    short = counts <= per_class
    if short.any():
        label, count = int(classes[short][0]), int(counts[short][0])
        raise ValueError(
            f"per_class = {per_class} needs at least {per_class + 1} images of every class, but the class "
            f"with label {label} has {count}; leave out small classes or take fewer queries"
        )
    labels = labels.cpu()[order]
    query = torch.cat([order[labels == label][:per_class] for label in classes.tolist()])
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[query] = True
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
