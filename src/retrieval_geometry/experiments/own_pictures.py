"""The paper's system on anybody's pictures: rank a folder by the distance from a query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import ImageError, check_choice, check_device
from retrieval_geometry.datasets import ImageSet, load_image_folder
from retrieval_geometry.datasets.folders import image_set_from, read_file
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
    """The nearest images (name, distance), and what was left out or changed on the way."""

    nearest: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


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

    Files that are no image are left out and named in the notes; so is the query's own file, if it lies in the
    folder. ``plot`` is a file to draw the query and the found pictures into.

    Raises:
        FileNotFoundError: no such query, folder or weight file.
        ValueError: the query is no image, the folder holds none, an unknown name, or a distance that does not
            fit the model.
    """
    _check_choices(model, distance, plot)
    network = load_backbone(backbone, layer=layer, weights=weights, device=check_device(device))
    asked = load_query(query)
    searched, notes = load_pictures(folder, query)
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
    if plot is not None:
        _draw(asked, searched, values, order, distance, plot)
    return Found(tuple((searched.ids[i], float(values[i])) for i in order), tuple(notes))


def load_query(query: Path) -> ImageSet:
    """The query as a set of one image."""
    if not query.is_file():
        raise FileNotFoundError(f"QUERY must be an image file, but there is no file {query}")
    try:
        return image_set_from("query", query, [query.name], partial(read_file, query.parent))
    except ValueError as error:
        raise ValueError(f"QUERY must be an image: {error}") from None


def load_pictures(folder: Path, query: Path) -> tuple[ImageSet, list[str]]:
    """All images at any depth of a folder but the query itself, and a note for each file left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"FOLDER must be a folder of images, but there is no folder {folder}")
    images = load_image_folder(folder)
    readers = dict.fromkeys(images.ids, images.read)
    notes = []
    for file in images.skipped:  # images beside class folders are skipped too, but here no class matters
        try:
            single = image_set_from(file.path, folder, [file.path], partial(read_file, folder))
            readers[single.ids[0]] = single.read
        except ValueError:
            notes.append(f"skipped {file.path}: {file.reason}")
    own = [name for name in readers if _is_file(query, folder, name)]
    notes += [f"skipped {name}: it is the query" for name in own]
    ids = tuple(sorted(readers.keys() - set(own)))
    if not ids:
        raise ValueError(f"{folder} holds no image besides the query")
    labels = torch.zeros(len(ids), dtype=torch.int64)
    merged = ImageSet(images.name, labels, ("",), ids, images.sha256, lambda name: readers[name](name))
    return merged, notes


def _is_file(query: Path, folder: Path, name: str) -> bool:
    """Whether the image called ``name`` (a path whose first folders may be left out) is the query's file."""
    if not query.resolve().is_relative_to(folder.resolve()):
        return False
    below = query.resolve().relative_to(folder.resolve()).as_posix()
    return below == name or below.endswith("/" + name)


def _check_choices(model: str, distance: str, plot: Path | None) -> None:
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


def _draw(
    asked: ImageSet, searched: ImageSet, values: Tensor, order: Sequence[int], distance: str, plot: Path
) -> None:
    from retrieval_geometry.reporting.gallery import Neighbour, neighbour_rows, pixels

    def short(name: str) -> str:
        name = name.rsplit("/", 1)[-1]
        return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"

    found = [
        Neighbour(pixels(searched.load(i)), f"{short(searched.ids[i])}\n{float(values[i]):.3g}")
        for i in order
    ]
    query = Neighbour(pixels(asked.load(0)), short(asked.ids[0]))
    neighbour_rows(query, {distance: found}).savefig(plot, dpi=150)
