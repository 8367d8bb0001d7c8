"""Splits of images into queries and database, and of classes into learnt and new ones."""

import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_kind, check_labels, check_number, check_seed
from retrieval_geometry.datasets.folders import composed
from retrieval_geometry.datasets.image_set import ImageSet


def query_database_split(labels: Tensor, per_class: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random split into ``per_class`` queries of every class and the database of all other images.

    Source: [geometric] section 3. Used in chapter 4.

    Args:
        labels: ``(n,)`` integers.
        per_class: queries per class; [geometric] has two.
        seed: of the draw; the same seed gives the same split.

    Returns:
        The indices ``(m,)`` of the queries and ``(n - m,)`` of the database, both ascending.

    Raises:
        ValueError: a class has no image left for the database, so that its queries could find nothing.

    Example:
        >>> query, database = query_database_split(torch.tensor([0, 0, 0, 1, 1, 1]), per_class=1)
        >>> len(query), len(database)
        (2, 4)
    """
    found = _some_labels(labels)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(check_seed(seed)))
    return _take(found, order, per_class)


def first_per_class(labels: Tensor, per_class: int = 2) -> tuple[Tensor, Tensor]:
    """Split of labels ``(n,)`` with the first images of every class as queries.

    Source: [geometric] section 3; the order in place of a draw is this package's own. Used in no chapter.

    Raises:
        ValueError: a class has no image left besides its queries.

    Example:
        >>> first_per_class(torch.tensor([0, 1, 0, 1]), per_class=1)
        (tensor([0, 1]), tensor([2, 3]))
    """
    found = _some_labels(labels)
    return _take(found, torch.arange(len(found)), per_class)


def class_split(
    images: ImageSet, train_classes: int | float | Sequence[str], seed: int | None = None
) -> tuple[ImageSet, ImageSet]:
    """Split of a set by its classes, so that no class is on both sides: zero-shot retrieval.

    Source: Song et al. 2016 (the first half of the classes). Derived in chapter 10.

    Args:
        images: the set; a class without an image does not count.
        train_classes: how many classes are learnt (an int), their share (a float between 0 and 1), or their
            names.
        seed: of the draw of the classes; None takes the first in the order of ``images.classes``. With names
            there is nothing to draw, and it is not read.

    Returns:
        The images to learn from and those to test with. Both keep all class names and their numbers.

    Raises:
        ValueError: a side would have no class, or a name is unknown.

    Example:
        >>> from retrieval_geometry.datasets import photo_textures
        >>> train, test = class_split(photo_textures(), 0.5)
        >>> len(set(train.labels.tolist())), len(set(test.labels.tolist()))
        (9, 9)
    """
    present = check_kind(images, "images", ImageSet).labels.unique()
    if isinstance(train_classes, numbers.Real):  # a count, or a share
        n_train = _number_of_classes(train_classes, len(present))
        if seed is not None:
            source = torch.Generator().manual_seed(check_seed(seed))
            present = present[torch.randperm(len(present), generator=source)]
        chosen = present[:n_train]
    else:
        chosen = _classes_by_name(images, train_classes)
    learnt = torch.isin(images.labels, chosen)
    if learnt.all() or not learnt.any():
        side = "to test with" if learnt.any() else "to learn"
        raise ValueError(
            f"train_classes leaves no class {side}: it names {len(chosen)} of the {len(present)} classes of "
            f"{images.name} that have images"
        )
    return images.subset(learnt.nonzero()[:, 0]), images.subset((~learnt).nonzero()[:, 0])


def with_turned_classes(images: ImageSet) -> ImageSet:
    """The images, and copies turned by 90, 180 and 270 degrees, each turn of a class as a class of its own.

    Source: Santoro et al. 2016, section 4.1, for handwritten characters: four times as many to learn from. A
    character that looks the same when turned is then several classes that nothing tells apart, which costs
    little. Turn the images to learn from alone: those to test with stay as they are. Used in chapter 14.

    Args:
        images: the set. Its images and classes come first, with their numbers; then those of each turn.

    Raises:
        ValueError: not an image set, or one that has been turned already.

    Example:
        >>> from retrieval_geometry.datasets import handwritten_digits
        >>> turned = with_turned_classes(handwritten_digits().subset(range(5)))
        >>> len(turned), len(turned.classes), turned.classes[10]
        (20, 40, '0, turned by 90 degrees')
    """
    kept, n_classes = check_kind(images, "images", ImageSet), len(images.classes)
    turns = range(4)

    def turned(name: str, turn: int) -> str:
        return f"{name}, turned by {90 * turn} degrees" if turn else name

    sources = {turned(name, turn): (name, turn) for turn in turns for name in kept.ids}

    def read(name: str) -> Tensor:
        source, turn = sources[name]
        return kept.read(source).rot90(turn, (1, 2)).contiguous()

    return replace(
        kept,
        labels=torch.cat([kept.labels + turn * n_classes for turn in turns]),
        classes=tuple(turned(name, turn) for turn in turns for name in kept.classes),
        ids=tuple(turned(name, turn) for turn in turns for name in kept.ids),
        read=read,
    )


def _number_of_classes(train_classes: Any, n_classes: int) -> int:
    if isinstance(train_classes, numbers.Integral):
        return check_count(train_classes, "train_classes", at_most=max(n_classes - 1, 1))  # type: ignore[arg-type]
    share = check_number(train_classes, "train_classes (a share of the classes)", above=0, at_most=1)
    return round(share * n_classes)


def _classes_by_name(images: ImageSet, names: object) -> Tensor:
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"train_classes must be a number, a share or names of classes, got {names!r}")
    wanted = [names] if isinstance(names, str) else list(names)
    # One name may be spelled with composed or with combining accents, as some file systems do.
    known = [composed(name) for name in images.classes]
    unknown = [name for name in wanted if composed(name) not in known]
    if unknown:
        raise ValueError(
            f"train_classes names {unknown[0]!r}, which is no class of {images.name}; "
            f"there are {', '.join(images.classes[:5])}, ..."
        )
    return torch.tensor([known.index(composed(name)) for name in wanted], dtype=torch.int64)


def _some_labels(labels: Tensor) -> Tensor:
    found = check_labels(labels).cpu()
    if len(found) == 0:
        raise ValueError("labels is empty: there is nothing to split")
    return found


def _take(labels: Tensor, order: Tensor, per_class: int) -> tuple[Tensor, Tensor]:
    """Make queries of the images of each class that come first in ``order``."""
    check_count(per_class, "per_class", at_most=max(len(labels), 1))
    classes, counts = labels.unique(return_counts=True)
    short = counts <= per_class  # a query needs another image of its class to find
    if short.any():
        label, count = int(classes[short][0]), int(counts[short][0])
        raise ValueError(
            f"per_class = {per_class} needs at least {per_class + 1} images of every class, but the class "
            f"with label {label} has {count}; leave out small classes or take fewer queries"
        )
    labels = labels[order]
    query = torch.cat([order[labels == label][:per_class] for label in classes.tolist()])
    # Through a mask: both lists come out in ascending order.
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[query] = True
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
