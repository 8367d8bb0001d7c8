"""All pairs of two batches in blocks, so that neither the images nor the pairs outgrow a memory budget."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._memory import cuts
from retrieval_geometry.image_models import Gaussian, GaussianMixture

Model = TypeVar("Model", Gaussian, GaussianMixture)
Features = TypeVar("Features")

BUDGET_BYTES = 2**29
"""Bytes that the prepared images of one side, or the intermediate results of one block of pairs, may take."""


def blocks(n: int, bytes_each: int) -> list[slice]:
    """Cut ``range(n)`` into slices of as many items as the memory budget holds, at least one."""
    return cuts(n, bytes_each, BUDGET_BYTES)


class Comparison(NamedTuple):
    """Preparation of images and their comparison: what :func:`all_pairs` takes besides the images."""

    prepare: Callable[[Any, str, int], Any]
    compare: Callable[[Any, Any], Tensor]
    bytes_per_image: int


def tensors(features: Any) -> Iterator[Tensor]:
    """The tensors in prepared features, in a fixed order."""
    if isinstance(features, Tensor):
        yield features
    elif features is not None:
        for part in features:
            yield from tensors(part)


def with_tensors(features: Any, new: Iterator[Tensor]) -> Any:
    """Prepared features with other tensors in their places, in the order of :func:`tensors`."""
    if features is None or isinstance(features, Tensor):
        return features if features is None else next(new)
    return type(features)(*(with_tensors(part, new) for part in features))


def take(features: Any, index: slice | Tensor) -> Any:
    """Prepared features of some images: every tensor has the axis of images in front."""
    return with_tensors(features, (tensor[index] for tensor in tensors(features)))


def join(parts: Iterator[Any], n_images: int) -> Any:
    """Prepared features of several blocks as one."""
    # Filled in place: a concatenation would hold every block twice.
    first = next(parts)
    whole = [tensor.new_empty(n_images, *tensor.shape[1:]) for tensor in tensors(first)]
    start = 0
    for part in chain([first], parts):
        for place, tensor in zip(whole, tensors(part), strict=True):
            place[start : start + len(tensor)] = tensor
        start += len(tensor)
    return with_tensors(first, iter(whole))


def progress(n_pairs: int) -> tqdm:
    """A bar for work that takes longer than five seconds, on an interactive terminal only."""
    return tqdm(total=n_pairs, unit="pair", unit_scale=True, delay=5, disable=None, leave=False)


def all_pairs(
    p: Model,
    q: Model,
    prepare: Callable[[Model, str, int], Features],
    compare: Callable[[Features, Features], Tensor],
    bytes_per_image: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Prepare each image and compare each with each, ``(P, Q)`` on the device of ``p``.

    Prepared images of ``q`` are kept while they fit the memory budget, and otherwise made anew for every
    block of ``p``.

    Args:
        p: P images.
        q: Q images.
        prepare: called with some images, the name of their side ("p" or "q") and the index of the first.
        compare: called with two prepared blocks; returns their block of the result, or several of them,
            ``(n, p, q)``.
        bytes_per_image: memory of a prepared image.
        dtype: of the result; that of ``p`` by default.
    """
    dtype = dtype or p.dtype
    if not (len(p) and len(q)):
        return torch.zeros(len(p), len(q), dtype=dtype, device=p.device)
    columns = blocks(len(q), bytes_per_image)
    kept = prepare(q, "q", 0) if len(columns) == 1 else None
    rows = []
    with progress(len(p) * len(q)) as bar:
        for i in blocks(len(p), bytes_per_image):
            left = prepare(p[i], "p", i.start)
            row = []
            for j in columns:
                row.append(compare(left, prepare(q[j], "q", j.start) if kept is None else kept))
                bar.update(row[-1].shape[-2] * row[-1].shape[-1])
            rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2).to(dtype)
