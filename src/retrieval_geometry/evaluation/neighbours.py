"""Exact nearest neighbours of embeddings."""

import faiss
import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import check_choice, check_count, check_finite, check_floating, check_shape

SLACK = 16
"""More neighbours than asked for are fetched, so that ties and rounding are settled among them."""

BLOCK = 2**22  # numbers of candidates' coordinates held in memory at once


def nearest_neighbours(
    queries: Tensor,
    gallery: Tensor | None = None,
    k: int = 10,
    metric: str = "euclidean",
    exclude_self: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest embeddings of each query, exactly; of equal distances the lower index comes first.

    FAISS searches all of the gallery in float32 for a few more candidates than asked for; their distances are
    computed anew in float64, and where rounding leaves the last place open the query is compared with the
    whole gallery. The result is that of a full stable sort in float64.

    Args:
        queries: ``(Q, d)``, float32 or float64.
        gallery: ``(n, d)``; None searches the queries themselves, each without itself.
        k: how many.
        metric: ``"euclidean"``, or ``"cosine"``: one minus the cosine.
        exclude_self: ``(Q,)``, where in the gallery each query stands; it is left out of its own result.

    Returns:
        Distances ``(Q, k)`` in the dtype of the queries, ascending, and indices ``(Q, k)`` into the gallery;
        both on the device of the queries.

    Raises:
        ValueError: empty sets, shapes that do not go together, NaN or infinite embeddings, a vector of zeros
            under the cosine, k larger than the gallery (less the query itself), or an unknown metric.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> nearest_neighbours(points, k=1)
        (tensor([[1.],
                [1.],
                [2.]]), tensor([[1],
                [0],
                [1]]))
    """
    check_choice(metric, "metric", ("euclidean", "cosine"))
    if gallery is None and exclude_self is not None:
        raise ValueError("exclude_self belongs to a gallery; without one each query is left out of itself")
    asked = _prepare(queries, "queries", metric)
    searched = asked if gallery is None else _prepare(gallery, "gallery", metric)
    if asked.shape[1] != searched.shape[1]:
        raise ValueError(f"queries have {asked.shape[1]} dimensions, but the gallery has {searched.shape[1]}")
    own = torch.arange(len(asked)) if gallery is None else _check_own(exclude_self, asked, searched)
    check_count(k, "k", at_most=len(searched) - (own is not None))
    squared, indices = _search(asked, searched, k, own)
    distances = squared / 2 if metric == "cosine" else squared.sqrt()
    return distances.to(queries.device, queries.dtype), indices.to(queries.device)


def _search(queries: Tensor, gallery: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared distances and indices, by float32 candidates that float64 puts in order."""
    candidates, reach = _candidates(queries, gallery, min(len(gallery), k + SLACK))
    squared = torch.empty(candidates.shape, dtype=torch.float64)
    for rows in torch.arange(len(queries)).split(max(1, BLOCK // (candidates.shape[1] * queries.shape[1]))):
        squared[rows] = (gallery[candidates[rows]] - queries[rows, None]).square().sum(dim=2)
    distances, indices = _first(squared, candidates, k, own)
    if candidates.shape[1] < len(gallery):
        everything = torch.arange(len(gallery))[None]
        for query in (~(distances[:, -1] < reach)).nonzero()[:, 0].tolist():
            row = (gallery - queries[query]).square().sum(dim=1)[None]
            left_out = None if own is None else own[query : query + 1]
            found = _first(row, everything, k, left_out)
            distances[query], indices[query] = found[0][0], found[1][0]
    return distances, indices


def _candidates(queries: Tensor, gallery: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n nearest by float32, ``(Q, n)`` in ascending order of the index, and a bound ``(Q,)``.

    What is left out has a squared distance of at least the bound: that of the last candidate, less the
    rounding of :math:`|x|^2 + |y|^2 - 2 x y` in float32.
    """
    centre = gallery.mean(dim=0)
    asked, searched = queries - centre, gallery - centre
    unit = max(float(asked.abs().max()), float(searched.abs().max())) or 1.0
    asked, searched = asked / unit, searched / unit  # no overflow in float32, little cancellation
    squared, indices = faiss.knn(asked.float().numpy(), searched.float().numpy(), n)
    scale = asked.square().sum(dim=1) + searched.square().sum(dim=1).max()
    rounding = 8 * queries.shape[1] ** 0.5 * torch.finfo(torch.float32).eps * scale
    last = torch.from_numpy(squared[:, -1]).double()
    return torch.from_numpy(indices).sort(dim=1)[0], (last - rounding) * unit**2


def _first(squared: Tensor, candidates: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k smallest of each row, without the query itself; candidates are in ascending order."""
    if own is not None:
        squared = squared.masked_fill(candidates == own[:, None], torch.inf)
    distances, order = squared.sort(dim=1, stable=True)
    return distances[:, :k], candidates.gather(1, order[:, :k])


def _prepare(embeddings: Tensor, name: str, metric: str) -> Tensor:
    """Check embeddings and bring them to float64 in main memory, of length one for the cosine."""
    check_floating(embeddings, name)
    check_shape(embeddings, name, ("images", "dimensions"))
    check_finite(embeddings, name)
    exact = embeddings.detach().cpu().double()
    if metric == "euclidean":
        return exact
    zero = (exact == 0).all(dim=1)
    if zero.any():
        first = int(zero.nonzero()[0])
        raise ValueError(f"{name} of image {first} are all zero, and no cosine is defined for them")
    return functional.normalize(exact, dim=1, eps=0)


def _check_own(own: Tensor | None, queries: Tensor, gallery: Tensor) -> Tensor | None:
    if own is None:
        return None
    check_shape(own, "exclude_self", (len(queries),))
    if own.dtype != torch.int64 or int(own.min()) < 0 or int(own.max()) >= len(gallery):
        raise ValueError(
            f"exclude_self must hold int64 positions from 0 to {len(gallery) - 1}, one per query, got {own}"
        )
    return own.cpu()
