"""The losses that others are compared with: those of pytorch-metric-learning, with stated settings.

Settings follow Roth et al. (2020) and their published code where they have the loss, otherwise its own paper.
Ours are only the sampling of negatives (:class:`RowDistanceWeightedMiner`), the bounded cosine, which keeps
the histogram loss from reading past its last bin, and a faster way to the values of two losses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor, nn

from retrieval_geometry._check import check_choice, check_count, check_flag, check_number, check_seed
from retrieval_geometry._seeded import seeded
from retrieval_geometry._tolerances import COSINE_EDGE
from retrieval_geometry.losses._batch import check_batch, check_directions
from retrieval_geometry.losses._faster import HistogramLoss, LiftedStructureLoss
from retrieval_geometry.losses.sampling import RowDistanceWeightedMiner

ROTH = "Roth et al. 2020"


class BoundedCosine(distances.CosineSimilarity):
    """Cosines kept inside [-1, 1] for :class:`HistogramLoss`."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Cosines ``(P, Q)``."""
        return super().compute_mat(query_emb, ref_emb).clamp(COSINE_EDGE - 1, 1 - COSINE_EDGE)


def _sphere(power: int = 1) -> dict[str, Any]:
    return {"distance": distances.LpDistance(power=power)}


def _mean_on_sphere() -> dict[str, Any]:
    return {"distance": distances.LpDistance(), "reducer": reducers.MeanReducer()}


def _free(distance: Callable[..., Any]) -> dict[str, Any]:
    """Parts for embeddings that are not normalised: a penalty on their lengths keeps them short."""
    return {
        "distance": distance(normalize_embeddings=False),
        "embedding_regularizer": regularizers.LpRegularizer(),
        "embedding_reg_weight": 0.005,
    }


@dataclass(frozen=True)
class Baseline:
    """A loss of pytorch-metric-learning with its distance, settings and miner. Used in chapter 10.

    Attributes:
        title: as tables call it.
        loss: the class of pytorch-metric-learning.
        parts: makes its distance, reducer and regulariser.
        distance: the distance, in words.
        settings: hyper-parameters of the class, under its names.
        tuned: the one that a comparison tunes.
        source: of the settings.
        miner: makes the miner from a seed; None where all pairs of the batch take part.
        mining: the miner, in words.
        normalized: whether embeddings are put on the unit sphere; if not, feed them as they are.
        needs: further arguments of the class, under its names.
        parameter_lr: learning rate of the loss's own parameters (proxies, boundaries), if it has any.
    """

    title: str
    loss: Callable[..., nn.Module]
    parts: Callable[[], dict[str, Any]]
    distance: str
    settings: Mapping[str, float]
    tuned: str
    source: str = ROTH
    miner: Callable[[int], nn.Module] | None = None
    mining: str = "all pairs"
    normalized: bool = True
    needs: tuple[str, ...] = field(default=())
    parameter_lr: float | None = None


DISTANCE_WEIGHTED: dict[str, Any] = {
    "miner": lambda seed: RowDistanceWeightedMiner(seed=seed),
    "mining": "distance-weighted, row maximum",
}
PROXIES: dict[str, Any] = {"needs": ("num_classes", "embedding_size"), "mining": "every proxy"}
COSINE: dict[str, Any] = {
    "parts": lambda: {"distance": distances.CosineSimilarity()},
    "distance": "cosine",
}
EUCLIDEAN = "Euclidean, unit sphere"

