"""Embeddings of whole image sets."""

import os

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_kind
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import extract_descriptors
from retrieval_geometry.features.ensemble import Embedder
from retrieval_geometry.training._images import PreparedImages


def stack_images(images: ImageSet, network: Embedder) -> Tensor:
    """All images as the network takes them, uint8 ``(n, 3, S, S)``: for embedding them repeatedly.

    Source: this package's own. Used in chapters 10 and 13.

    Raises:
        ValueError: there are no images, or one cannot be used.
    """
    _check_images(check_kind(images, "images", ImageSet))
    return PreparedImages(images, network).hold()


def embed(
    network: Embedder,
    images: ImageSet | Tensor,
    batch_size: int = 256,
    cache: str | os.PathLike[str] | None = None,
) -> Tensor:
    """Embeddings of all images of a set, in evaluation mode, on the network's device.

    Source: this package's own. Used in chapter 10.

    Args:
        network: one, or an ensemble; its mode is left as it was.
        images: a set, or the tensor that :func:`stack_images` makes of it.
        batch_size: images at a time; it changes the speed, not the result.
        cache: a folder that keeps the features of a frozen trunk, under a hash of the images and of its
            weights; without a frozen trunk, and for stacked images, it is not used.

    Returns:
        ``(n, dim)`` or ``(n, places, dim)`` float32, in main memory.

    Raises:
        ValueError: there are no images, or an embedding is NaN or infinite (the image is named).

    Example:
        >>> from retrieval_geometry.datasets import handwritten_digits
        >>> from retrieval_geometry.features import load_embedding_network
        >>> embed(load_embedding_network(dim=8), handwritten_digits().subset(range(5))).shape
        torch.Size([5, 8])
    """
    check_count(batch_size, "batch_size")
    _check_images(images)
    batch_size = min(int(batch_size), len(images))
    was_training = network.training  # batch norm shall not learn from images that are only embedded
    network.eval()
    try:
        with torch.inference_mode():
            embedded = torch.cat(_batches(network, images, batch_size, cache))
    finally:
        network.train(was_training)
    finite = embedded.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        name = images.ids[first] if isinstance(images, ImageSet) else f"number {first}"
        raise ValueError(
            f"the embedding of image {name} is NaN or infinite; check the weights of the network"
        )
    return embedded.clone()  # an inference tensor could not be learnt from


def trunk_features(
    network: Embedder,
    images: ImageSet,
    batch_size: int,
    cache: str | os.PathLike[str] | None,
) -> Tensor:
    """Features of a frozen trunk ``(n, places, channels)``, the input of the head, once for all steps."""
    return extract_descriptors(images, network.trunk, batch_size, progress=False, cache=cache)


def _batches(
    network: Embedder,
    images: ImageSet | Tensor,
    batch_size: int,
    cache: str | os.PathLike[str] | None,
) -> list[Tensor]:
    if isinstance(images, Tensor):
        return [network(batch.to(network.device)).float().cpu() for batch in images.split(batch_size)]
    if network.freeze_trunk:
        features = trunk_features(network, images, batch_size, cache).split(batch_size)
        return [network.project(batch.to(network.device)).float().cpu() for batch in features]
    indices = torch.arange(len(images)).split(batch_size)
    pixels = PreparedImages(images, network).batches(indices)
    return [network(batch.to(network.device)).float().cpu() for batch in pixels]


def _check_images(images: ImageSet | Tensor) -> None:
    if not isinstance(images, ImageSet | Tensor):
        raise ValueError(f"images must be an ImageSet or a tensor, got {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("images is empty: there is nothing to embed")
