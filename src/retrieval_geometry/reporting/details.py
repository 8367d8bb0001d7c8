"""What an experiment says beyond its table: one type for each kind, told apart in the file by ``kind``."""

from dataclasses import dataclass, field
from typing import Literal

Rows = tuple[tuple[float, ...], ...]
"""A row for each trained model, a mean for each group of queries."""


@dataclass(frozen=True)
class Gallery:
    """Ids of a few queries, and of their nearest images in order under each method."""

    queries: tuple[str, ...]
    neighbours: dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Ranked:
    """Of rankings: how P@k moves with the choice of two queries a class (value, low, high), and a gallery."""

    draws: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    gallery: Gallery | None = None
    kind: Literal["ranked"] = "ranked"


@dataclass(frozen=True)
class CloseRange:
    """What a distance does between two halves of one image, a number for each image."""

    variation: tuple[float, ...]
    noise: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True)
class Dealt:
    """Of the robustness experiment: the numbers of every image under each method."""

    images: dict[str, CloseRange]
    kind: Literal["dealt"] = "dealt"


@dataclass(frozen=True)
class Tuned:
    """Of a choice of hyper-parameters: what each value of each loss reached, and the best of them."""

    scores: dict[str, dict[str, float]]
    chosen: dict[str, float]
    rule: str
    kind: Literal["tuned"] = "tuned"


@dataclass(frozen=True)
class Transport:
    """Losses on measures, asked by the transport distance, for some of the queries and one model each.

    Args:
        queries: how many were asked.
        sizes: how many of them each group has; groups without any are left out.
        by_transport: for each such loss and metric the means over groups by the transport distance.
        by_mean: the same of the same models by the Euclidean distance of mean vectors.
        others: the same of all models of every loss, for the same queries.
    """

    queries: int
    sizes: tuple[int, ...]
    by_transport: dict[str, dict[str, Rows]]
    by_mean: dict[str, dict[str, Rows]]
    others: dict[str, dict[str, Rows]]


@dataclass(frozen=True)
class Compared:
    """Of a comparison of losses: their hyper-parameters, and what the transport distance gives.

    ``scores`` has what each value of each hyper-parameter reached where the data itself was tuned on.
    """

    chosen: dict[str, float]
    transport: Transport | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    kind: Literal["compared"] = "compared"


@dataclass(frozen=True)
class Ablated:
    """Of variants of one loss: the hyper-parameter that all have, by name and value."""

    parameter: str
    value: float
    kind: Literal["ablated"] = "ablated"


@dataclass(frozen=True)
class Subsets:
    """Of training on subsets: the margin, the steps of warm-up, and the shares of the images and steps."""

    margin: float
    warm_up: int
    shares: tuple[float, ...]
    kind: Literal["subsets"] = "subsets"


@dataclass(frozen=True)
class Heaps:
    """Shares of the distances of matching and of other pairs in each bin; each sums to one."""

    matching: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def overlap(self) -> float:
        """The mass that both share."""
        return sum(min(pair) for pair in zip(self.matching, self.other, strict=True))


@dataclass(frozen=True)
class Separated:
    """Of one RankMI model: distances of pairs before and after training, and the learnt loss.

    ``statistic``, ``positive_loss`` and ``negative_loss`` are values at the ``edges`` of the bins.
    """

    updates: int
    edges: tuple[float, ...]
    before: Heaps
    after: Heaps
    statistic: tuple[float, ...]
    positive_loss: tuple[float, ...]
    negative_loss: tuple[float, ...]
    beta: float
    margin: float
    losses: tuple[float, ...]
    kind: Literal["separated"] = "separated"


@dataclass(frozen=True)
class Clocked:
    """Seconds of a repeated piece of work: their median, and the ends of the middle half."""

    seconds: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True)
class CostSide:
    """One way to do a piece of work: its time, its error, and the time to prepare an image for it."""

    name: str
    time: Clocked
    error: float | None = None
    prepare: Clocked | None = None
    usable: bool = True


@dataclass(frozen=True)
class CostRow:
    """The package and its peers at one piece of work; ``best`` names the fastest usable peer."""

    key: str
    work: str
    unit: str
    conditions: str
    ours: CostSide
    peers: tuple[CostSide, ...]
    mark: float | None
    evaluated: float | None
    identical: bool | None
    memory_mb: float | None
    gemm_share: float | None
    note: str
    ratio: float | None
    best: str | None
    commit: str = ""


@dataclass(frozen=True)
class CostCurve:
    """Seconds of each side over sizes, and the exponents that fit them."""

    key: str
    work: str
    over: str
    sizes: tuple[int, ...]
    seconds: dict[str, tuple[float, ...]]
    exponents: dict[str, float]
    unit: str
    evaluated: tuple[float, ...] | None
    commit: str = ""


@dataclass(frozen=True)
class Cost:
    """Of the benchmarks: rows, curves, versions of the peers, and the rate of a matrix product in flop/s."""

    rows: tuple[CostRow, ...]
    growth: tuple[CostCurve, ...]
    libraries: dict[str, str]
    gemm_rate: float
    kind: Literal["cost"] = "cost"


Details = Ranked | Dealt | Tuned | Compared | Ablated | Subsets | Separated | Cost