BASELINES: dict[str, Baseline] = {
    "contrastive": Baseline(
        "Contrastive",
        losses.ContrastiveLoss,
        _mean_on_sphere,
        EUCLIDEAN,
        {"pos_margin": 0.0, "neg_margin": 1.0},
        "neg_margin",
        **DISTANCE_WEIGHTED,
    ),
    "triplet": Baseline(
        "Triplet",
        losses.TripletMarginLoss,
        _mean_on_sphere,
        EUCLIDEAN,
        {"margin": 0.2},
        "margin",
        **DISTANCE_WEIGHTED,
    ),
    "npair": Baseline(
        "N-pair",
        losses.NPairsLoss,
        lambda: _free(distances.DotProductSimilarity),
        "dot product",
        {"embedding_reg_weight": 0.005},
        "embedding_reg_weight",
        mining="one positive pair of each class",
        normalized=False,
    ),
    "proxynca": Baseline(
        "Proxy-NCA",
        losses.ProxyNCALoss,
        lambda: _sphere(power=2),
        "squared Euclidean, unit sphere",
        {"softmax_scale": 9.0},
        "softmax_scale",
        parameter_lr=5e-4,
        **PROXIES,
    ),
    "lifted": Baseline(
        "Lifted",
        LiftedStructureLoss,
        lambda: _free(distances.LpDistance),
        "Euclidean",
        {"neg_margin": 1.0, "embedding_reg_weight": 0.005},
        "neg_margin",
        source=f"Song et al. 2016, penalty of {ROTH}",
        normalized=False,
    ),
    "genlifted": Baseline(
        "Generalised Lifted",
        losses.GeneralizedLiftedStructureLoss,
        lambda: _free(distances.LpDistance),
        "Euclidean",
        {"neg_margin": 1.0, "embedding_reg_weight": 0.005},
        "neg_margin",
        normalized=False,
    ),
    "histogram": Baseline(
        "Histogram",
        HistogramLoss,
        lambda: {"distance": BoundedCosine()},
        "cosine",
        {"n_bins": 65},
        "n_bins",
    ),
    "margin": Baseline(
        "Margin",
        losses.MarginLoss,
        _sphere,
        EUCLIDEAN,
        {"margin": 0.2, "nu": 0.0, "beta": 1.2, "learn_beta": True},
        "beta",
        needs=("num_classes",),
        parameter_lr=5e-4,
        **DISTANCE_WEIGHTED,
    ),
    "multisimilarity": Baseline(
        "Multi-Similarity",
        losses.MultiSimilarityLoss,
        settings={"alpha": 2.0, "beta": 40.0, "base": 0.5},
        tuned="beta",
        miner=lambda seed: miners.MultiSimilarityMiner(epsilon=0.1),
        mining="multi-similarity, epsilon 0.1",
        **COSINE,
    ),
    "angular": Baseline(
        "Angular",
        losses.AngularLoss,
        _sphere,
        EUCLIDEAN,
        {"alpha": 45.0},
        "alpha",
        source=f"{ROTH}, without their N-pair term",
    ),
    "fastap": Baseline(
        "FastAP",
        losses.FastAPLoss,
        lambda: _sphere(power=2),
        "squared Euclidean, unit sphere",
        {"num_bins": 10},
        "num_bins",
        source="Cakir et al. 2019",
    ),
    "proxyanchor": Baseline(
        "Proxy-Anchor",
        losses.ProxyAnchorLoss,
        settings={"margin": 0.1, "alpha": 32.0},
        tuned="alpha",
        source="Kim et al. 2020",
        parameter_lr=1e-2,
        **COSINE,
        **PROXIES,
    ),
    "supcon": Baseline(
        "SupCon",
        losses.SupConLoss,
        settings={"temperature": 0.1},
        tuned="temperature",
        source="Khosla et al. 2020",
        **COSINE,
    ),
    "arcface": Baseline(
        "ArcFace",
        losses.ArcFaceLoss,
        settings={"margin": 28.65, "scale": 16.0},
        tuned="margin",
        parameter_lr=5e-4,
        **COSINE,
        **PROXIES,
    ),
}
"""Every baseline by name. Derived in chapter 10."""

POSITIVE = ("alpha", "beta", "scale", "softmax_scale", "temperature")
"""Hyper-parameters that must be above 0; those that are no counts or switches must be at least 0."""

LIMITS = {("angular", "alpha"): 89.0, ("arcface", "margin"): 180.0, ("multisimilarity", "base"): 1.0}
"""Largest values: degrees, and a cosine."""


