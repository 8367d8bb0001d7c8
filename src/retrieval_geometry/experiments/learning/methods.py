"""The ways to learn a metric that are compared, and what is tuned of each."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from retrieval_geometry.losses import (
    BASELINES,
    RankMILoss,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
    baseline_loss,
)

Make = Callable[[int, int, int, float], nn.Module]


@dataclass(frozen=True)
class LearningMethod:
    """A loss with everything that training has to know of it.

    Args:
        name: short and stable.
        label: as tables call it.
        tuned: the hyper-parameter that is chosen on validation classes.
        candidates: its values, as many for every method, the published one among them if there is one.
        make: the objective, from the number of classes, the length of an embedding, a seed and the value.
        output: what the network gives, ``"vector"`` or ``"map"``.
        normalize: whether it gives vectors of length one.
        objective_lr: learning rate of the objective's own parameters; None where it has none.
    """

    name: str
    label: str
    tuned: str
    candidates: tuple[float, ...]
    make: Make
    output: str = "vector"
    normalize: bool = True
    objective_lr: float | None = None


CANDIDATES: dict[str, tuple[float, ...]] = {
    "triplet": (0.05, 0.1, 0.2, 0.4, 0.8),
    "contrastive": (0.4, 0.7, 1.0, 1.3, 1.6),
    "npair": (0.0002, 0.001, 0.005, 0.02, 0.1),
    "proxynca": (0.3, 1.0, 3.0, 9.0, 27.0),
    "genlifted": (0.25, 0.5, 1.0, 2.0, 4.0),
    "histogram": (17, 33, 65, 129, 257),
    "margin": (0.6, 0.9, 1.2, 1.3, 1.4),
    "multisimilarity": (10.0, 20.0, 40.0, 50.0, 60.0),
    "lifted": (0.25, 0.5, 1.0, 2.0, 4.0),
    "angular": (20.0, 28.0, 36.0, 45.0, 55.0),
    "fastap": (3, 5, 10, 25, 50),
    "proxyanchor": (8.0, 16.0, 32.0, 64.0, 128.0),
    "supcon": (0.03, 0.05, 0.1, 0.3, 1.0),
    "arcface": (5.0, 11.5, 28.65, 40.0, 50.0),
}
"""Values of what each baseline's entry calls its tuned hyper-parameter."""


PROXY_LR = 0.1
"""Learning rate of proxies, a hundred times that of the network (Kim et al. 2020): runs here are short."""


def _baseline(name: str) -> LearningMethod:
    entry = BASELINES[name]

    def make(n_classes: int, dim: int, seed: int, value: float) -> nn.Module:
        return baseline_loss(name, n_classes, dim, seed, **{entry.tuned: value})

    return LearningMethod(
        name,
        entry.title,
        entry.tuned,
        CANDIDATES[name],
        make,
        normalize=entry.normalized,
        objective_lr=PROXY_LR if "embedding_size" in entry.needs else entry.parameter_lr,
    )


WASSERSTEIN = (
    LearningMethod(
        "w-triplet",
        "W-triplet",
        "margin",
        (0.05, 0.1, 0.2, 0.4, 0.8),
        lambda n_classes, dim, seed, value: WassersteinTripletLoss(value),
        output="map",
    ),
    LearningMethod(
        "w-contrastive",
        "W-contrastive",
        "margin",
        (0.3, 0.6, 1.0, 1.4, 1.8),
        lambda n_classes, dim, seed, value: WassersteinContrastiveLoss(value),
        output="map",
    ),
)
RANKMI = LearningMethod(
    "rankmi",
    "RankMI",
    "updates",
    (1, 2, 3, 5, 8),
    lambda n_classes, dim, seed, value: RankMILoss(updates=int(value), seed=seed),
)

TEN_LOSSES = (
    *WASSERSTEIN,
    *map(
        _baseline,
        (
            "triplet",
            "contrastive",
            "npair",
            "proxynca",
            "genlifted",
            "histogram",
            "margin",
            "multisimilarity",
        ),
    ),
)
"""The ten rows of [wasserstein-dml] Table 1, in its order."""

OTHERS = tuple(map(_baseline, ("lifted", "angular", "fastap", "proxyanchor", "supcon", "arcface")))
"""Losses that [rankmi] Tables 1 to 3 compare with besides, and three that came later."""

METHODS = {method.name: method for method in (*TEN_LOSSES, RANKMI, *OTHERS)}
