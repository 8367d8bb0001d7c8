"""A database that is searched again and again: what the bounds need of it is computed once, and can be saved.

The file is a safetensors file: tensors, and a header with the format, its version and a SHA-256 over all that
the file says. Nothing in it is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count, check_dense
from retrieval_geometry._files import write_whole
from retrieval_geometry.distances._blocks import join, take
from retrieval_geometry.distances._gaussians import check_gaussians
from retrieval_geometry.distances.search._bounds import Bounds, store, stored_bounds
from retrieval_geometry.distances.search._multi_step import Ranking, few_images
from retrieval_geometry.distances.search._rank import PRUNED, detached, rank, rank_by_bounds
from retrieval_geometry.image_models import Gaussian

FORMAT = "retrieval_geometry.GalleryIndex"
VERSION = 2
"""Raised whenever a file of the former version would be misread."""

REMEDY = "build the index again from the images and save it"


class GalleryIndex:
    """A database with what the lower bounds of one distance need of it, for :meth:`rank` at any time.

    :func:`~retrieval_geometry.distances.rank` computes the same on its way and forgets it. Use the index
    where queries come one by one, or where the database outlives the program; the results are the same, bit
    by bit.

    Besides the images it keeps ``2 D + 5`` numbers an image for the 2-Wasserstein distance, and half a matrix
    in float32 for the affine-invariant distance. The common frame of the bounds is that of the first images;
    images may be added and removed, but should they all change, a new index has better bounds. The scales at
    which bounds rule images out are those of :func:`~retrieval_geometry.distances.rank`; at others every
    image is compared.

    Args:
        database: Q images, at least one; they are checked here and not copied.
        distance: "wasserstein2", "wasserstein2_squared" or "affine_invariant".

    Raises:
        ValueError: a distance that is not ranked by bounds, no image, or an image that the distance refuses
            (it is named).

    Example:
        >>> g = Gaussian(torch.tensor([[0.0], [5.0], [1.0]]), torch.ones(3, 1, 1))
        >>> index = GalleryIndex(g)
        >>> index.rank(g[:1], k=2).indices
        tensor([[0, 2]])
        >>> index.remove([0])
        >>> index.rank(g[:1], k=2).indices, len(index)
        (tensor([[1, 0]]), 2)
    """

    @torch.no_grad()
    def __init__(self, database: Gaussian, distance: str = "wasserstein2") -> None:
        self._distance = check_choice(distance, "distance", PRUNED)
        check_gaussians(database, database)
        if not len(database):
            raise ValueError("database must hold at least one image, got none")
        self._images = detached(database)
        self._bound = PRUNED[distance].bound.build(self._images)
        self._stored = store(self._bound, self._images)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def images(self) -> Gaussian:
        """The Q images, in the order that the indices of a ranking refer to."""
        return self._images

    @property
    def distance(self) -> str:
        """The distance by which the index ranks."""
        return self._distance

    @torch.no_grad()
    def rank(self, queries: Gaussian, k: int = 10) -> Ranking:
        """The k nearest images for every query: what ``rank(queries, index.images, distance, k)`` returns.

        Args:
            queries: P images of the dimension, dtype and device of the database.
            k: neighbours wanted, at most Q.

        Returns:
            ``(distances, indices)``, each ``(P, k)``, with the attribute ``evaluated`` ``(P,)``.

        Raises:
            ValueError: a k that is no count up to Q, or queries that the distance refuses.
        """
        check_count(k, "k", at_most=len(self))
        check_gaussians(queries, self._images)
        queries = detached(queries)
        if len(self) <= few_images(k):
            return rank(queries, self._images, self._distance, k)

        def lower_bounds(some: Gaussian, first: int) -> Bounds:
            return stored_bounds(self._bound, some, self._images, self._stored, first)

        return rank_by_bounds(queries, self._images, self._distance, k, lower_bounds)

    @torch.no_grad()
    def add(self, images: Gaussian) -> None:
        """Append images: the first gets the index ``len(index)``.

        Raises:
            ValueError: another dimension, dtype or device, factors of another shape than those of the
                database, or an image that the distance refuses. The index is then as it was.
        """
        check_gaussians(images, self._images)
        if _rank_of_factor(images) != _rank_of_factor(self._images):
            raise ValueError(
                f"images must carry {_rank_of_factor(self._images)} as the database does, got "
                f"{_rank_of_factor(images)}; build an index of all images whose factors are alike"
            )
        if not len(images):
            return
        images = detached(images)
        both = [self._stored, store(self._bound, images)]
        self._stored = join(iter(both), len(self) + len(images))
        self._images = _concatenated(self._images, images)

    @torch.no_grad()
    def remove(self, indices: int | Sequence[int] | Tensor) -> None:
        """Take images out; the others close up and keep their order.

        Args:
            indices: positions from 0 to Q - 1; one that is named twice is removed once.

        Raises:
            ValueError: an index that is no whole number or outside the database. The index is then as it was.
        """
        try:
            gone = torch.as_tensor(indices).flatten()
        except (TypeError, ValueError, RuntimeError):  # None, a word, a ragged list
            raise ValueError(f"indices must be whole numbers, got {indices!r}") from None
        check_dense(gone, "indices")
        if gone.numel() and (gone.is_floating_point() or gone.is_complex() or gone.dtype == torch.bool):
            raise ValueError(f"indices must be whole numbers, got {gone.dtype}")
        gone = gone.long()
        outside = gone[(gone < 0) | (gone >= len(self))]
        if len(outside):
            raise ValueError(f"indices must lie from 0 to {len(self) - 1}, got {int(outside[0])}")
        stays = torch.ones(len(self), dtype=torch.bool)
        stays[gone.cpu()] = False
        left = stays.nonzero().flatten().to(self._images.device)
        self._images, self._stored = self._images[left], take(self._stored, left)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index, images included, as a safetensors file, whole or not at all.

        Args:
            path: of the file; one that is there is replaced, folders are made.

        Raises:
            OSError: it cannot be written (a full disk, ...); the file that was there is as it was.
        """
        content = {name: tensor.cpu().contiguous() for name, tensor in self._tensors().items()}
        header = {"format": FORMAT, "version": str(VERSION), "distance": self._distance}
        header["sha256"] = _checksum(header, content)
        write_whole(path, save(content, header))

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> "GalleryIndex":
        """Read an index that :meth:`save` wrote.

        Args:
            path: of the file.
            device: where the images shall lie, whatever device they were saved from.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no index, one of another version of the format, or damaged. It is named,
                and so is the remedy.
        """
        path = Path(path)
        header, content = _read(path)
        index = cls.__new__(cls)
        index._distance = header["distance"]
        bound = PRUNED[index._distance].bound
        content = {name: tensor.to(device) for name, tensor in content.items()}
        index._images = Gaussian(content["images.mean"], content["images.cov"], content.get("images.factor"))
        index._bound = bound(bound.Frame(*(content[f"frame.{name}"] for name in bound.Frame._fields)))
        index._stored = bound.Stored(*(content[_name_in_file(name)] for name in bound.Stored._fields))
        return index

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the index, by name."""
        images = {"mean": self._images.mean, "cov": self._images.cov, "factor": self._images.factor}
        parts: dict[str, dict[str, Any]] = {
            "images": {name: tensor for name, tensor in images.items() if tensor is not None},
            "frame": self._bound.frame._asdict(),
        }
        content = {
            f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()
        }
        return content | {_name_in_file(name): tensor for name, tensor in self._stored._asdict().items()}


def _name_in_file(stored: str) -> str:
    """The name that version 2 of the format gives to a tensor that is stored of the images."""
    return "kept.lift" if stored == "padding" else f"kept.{stored}"


def _rank_of_factor(g: Gaussian) -> str:
    return "no factor" if g.factor is None else f"a factor with {g.factor.shape[2]} columns"


def _concatenated(a: Gaussian, b: Gaussian) -> Gaussian:
    factor = None
    if a.factor is not None and b.factor is not None:
        factor = torch.cat([a.factor, b.factor])
    return Gaussian(torch.cat([a.mean, b.mean]), torch.cat([a.cov, b.cov]), factor)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a file, with every check passed."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no index {path}; {REMEDY} there")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            _check_header(header, path)
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no index, or a damaged one ({error}): {REMEDY}") from None
    if header.pop("sha256", None) != _checksum(header, content):
        raise ValueError(f"{path} is damaged: its content does not have the checksum in its header; {REMEDY}")
    return header, content


def _check_header(header: dict[str, str], path: Path) -> None:
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is no index but another safetensors file: {REMEDY}")
    if header.get("version") != str(VERSION):
        raise ValueError(
            f"{path} has version {header.get('version')} of the format, this package reads {VERSION}: "
            f"{REMEDY}"
        )
    try:
        check_choice(header.get("distance", ""), f"the distance of {path}", PRUNED)
    except ValueError as error:
        raise ValueError(f"{error}: {REMEDY}") from None


def _checksum(header: dict[str, str], content: dict[str, Tensor]) -> str:
    """SHA-256 over the header and, by name, the dtypes, shapes and bytes of all tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(content):
        tensor = content[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
