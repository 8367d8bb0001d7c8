"""The paper's system on anybody's pictures: rank a folder by the distance from a query."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import ImageError, check_choice, check_device
from retrieval_geometry._files import replacing
from retrieval_geometry._text import printable
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.datasets.folders import image_set_from, is_junk, read_file, walk
from retrieval_geometry.distances import DISTANCES, pairwise
from retrieval_geometry.features import extract_descriptors, load_backbone
from retrieval_geometry.image_models import fit_gaussian, fit_mixture, smt_covariance

MODELS = ("gaussian", "mixture", "smt")
FOR_MIXTURES = ("variational_kl", "symmetric_variational_kl", "mixture_wasserstein2_squared")
NEED_FULL_RANK = ("kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean")
SHRINKAGE = 0.1
COMPONENTS = 64
PLOT_FORMATS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
CHUNK = 128
"""Images whose models are in memory at once."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        nearest: name (its path below the folder) and distance of each picture, the nearest first.
        notes: what was left out or changed on the way.
        query: the query, a set of one.
        pictures: those that were found, in their order.
    """

    nearest: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]
    query: ImageSet
    pictures: ImageSet


def rank_pictures(
    query: Path,
    folder: Path,
    model: str = "gaussian",
    distance: str = "wasserstein2",
    backbone: str = "scattering",
    layer: str | None = None,
    weights: str | None = None,
    k: int = 10,
    device: str = "cpu",
    plot: Path | None = None,
) -> Found:
    """The ``k`` pictures of a folder nearest to a query picture, by a distance between models of descriptors.

    Files that are no image are left out and named in the notes; so are the query's own file, wherever it lies
    in the folder, second names of one file (links), and ``plot``, the file that :func:`draw` will write.

    Raises:
        FileNotFoundError: no such query, folder or weight file.
        ValueError: the query is no image, the folder holds none, an unknown name, or a distance that does not
            fit the model.
    """
    _check_choices(model, distance, query, plot)
    network = load_backbone(backbone, layer=layer, weights=weights, device=check_device(device))
    asked = load_query(query)
    searched, notes = load_pictures(folder, query, plot)
    x, y = (extract_descriptors(images, network) for images in (asked, searched))
    if model != "gaussian" or distance in NEED_FULL_RANK:
        searched, y, flat = _without_flat(asked, x, searched, y)
        notes += flat
    if model == "gaussian" and distance in NEED_FULL_RANK:
        notes.append(f"note: covariances are shrunk by {SHRINKAGE} towards a multiple of the identity")
    # In double precision, in which nearly flat images still have positive definite covariances.
    x, y = (points.to(device, torch.float64) for points in (x, y))
    chunks = range(0, len(searched), CHUNK)
    parts = [_distances(x, y[i : i + CHUNK], model, distance, asked.ids, searched.ids[i:]) for i in chunks]
    values = torch.cat(parts)
    order = values.argsort(stable=True)[:k].tolist()
    nearest = tuple((searched.ids[i], float(values[i])) for i in order)
    return Found(nearest, tuple(notes), asked, searched.subset(order))


def load_query(query: Path) -> ImageSet:
    """The query as a set of one image."""
    if not query.is_file():
        raise FileNotFoundError(f"QUERY must be an image file, but there is no file {query}")
    try:
        return image_set_from("query", query, [query.name], partial(read_file, query.parent))
    except ValueError as error:
        raise ValueError(f"QUERY must be an image: {error}") from None


def load_pictures(folder: Path, query: Path, plot: Path | None = None) -> tuple[ImageSet, list[str]]:
    """All images at any depth of a folder but the query itself, and a note for each file left out.

    A picture is the file that its path leads to: the query, or a picture met before, under another name is
    left out, and another file with the query's name is not. An id is the path below the folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"FOLDER must be a folder of images, but there is no folder {folder}")
    met = {} if plot is None else {os.path.realpath(plot): "it is the picture to be written"}
    met[os.path.realpath(query)] = "it is the query"
    names, own = [], []
    for name in sorted(name for name in walk(folder) if not is_junk(name)):
        real = os.path.realpath(folder / name)
        if real in met:
            own.append(f"skipped {name}: {met[real]}")
        else:
            met[real] = f"it is the same file as {name}"
            names.append(name)
    if own and not names:
        raise ValueError(f"{folder} holds no image besides the query")
    images = image_set_from(folder.name, folder, names, partial(read_file, folder), classes=False)
    return images, [f"skipped {file.path}: {file.reason}" for file in images.skipped] + own


