"""Bad inputs, each with its call: the table of answers in the book, and its test, run them all."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from retrieval_geometry import coresets, distances, evaluation
from retrieval_geometry.datasets import MPerClassBatches, load_image_folder, query_database_split
from retrieval_geometry.distances import GalleryIndex
from retrieval_geometry.experiments.profiles import check_profile
from retrieval_geometry.experiments.registry import find
from retrieval_geometry.features import Scattering, load_backbone
from retrieval_geometry.image_models import Gaussian, GaussianMixture, fit_gaussian, fit_mixture, fit_smt
from retrieval_geometry.losses import RankMILoss, WassersteinTripletLoss, baseline_loss
from retrieval_geometry.reporting import Result
from retrieval_geometry.training import TrainingConfig

Cases = dict[str, Callable[[], object]]


def answer(call: Callable[[], object]) -> str:
    """The kind of the refusal and its message; folders that are made for the occasion are called FOLDER.

    Raises:
        RuntimeError: it was no refusal: the call returned.
    """
    try:
        found = call()
    except (ValueError, TypeError, OSError) as error:
        # The base class: a reader needs to catch it, not our subclass.
        kind = next(kind for kind in (ValueError, TypeError, OSError) if isinstance(error, kind))
        return f"{kind.__name__}: {error}"
    raise RuntimeError(f"there was no refusal, but {found!r}")


def answers() -> dict[str, dict[str, str]]:
    """For each part of the package its bad inputs and their answers."""
    return {part: {title: answer(call) for title, call in cases.items()} for part, cases in PARTS.items()}


def _x(*shape: int) -> Tensor:
    return torch.rand(*(shape or (2, 8, 3)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _with(value: float) -> Tensor:
    x = _x()
    x[1, 2, 0] = value
    return x


def _gaussian(*variances: float, mean: float = 1.0, dtype: torch.dtype = torch.float64) -> Gaussian:
    """Two images with these variances."""
    cov = torch.diag(torch.tensor(variances, dtype=dtype)).repeat(2, 1, 1)
    return Gaussian(torch.full((2, len(variances)), mean, dtype=dtype), cov)


def _mixture(weight: float = 0.5, variance: float = 1.0) -> GaussianMixture:
    ones = torch.ones(2, 2, 3, dtype=torch.float64)
    return GaussianMixture(torch.full((2, 2), weight, dtype=torch.float64), ones, variance * ones)


GOOD = _gaussian(1.0, 2.0)
CORRELATED = torch.tensor([[1.0, 1 - 1e-14], [1 - 1e-14, 1.0]], dtype=torch.float64).repeat(2, 1, 1)
SKEW = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64).repeat(2, 1, 1)
FACTOR = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
LABELS = torch.tensor([0, 0, 1, 1])

MODELS: Cases = {
    "a NaN among the descriptors": lambda: fit_gaussian(_with(torch.nan)),
    "an infinite descriptor": lambda: fit_mixture(_with(torch.inf), 2),
    "descriptors of one image, without the axis of images": lambda: fit_gaussian(_x(8, 3)),
    "images without a descriptor": lambda: fit_gaussian(_x(2, 0, 3)),
    "descriptors in half precision": lambda: fit_gaussian(_x().half()),
    "whole numbers for descriptors": lambda: fit_gaussian(torch.ones(2, 8, 3, dtype=torch.int64)),
    "a sparse tensor": lambda: fit_gaussian(_x().to_sparse()),
    "a tensor that holds no numbers": lambda: fit_gaussian(_x().to("meta")),
    "a shrinkage above 1": lambda: fit_gaussian(_x(), shrinkage=1.5),
    "a shrinkage for each of three images, where there are two": lambda: fit_gaussian(_x(), [0.1] * 3),
    "descriptors that differ by 1e-100": lambda: fit_gaussian(1e-100 * _x()),
    "an image of one colour": lambda: fit_mixture(torch.ones(2, 8, 3), 2),
    "more components than descriptors": lambda: fit_mixture(_x(), 9),
    "a seed where a generator is wanted": lambda: fit_mixture(_x(), 2, generator=0),  # type: ignore[arg-type]
    "an unknown way to choose the order": lambda: fit_smt(_x(), order="best"),  # type: ignore[arg-type]
    "a covariance of another dimension": lambda: Gaussian(torch.zeros(2, 3), torch.zeros(2, 4, 4)),
    "weights that sum to 2": lambda: _mixture(weight=1.0),
    "a negative variance": lambda: _mixture(variance=-1.0),
}
DISTANCES: Cases = {
    "KL of a singular covariance": lambda: distances.kl_divergence(GOOD, _gaussian(1.0, 0.0)),
    "KL of channels that are almost one": lambda: distances.kl_divergence(
        GOOD, Gaussian(GOOD.mean, CORRELATED)
    ),
    "a covariance that is not symmetric": lambda: distances.wasserstein2(GOOD, Gaussian(GOOD.mean, SKEW)),
    "a negative eigenvalue": lambda: distances.wasserstein2(GOOD, _gaussian(1.0, -1.0)),
    "images of other dimensions": lambda: distances.stein_divergence(GOOD, _gaussian(1.0, 1.0, 1.0)),
    "images in two precisions": lambda: distances.kl_divergence(GOOD, GOOD.to(torch.float32)),
    "a mixture for a Gaussian": lambda: distances.wasserstein2(_mixture(), GOOD),  # type: ignore[arg-type]
    "means of 1e200": lambda: distances.wasserstein2(GOOD, _gaussian(1.0, 1.0, mean=1e200)),
    "images whose variances have a ratio of 1e12 and of 1e-12": lambda: distances.affine_invariant_distance(
        _gaussian(1e12, 1.0), _gaussian(1.0, 1e12)
    ),
    "cosine of a mean that is zero": lambda: distances.cosine_mean_distance(
        GOOD, _gaussian(1.0, 1.0, mean=0.0)
    ),
    "a divergence beyond float32": lambda: distances.kl_divergence(
        _gaussian(1e30, dtype=torch.float32), _gaussian(1e-30, dtype=torch.float32)
    ),
    "a squared distance below float32": lambda: distances.wasserstein2_squared(
        _gaussian(0.0, mean=1e-23, dtype=torch.float32), _gaussian(0.0, mean=2e-23, dtype=torch.float32)
    ),
    "the factor of another covariance": lambda: distances.wasserstein2(
        GOOD, Gaussian(GOOD.mean, GOOD.cov, FACTOR)
    ),
    "a factor with an infinite entry": lambda: distances.wasserstein2(
        GOOD, Gaussian(GOOD.mean, GOOD.cov, FACTOR / 0.0)
    ),
    "a distance that there is not": lambda: distances.pairwise("wasserstein", GOOD, GOOD),
    "a power of 3": lambda: distances.sinkhorn_divergence(_x(), _x(), p=3),
    "a regularisation of 0": lambda: distances.sinkhorn_divergence(_x(), _x(), epsilon=0.0),
    "a regularisation that the costs drown": lambda: distances.sinkhorn_divergence(1e13 * _x(), -1e13 * _x()),
    "masses that sum to 4": lambda: distances.sinkhorn_divergence(
        _x(), _x(), a=torch.full((8,), 0.5).double()
    ),
    "sets of different sizes, matched one to one": lambda: distances.exact_transport_cost(_x(), _x(2, 7, 3)),
}
RANKING: Cases = {
    "more neighbours than images": lambda: distances.rank(GOOD, GOOD, k=3),
    "half a neighbour": lambda: distances.rank(GOOD, GOOD, k=0.5),  # type: ignore[arg-type]
    "an index for a distance without bounds": lambda: GalleryIndex(GOOD, "kl"),
    "an image removed that is not there": lambda: GalleryIndex(GOOD).remove([2]),
    "precision at 0 neighbours": lambda: evaluation.precision_at_k(LABELS[None], LABELS[:1], 0),
    "an unknown convention of average precision": lambda: evaluation.average_precision(
        LABELS[None], LABELS[:1], convention="mean"
    ),
    "an interval of no values": lambda: evaluation.bootstrap_interval([]),
    "a confidence of 95": lambda: evaluation.bootstrap_interval([0.0, 1.0], confidence=95),
    "clusters of other images than the classes": lambda: evaluation.normalized_mutual_information(
        [0, 0, 1], [0, 1]
    ),
}
LEARNING: Cases = {
    "an embedding that is zero": lambda: RankMILoss()(torch.zeros(4, 3), LABELS),
    "labels that are no whole numbers": lambda: RankMILoss()(_x(4, 3), LABELS + 0.5),
    "three labels for four images": lambda: WassersteinTripletLoss()(_x(4, 5, 3), LABELS[:3]),
    "a negative margin": lambda: WassersteinTripletLoss(margin=-1),
    "an unknown loss": lambda: baseline_loss("tripplet"),
    "a proxy loss without the number of classes": lambda: baseline_loss("proxynca"),
    "a coreset larger than the set": lambda: coresets.facility_location(_x(4, 4), 5),
    "a batch of one class": lambda: MPerClassBatches(LABELS, batch_size=2, per_class=2),
    "queries of classes with too few images": lambda: query_database_split(LABELS, per_class=2),
    "an unknown optimiser": lambda: TrainingConfig(steps=3, optimizer="adamax"),
    "a learning rate of 0": lambda: TrainingConfig(steps=3, lr=0.0),
    "pixels from 0 to 255": lambda: Scattering(input_size=32)(255 * torch.ones(1, 3, 32, 32)),
    "an unknown network": lambda: load_backbone("resnet19"),
    "an unknown profile": lambda: check_profile("fast"),
    "an unknown experiment": lambda: find("geometric-table2"),
}


def _in_a_folder(use: Callable[[Path], object]) -> Callable[[], object]:
    """Something that needs a folder for a moment; its name is taken out of the message."""

    def call() -> object:
        with TemporaryDirectory() as folder:
            try:
                return use(Path(folder))
            except (ValueError, OSError) as error:
                kind = ValueError if isinstance(error, ValueError) else OSError
                # The folder has another name in every run; the page and its test have one answer.
                raise kind(re.sub(re.escape(folder), "FOLDER", str(error))) from None

    return call


def _file(content: str | bytes, name: str, read: Callable[[Path], object]) -> Callable[[], object]:
    """A file with this content, read."""

    def use(folder: Path) -> object:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return read(folder / name)

    return _in_a_folder(use)


def _damaged_index(folder: Path) -> object:
    GalleryIndex(GOOD).save(folder / "gallery.index")
    content = bytearray((folder / "gallery.index").read_bytes())
    # The least damage that a disk can do.
    content[-1] ^= 1
    (folder / "gallery.index").write_bytes(content)
    return GalleryIndex.load(folder / "gallery.index")


FILES: Cases = {
    "an index with one bit flipped": _in_a_folder(_damaged_index),
    "an index that is not there": _in_a_folder(lambda folder: GalleryIndex.load(folder / "gallery.index")),
    "an index that is a text": _file("a text", "gallery.index", GalleryIndex.load),
    "a folder of images that is not there": _in_a_folder(lambda folder: load_image_folder(folder / "photos")),
    "a folder without an image": _in_a_folder(load_image_folder),
    "a result cut off in the middle": _file('{"experiment": "geom', "r.json", Result.read),
    "a result of an older version": _file('{"schema": 1}', "r.json", Result.read),
    "a result without its data set": _file('{"schema": 2}', "r.json", Result.read),
}

PARTS: dict[str, Cases] = {
    "Images as distributions": MODELS,
    "Distances": DISTANCES,
    "Ranking and measures": RANKING,
    "Learning and settings": LEARNING,
    "Files": FILES,
}
"""The bad inputs by the part of the package that meets them."""