class BaselineLoss(nn.Module):
    """A loss of pytorch-metric-learning with its miner, its inputs checked; see :func:`baseline_loss`.

    Source: Roth et al. 2020, or the paper that ``config.source`` names. Used in chapter 10.

    It takes embeddings ``(B, D)`` and labels ``(B,)`` and gives a scalar.

    Attributes:
        config: its entry of :data:`BASELINES`.
        loss: the loss; its parameters, if any, are trained at ``config.parameter_lr``.
        miner: None where all pairs take part.
        settings: the hyper-parameters and the seed; some are only the start of a parameter.

    Raises:
        ValueError: on call, not a batch of vectors, a NaN, a zero vector where the loss compares directions,
            or a label that is no class of the loss's proxies.
    """

    def __init__(
        self,
        config: Baseline,
        loss: nn.Module,
        miner: nn.Module | None,
        n_classes: int | None,
        settings: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.config, self.loss, self.miner, self.n_classes = config, loss, miner, n_classes
        self.settings = dict(settings)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            embeddings: ``(B, D)``.
            labels: ``(B,)`` whole numbers.

        Raises:
            ValueError: not a batch of vectors, a NaN, a zero vector where the loss compares directions, or a
                label that is no class of the loss's proxies.
        """
        labels = check_batch(embeddings, labels)
        if self.config.normalized:  # the miner, too, measures distances on the sphere
            embeddings = nn.functional.normalize(check_directions(embeddings))
        if self.n_classes is not None and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise ValueError(
                f"labels must lie in 0..{self.n_classes - 1}, one proxy each, got {int(labels.min())} to "
                f"{int(labels.max())}; number the training classes anew"
            )
        # In the library miners choose pairs or triplets, and the loss takes either as its third argument.
        pairs = None if self.miner is None else self.miner(embeddings, labels)
        return self.loss(embeddings, labels, pairs)


def baseline_loss(
    name: str, n_classes: int | None = None, dim: int | None = None, seed: int = 0, **overrides: float
) -> BaselineLoss:
    """Make one of the :data:`BASELINES`: a loss that takes embeddings ``(B, D)`` and labels ``(B,)``.

    Source: Roth et al. 2020, or the paper that ``BASELINES[name].source`` names. Derived in chapter 10.

    A batch without pairs to compare (one class only, or one image of each) has the loss that
    pytorch-metric-learning gives it, which is finite and has a finite gradient.

    Args:
        name: a name from :data:`BASELINES`.
        n_classes: number of training classes, for losses with a parameter for each.
        dim: of the embedding, for losses with proxies.
        seed: of the proxies at the start, and of the draws of the miner.
        overrides: hyper-parameters other than the ones in ``BASELINES[name].settings``, by name: finite, at
            least 0 or above it, whole numbers from 2 where bins are counted.

    Raises:
        ValueError: an unknown name or hyper-parameter, one that is out of its range or of another type, or
            ``n_classes`` or ``dim`` is missing.

    Example:
        >>> loss = baseline_loss("triplet", margin=0.5)
        >>> loss(torch.eye(3), torch.tensor([0, 0, 1]))  # distances of sqrt(2): none within 1.4
        tensor(0.)
    """
    config = BASELINES[check_choice(name, "name", BASELINES)]
    for key in overrides:
        check_choice(key, f"hyper-parameter of {name}", config.settings)
    settings = {key: _checked(name, key, overrides.get(key, value)) for key, value in config.settings.items()}
    # The library's names of the sizes, and ours in messages.
    given = {"num_classes": ("n_classes", n_classes), "embedding_size": ("dim", dim)}
    sizes: dict[str, int] = {}
    for need in config.needs:
        argument, value = given[need]
        if value is None:
            raise ValueError(f"{argument} must be given for {name}, which has parameters of its own")
        sizes[need] = check_count(value, argument)
    check_seed(seed)
    with seeded(seed):  # proxies are drawn
        loss = config.loss(**{**config.parts(), **settings, **sizes})
    miner = None if config.miner is None else config.miner(seed)
    return BaselineLoss(config, loss, miner, sizes.get("num_classes"), {**settings, "seed": seed})


def _checked(name: str, key: str, value: float) -> float:
    """A hyper-parameter of the type of its default and inside its range."""
    default, label = BASELINES[name].settings[key], f"{key} of {name}"
    if isinstance(default, bool):  # before int: a bool is one
        return check_flag(value, label)  # type: ignore[arg-type]
    if isinstance(default, int):
        whole = isinstance(value, float) and value.is_integer()
        return check_count(int(value) if whole else value, label, at_least=2)  # type: ignore[arg-type]
    at_most = LIMITS.get((name, key), math.inf)
    if key in POSITIVE:
        return check_number(value, label, above=0, at_most=at_most)
    return check_number(value, label, at_least=0, at_most=at_most)
