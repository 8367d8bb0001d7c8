"""What a benchmark says: rows of the table, curves of growth, and the sizes they were measured at."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from benchmarks.inputs import Inputs
from benchmarks.measure import Timing, relative_error


@dataclass(frozen=True)
class Side:
    """One library at one kind of work.

    Args:
        name: the library, and which of its functions where it has several.
        time: CPU seconds of one unit of the work.
        error: largest deviation from the float64 reference, relative to the reference's median; None where
            there is nothing to deviate from.
        prepare: CPU seconds that each image costs once, before any comparison; None where that is part of
            ``time``, or nothing.
        usable: False where it returned NaN, so that its time counts for nothing.
    """

    name: str
    time: Timing
    error: float | None = None
    prepare: Timing | None = None
    usable: bool = True

    @classmethod
    def checked(
        cls, name: str, time: Timing, found: Tensor, wanted: Tensor, prepare: Timing | None = None
    ) -> "Side":
        """A side with the error of what it found."""
        usable = bool(found.isfinite().all())
        return cls(name, time, relative_error(found, wanted) if usable else None, prepare, usable)

    def all_in(self, queries: int, database: int) -> float:
        """CPU seconds of one of ``queries * database`` pairs with its share of the preparation."""
        share = self.prepare.seconds * (queries + database) / (queries * database) if self.prepare else 0.0
        return self.time.seconds + share


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        key: stable name.
        work: what is done, in words.
        unit: what the times are for: "pair", "image", "batch".
        conditions: sizes and inputs.
        ours: this package.
        peers: others, on the same inputs.
        mark: how many times faster than the best peer we set out to be; None where no speed-up is claimed.
        evaluated: share of the pairs whose exact distance a search had to compute.
        identical: whether a search returned what the full sort returns, or a greedy search the same steps.
        memory_mb: memory our side takes beyond its inputs.
        gemm_share: share of the measured rate of a matrix product that our comparing reaches.
        note: what must be said beside the numbers.
    """

    key: str
    work: str
    unit: str
    conditions: str
    ours: Side
    peers: tuple[Side, ...] = ()
    mark: float | None = None
    evaluated: float | None = None
    identical: bool | None = None
    memory_mb: float | None = None
    gemm_share: float | None = None
    note: str = ""

    @property
    def best(self) -> Side | None:
        """The fastest peer of those that gave an answer."""
        usable = [side for side in self.peers if side.usable]
        return min(usable, key=lambda side: side.time.seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times the best peer's time ours goes into."""
        return self.best.time.seconds / self.ours.time.seconds if self.best else None


@dataclass(frozen=True)
class Curve:
    """How a cost grows.

    Args:
        key: stable name.
        work: what is done.
        over: what grows: "dimensions", "images in the database", "components", "descriptors".
        sizes: its values.
        seconds: CPU seconds of one unit, by the name of the side ("ours" or a library).
        exponents: fitted power of each side over the larger half of the sizes.
        unit: of ``seconds``.
        evaluated: share of pairs computed exactly, for a search.
    """

    key: str
    work: str
    over: str
    sizes: tuple[int, ...]
    seconds: Mapping[str, tuple[float, ...]]
    exponents: Mapping[str, float]
    unit: str = "pair"
    evaluated: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Args:
        dim: dimensions of the descriptors.
        points: descriptors of an image.
        images: images that are compared, all pairs of half with half.
        database: images that are searched.
        queries: images that are searched with.
        full_sorts: queries whose answer is compared with a full sort.
        components: of a mixture.
        rotations: of a sparse matrix transform.
        transport_pairs: pairs of point sets, for Sinkhorn.
        transport_batch: point sets that are compared each with each.
        growth_dims: dimensions at which the curves of growth are measured.
        growth_databases: images in the database, likewise.
        growth_components: components of a mixture, likewise.
        growth_points: descriptors of an image, likewise.
        peer_mixture_dim: dimensions for the peer of mixture-Wasserstein, whose cost explodes.
        budget: CPU seconds for each side of a row.
        gemm_rate: floating-point operations a second of a float32 matrix product on this machine.
        inputs: descriptors.
    """

    inputs: Inputs
    gemm_rate: float
    dim: int = 512
    points: int = 169
    images: int = 128
    database: int = 3760
    queries: int = 94
    full_sorts: int = 4
    components: int = 64
    rotations: int = 4608
    transport_pairs: int = 240
    transport_batch: int = 120
    growth_dims: tuple[int, ...] = (32, 64, 128, 256, 512)
    growth_databases: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000)
    growth_components: tuple[int, ...] = (4, 8, 16, 32, 64)
    growth_points: tuple[int, ...] = (20, 40, 80, 169, 338)
    peer_mixture_dim: int = 64
    budget: float = 4.0

    def quick(self) -> "Settings":
        """The same at tiny sizes: seconds in all, for tests and for the book."""
        return replace(
            self,
            dim=24,
            points=16,
            images=12,
            database=60,
            queries=3,
            full_sorts=3,
            components=4,
            rotations=40,
            transport_pairs=6,
            transport_batch=5,
            growth_dims=(8, 16),
            growth_databases=(30, 60),
            growth_components=(2, 4),
            growth_points=(8, 16),
            peer_mixture_dim=6,
            budget=0.02,
        )