def _check_choices(model: str, distance: str, query: Path, plot: Path | None) -> None:
    check_choice(model, "model", MODELS)
    known = [name for name in DISTANCES if name != "sinkhorn"]
    check_choice(distance, "distance", known)
    if distance in FOR_MIXTURES and model != "mixture":
        raise ValueError(f"distance {distance!r} compares mixtures: use it with --model mixture")
    if plot is None:
        return
    if plot.suffix.lower() not in PLOT_FORMATS:
        raise ValueError(f"--plot must end in one of {', '.join(PLOT_FORMATS)}; got {plot.name!r}")
    if not plot.resolve().parent.is_dir():
        raise FileNotFoundError(f"--plot {plot}: there is no folder {plot.parent}")
    if os.path.realpath(plot) == os.path.realpath(query):
        raise ValueError(f"--plot {plot} is the query, which it would overwrite; give another file")


def _without_flat(
    asked: ImageSet, x: Tensor, searched: ImageSet, y: Tensor
) -> tuple[ImageSet, Tensor, list[str]]:
    """Leave out images whose descriptors are all alike: their covariance is zero."""
    if bool(_is_flat(x)[0]):
        raise ValueError(
            f"QUERY {asked.ids[0]} is constant, so its covariance is zero: use --model gaussian with "
            "--distance wasserstein2, euclidean_mean or cosine_mean"
        )
    flat = _is_flat(y)
    notes = [f"skipped {searched.ids[i]}: it is constant" for i in flat.nonzero()[:, 0].tolist()]
    kept = (~flat).nonzero()[:, 0]
    if not len(kept):
        raise ValueError(f"every image of {searched.name} is constant: there is nothing to rank")
    return searched.subset(kept), y[kept], notes


def _is_flat(x: Tensor) -> Tensor:
    spread = (x - x.mean(dim=1, keepdim=True)).flatten(1).norm(dim=1)
    return spread <= 1e-5 * x.flatten(1).norm(dim=1)


def _distances(
    x: Tensor, y: Tensor, model: str, distance: str, asked: Sequence[str], searched: Sequence[str]
) -> Tensor:
    """Distances ``(n,)`` of some images from the query; an error names the file."""
    p = _with_names(asked, lambda: _fit(x, model, distance))
    q = _with_names(searched, lambda: _fit(y, model, distance))
    try:
        return pairwise(distance, p, q)[0].cpu()
    except ImageError as error:
        raise error.called((asked if error.side == "p" else searched)[error.image]) from None


def _with_names(names: Sequence[str], fit: Callable[[], Any]) -> Any:
    try:
        return fit()
    except ImageError as error:
        raise error.called(names[error.image]) from None


def _fit(x: Tensor, model: str, distance: str) -> Any:
    if model == "smt":
        return smt_covariance(x)
    if model == "mixture":
        mixture = fit_mixture(x, min(COMPONENTS, x.shape[1]))
        return mixture if distance in FOR_MIXTURES else mixture.collapse()
    return fit_gaussian(x, shrinkage=SHRINKAGE if distance in NEED_FULL_RANK else 0.0)


def draw(found: Found, distance: str, plot: Path) -> None:
    """Draw the query and the found pictures into a file.

    Raises:
        OSError: the file cannot be written.
    """
    from retrieval_geometry.reporting.gallery import Neighbour, neighbour_rows, pixels

    names = [_cut(printable(name)) for name in shortest_endings(found.pictures.ids)]
    row = [
        Neighbour(pixels(found.pictures.load(i)), f"{name}\n{found.nearest[i][1]:.3g}")
        for i, name in enumerate(names)
    ]
    query = Neighbour(pixels(found.query.load(0)), _cut(printable(found.query.ids[0])))
    figure = neighbour_rows(query, {distance: row})
    with replacing(plot) as file:
        figure.savefig(file, dpi=150, format=plot.suffix[1:].lower())


def shortest_endings(paths: Sequence[str]) -> list[str]:
    """As much of the end of each path as tells it from the others, in whole parts.

    >>> shortest_endings(["2019/sea/a.png", "2020/sea/a.png", "2020/b.png"])
    ['2019/sea/a.png', '2020/sea/a.png', 'b.png']
    """
    parts = [path.split("/") for path in paths]
    endings = Counter("/".join(part[-n:]) for part in parts for n in range(1, len(part) + 1))
    return [
        next((end for n in range(1, len(part)) if endings[end := "/".join(part[-n:])] == 1), "/".join(part))
        for part in parts
    ]


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"
