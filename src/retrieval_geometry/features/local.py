"""From images to local descriptors, in batches, kept on disk if asked."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import check_count, check_floating, check_kind, check_path
from retrieval_geometry._sealed import Kind
from retrieval_geometry._text import printable
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features.base import Backbone

PART = 256
"""Images in one file of the cache: an interrupted run repeats no more than these."""

DESCRIPTORS = Kind("file of descriptors", 1, "it is made again")


def extract_descriptors(
    images: ImageSet,
    backbone: Backbone,
    batch_size: int = 16,
    progress: bool = True,
    cache: str | os.PathLike[str] | None = None,
) -> Tensor:
    """Local descriptors of every image of a set, N from each.

    Source: [geometric] section 2.1. Used in chapters 1 and 2.

    The network runs in evaluation mode, on its own device; the result lies in main memory.

    Args:
        images: the images; each is resized and cropped by ``backbone.prepare``.
        backbone: a network of :func:`load_backbone`.
        batch_size: images at a time; it changes the speed, not the result.
        progress: show a bar, in a terminal.
        cache: a folder that keeps the descriptors, 4 N D bytes an image, for the next call with the same
            images, settings and weights. An interrupted call is taken up at its last part of 256 images. A
            part that is damaged is computed again, and a line on stderr says so. The first image is described
            again at each call; where it no longer agrees, the rest is not trusted.

    Returns:
        ``(n, N, D)`` float32.

    Raises:
        ValueError: there are no images, or a descriptor is NaN or infinite (the image is named).
        OSError: a file of the cache cannot be read or written.

    Example:
        >>> from retrieval_geometry.datasets import photo_textures
        >>> from retrieval_geometry.features import load_backbone
        >>> few = photo_textures().subset([0, 1])
        >>> extract_descriptors(few, load_backbone("scattering"), progress=False).shape
        torch.Size([2, 144, 87])
    """
    check_count(batch_size, "batch_size")
    check_kind(images, "images", ImageSet)
    check_kind(backbone, "backbone", Backbone)
    if len(images) == 0:
        raise ValueError(f"images is empty: {images.name} holds no image to describe")
    was_training = backbone.training
    backbone.eval()
    try:
        first = _describe(images, range(1), backbone)[0]
        folder = None if cache is None else check_path(cache, "cache") / cache_key(images, backbone)
        result = first.new_empty(len(images), *first.shape)
        name = printable(f"{backbone.name}: {images.name}")
        with tqdm(total=len(images), desc=name, unit="image", disable=None if progress else True) as bar:
            for start in range(0, len(images), PART):
                part = result[start : start + PART]
                file = None if folder is None else folder / f"part-{start // PART:05d}.safetensors"
                if file is None or not _read_part(file, part, first):
                    _fill_part(part, start, images, backbone, batch_size, bar)
                    if file is not None:
                        _write_part(file, part, first)
                else:
                    bar.update(len(part))
        return result
    finally:
        backbone.train(was_training)


def l2_normalize(descriptors: Tensor) -> Tensor:
    """Descriptors ``(..., D)`` scaled to length one; a descriptor of zeros stays as it is.

    Source: this package's own. Used in chapter 4.

    Args:
        descriptors: ``(..., D)``, float32 or float64.

    Raises:
        ValueError: no tensor of float32 or float64, or no dimension.

    Example:
        >>> l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).round(decimals=3)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    # The largest entry first: the squares of tiny or huge entries leave the range of float32.
    check_floating(descriptors, "descriptors")
    if not descriptors.ndim or not descriptors.shape[-1]:
        raise ValueError(f"descriptors must have a dimension, got shape {tuple(descriptors.shape)}")
    largest = descriptors.abs().amax(dim=-1, keepdim=True)
    scaled = descriptors / torch.where(largest > 0, largest, 1)
    length = scaled.norm(dim=-1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1)


def cache_key(images: ImageSet, backbone: Backbone) -> str:
    """Hash of everything that determines the descriptors: content and order of images, settings, weights."""
    weights = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    parts = [images.sha256, images.ids, backbone.identity, weights.hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe(images: ImageSet, indices: range, backbone: Backbone) -> Tensor:
    """Describe the images at ``indices``: ``(len(indices), N, D)`` float32 in main memory."""
    batch = torch.stack([backbone.prepare(images.load(i)) for i in indices])
    with torch.inference_mode():
        descriptors = backbone(batch.to(backbone.device, backbone.dtype)).float().cpu()
    finite = descriptors.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        name = images.ids[indices[int((~finite).nonzero()[0])]]
        raise ValueError(
            f"{backbone.name} gives image {name!r} of {images.name} a NaN or infinite descriptor; "
            "check the weights, or leave the image out with images.subset"
        )
    return descriptors


def _fill_part(
    part: Tensor, start: int, images: ImageSet, backbone: Backbone, batch_size: int, bar: tqdm
) -> None:
    for offset in range(0, len(part), batch_size):
        stop = min(offset + batch_size, len(part))
        part[offset:stop] = _describe(images, range(start + offset, start + stop), backbone)
        bar.update(stop - offset)


def _read_part(file: Path, part: Tensor, first: Tensor) -> bool:
    """Fill ``part`` from the cache; False where the file is absent, damaged, or no longer agrees."""
    content = DESCRIPTORS.recover(file, _about(file))
    if content is None:
        return False
    stored = load(content)
    descriptors, witness = stored["descriptors"], stored["first"]
    if descriptors.shape != part.shape or witness.shape != first.shape:
        return False
    # Other batch sizes and thread counts round differently; another network is far off.
    if (witness - first).norm() > 1e-4 * first.norm():
        return False
    part.copy_(descriptors)
    return True


def _write_part(file: Path, part: Tensor, first: Tensor) -> None:
    """Write a part so that a reader finds all of it or nothing, even beside another writer."""
    content = save({"descriptors": part.contiguous(), "first": first.contiguous()})
    DESCRIPTORS.write(file, content, _about(file))


def _about(file: Path) -> str:
    """The name of a part, sealed with it: a file that was put in the place of another one is not used."""
    return f"{file.parent.name}/{file.name}"
