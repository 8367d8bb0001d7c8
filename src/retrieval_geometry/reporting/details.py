"""Details of an experiment beyond its table: one type for each kind, told apart in the file by ``kind``."""

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
    """Details of rankings: P@k over draws of two queries a class (value, low, high), and a gallery."""

    draws: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    gallery: Gallery | None = None
    kind: Literal["ranked"] = "ranked"


@dataclass(frozen=True)
class CloseRange:
    """Distances between two halves of one image, a number for each image."""

    variation: tuple[float, ...]
    noise: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True)
class Dealt:
    """Details of the robustness experiment: the numbers of every image under each method."""

    images: dict[str, CloseRange]
    kind: Literal["dealt"] = "dealt"


@dataclass(frozen=True)
class Tuned:
    """Details of a choice of hyper-parameters: the score of each value of each loss, and the best of them.

    ``rate_scores`` and ``rates`` are those of the learning rate, where it was chosen as well.
    """

    scores: dict[str, dict[str, float]]
    chosen: dict[str, float]
    rule: str
    rate_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    kind: Literal["tuned"] = "tuned"


@dataclass(frozen=True)
class Transport:
    """Rankings by the transport distance, of losses on measures, for some of the queries.

    Args:
        queries: number of queries.
        sizes: number of queries in each group; groups without any are left out.
        by_transport: means over groups by the transport distance, for each loss on measures and metric.
        by_mean: means over groups of the same models by the Euclidean distance of mean vectors.
        others: means over groups of all models of every loss, for the same queries.
    """

    queries: int
    sizes: tuple[int, ...]
    by_transport: dict[str, dict[str, Rows]]
    by_mean: dict[str, dict[str, Rows]]
    others: dict[str, dict[str, Rows]]


@dataclass(frozen=True)
class Compared:
    """Details of a comparison of losses: their hyper-parameters, and rankings by the transport distance.

    ``scores`` has the score of each value of each hyper-parameter where the data itself was tuned on;
    ``rates`` the learning rate of each loss, where it was chosen.
    """

    chosen: dict[str, float]
    transport: Transport | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    kind: Literal["compared"] = "compared"


@dataclass(frozen=True)
class Ablated:
    """Details of variants of one loss: the hyper-parameter that all have, by name and value."""

    parameter: str
    value: float
    kind: Literal["ablated"] = "ablated"


@dataclass(frozen=True)
class Subsets:
    """Details of training on subsets: margin, steps of warm-up, and shares of the images and steps."""

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
    """Details of one RankMI model: distances of pairs before and after training, and the learnt loss.

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
    """Details of the benchmarks: rows, curves, versions of the peers, and flop/s of a matrix product."""

    rows: tuple[CostRow, ...]
    growth: tuple[CostCurve, ...]
    libraries: dict[str, str]
    gemm_rate: float
    kind: Literal["cost"] = "cost"


Details = Ranked | Dealt | Tuned | Compared | Ablated | Subsets | Separated | Cost
