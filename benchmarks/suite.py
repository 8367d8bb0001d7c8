"""All that is measured, in the order of the table."""

from collections.abc import Callable
from functools import partial

from benchmarks.bag_of_words import bag_of_words_row
from benchmarks.em import mixture_row
from benchmarks.growth import growth_curves
from benchmarks.kl import few_pairs_row, symmetric_kl_row, variational_kl_row
from benchmarks.riemannian import affine_invariant_row, stein_row
from benchmarks.rows import Curve, Row, Settings
from benchmarks.search import dense_search_rows, search_growth, wasserstein_search_rows
from benchmarks.sinkhorn import exact_transport_row, sinkhorn_all_pairs_row, sinkhorn_row
from benchmarks.smt import smt_row
from benchmarks.wasserstein import (
    mixture_wasserstein_row,
    wasserstein_full_rank_row,
    wasserstein_low_rank_row,
)


def rows_of(settings: Settings) -> dict[str, Callable[[], list[Row]]]:
    """The rows of the table by name, each measured when it is called."""
    single: dict[str, Callable[[Settings], Row]] = {
        "symmetric-kl": symmetric_kl_row,
        "few-pairs": few_pairs_row,
        "variational-kl": variational_kl_row,
        "wasserstein-low-rank": wasserstein_low_rank_row,
        "wasserstein-full-rank": wasserstein_full_rank_row,
        "affine-invariant": affine_invariant_row,
        "stein": stein_row,
        "mixture-wasserstein": mixture_wasserstein_row,
        "smt": smt_row,
        "sinkhorn-16": partial(sinkhorn_row, points=16, dim=32),
        "sinkhorn-49": partial(sinkhorn_row, points=49, dim=128),
        "sinkhorn-all-pairs": sinkhorn_all_pairs_row,
        "exact-transport-16": partial(exact_transport_row, points=16, dim=32),
        "exact-transport-49": partial(exact_transport_row, points=49, dim=128),
        "mixture-em": mixture_row,
        "bag-of-words": bag_of_words_row,
    }
    return {
        **{name: partial(_as_list, make, settings) for name, make in single.items()},
        "search-thin": partial(wasserstein_search_rows, settings),
        "search-dense": partial(dense_search_rows, settings),
    }


def _as_list(make: Callable[[Settings], Row], settings: Settings) -> list[Row]:
    return [make(settings)]


def curves_of(settings: Settings) -> dict[str, Callable[[], list[Curve]]]:
    """The curves of growth by name."""
    return {
        "growth-pair": partial(growth_curves, settings),
        "growth-search": partial(search_growth, settings),
    }
