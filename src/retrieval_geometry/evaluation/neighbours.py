"""Exact nearest neighbours of embeddings."""

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import (
    ImageError,
    as_whole,
    check_choice,
    check_count,
    check_finite,
    check_floating,
    check_shape,
)

SLACK = 16
"""More neighbours than asked for are fetched, so that ties and rounding are settled among them."""

TIE_BITS = {torch.float64: 20, torch.float32: 32}
"""Number of a distance's 52 last bits that do not count, by the dtype of its computation."""

SAME_DIRECTION = 1e-14
"""Vectors of length one that are no farther apart have one direction, but for rounding."""

LARGEST = 1e300

BLOCK = 2**22  # numbers of candidates' coordinates held in memory at once


def nearest_neighbours(
    queries: Tensor,
    gallery: Tensor | None = None,
    k: int = 10,
    metric: str = "euclidean",
    exclude_self: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k nearest embeddings of each query, exactly; of equal distances the lower index comes first.

    Source: this package's own, over the exact search of FAISS. Derived in chapter 10.

    FAISS searches all of the gallery in float32 for a few more candidates than asked for; their distances are
    computed anew in float64, and where rounding leaves the last place open the query is compared with the
    whole gallery. The result is that of a full stable sort of distances in float64, rounded to 33 binary
    digits: ties do not depend on the order in which a processor adds. Embeddings may have any scale.

    Args:
        queries: ``(Q, d)``, float32 or float64.
        gallery: ``(n, d)``; None searches the queries themselves, each without itself.
        k: number of neighbours.
        metric: ``"euclidean"``, or ``"cosine"``: one minus the cosine.
        exclude_self: ``(Q,)``, where in the gallery each query stands; it is left out of its own result.

    Returns:
        Distances ``(Q, k)`` in the dtype of the queries, ascending but for ties, and indices ``(Q, k)`` into
        the gallery; both on the device of the queries.

    Raises:
        ValueError: empty sets, shapes that do not go together, embeddings that are NaN, infinite or above
            1e300, a vector of zeros under the cosine, k larger than the gallery (less the query itself), an
            unknown metric, or distances too large for the dtype of the queries.

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
    distances, indices = _search(asked, searched, k, own, SAME_DIRECTION if metric == "cosine" else 0.0)
    if metric == "cosine":
        distances = distances.square() / 2
    found = distances.to(queries.device, queries.dtype)
    if not found.isfinite().all():
        raise ValueError(f"queries and gallery are too far apart for {queries.dtype}: convert with .double()")
    return found, indices.to(queries.device)


def _search(
    queries: Tensor, gallery: Tensor, k: int, own: Tensor | None, faint: float
) -> tuple[Tensor, Tensor]:
    """Distances, 0 where they are below ``faint``, and indices: float32's candidates in float64's order."""
    candidates, reach = _candidates(queries, gallery, min(len(gallery), k + SLACK))
    lengths = torch.empty(candidates.shape, dtype=torch.float64)
    for rows in torch.arange(len(queries)).split(max(1, BLOCK // (candidates.shape[1] * queries.shape[1]))):
        lengths[rows] = _lengths(gallery[candidates[rows]] - queries[rows, None], faint)
    distances, indices = _first(lengths, candidates, k, own)
    if candidates.shape[1] < len(gallery):
        everything = torch.arange(len(gallery))[None]
        settled = distances[:, -1] * (1 + 2.0**-31) < reach  # no tie with what is left out
        for query in (~settled).nonzero()[:, 0].tolist():
            row = _lengths(gallery - queries[query], faint)[None]
            left_out = None if own is None else own[query : query + 1]
            found = _first(row, everything, k, left_out)
            distances[query], indices[query] = found[0][0], found[1][0]
    return distances, indices


def _lengths(gaps: Tensor, faint: float) -> Tensor:
    """Euclidean lengths along the last axis, also of those whose squares leave the range of float64."""
    squared = gaps.square().sum(dim=-1)
    lengths = squared.sqrt()
    odd = ~((squared > 1e-280) & (squared < 1e300))
    if odd.any():
        rows = gaps[odd]
        largest = rows.abs().amax(dim=-1, keepdim=True)
        shares = rows / torch.where(largest > 0, largest, 1.0)
        lengths[odd] = torch.linalg.vector_norm(shares, dim=-1) * largest.squeeze(-1)
    return lengths.masked_fill_(lengths < faint, 0)


def _candidates(queries: Tensor, gallery: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n nearest by float32, ``(Q, n)`` in ascending order of the index, and a bound ``(Q,)``.

    All others have a distance of at least the bound: squared, that of the last candidate, less the rounding
    of :math:`|x|^2 + |y|^2 - 2 x y` in float32.
    """
    centre = gallery.mean(dim=0)
    asked, searched = queries - centre, gallery - centre
    unit = max(float(asked.abs().max()), float(searched.abs().max())) or 1.0
    asked, searched = asked / unit, searched / unit  # no overflow in float32, little cancellation
    squared, indices = faiss.knn(asked.float().numpy(), searched.float().numpy(), n)
    scale = asked.square().sum(dim=1) + searched.square().sum(dim=1).max()
    rounding = 8 * queries.shape[1] ** 0.5 * torch.finfo(torch.float32).eps * scale
    last = torch.from_numpy(squared[:, -1]).double()
    return torch.from_numpy(indices).sort(dim=1)[0], (last - rounding).clamp(min=0).sqrt() * unit


def _first(lengths: Tensor, candidates: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k smallest of each row, without the query itself; candidates are in ascending order."""
    if own is not None:
        lengths = lengths.masked_fill(candidates == own[:, None], torch.inf)
    order = ascending(lengths)[:, :k]
    return lengths.gather(1, order), candidates.gather(1, order)


def ascending(distances: Tensor) -> Tensor:
    """The order ``(Q, n)`` of each row, smallest first; the lower index first where two differ by rounding.

    Distances are rounded to 33 binary digits in float64, to 21 in float32, before they are compared: which of
    two equal ones comes first does not hang on how a processor adds.
    """
    dropped = TIE_BITS[distances.dtype]
    # The bits of floats that are not negative ascend with them.
    rounded = (distances.double().abs().view(torch.int64) + 2 ** (dropped - 1)) >> dropped
    return torch.where(distances < 0, -rounded, rounded).sort(dim=1, stable=True)[1]


def scaled_to_one(x: Tensor, dim: int | None = None) -> Tensor:
    """Numbers on the CPU times a power of two, so without rounding, that brings the largest below 1.

    Args:
        x: of any shape.
        dim: an axis along which each row has its own power; None takes one for all.
    """
    largest = x.abs().max() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    return torch.from_numpy(np.ldexp(x.numpy(), -torch.frexp(largest).exponent.numpy()))


def _prepare(embeddings: Tensor, name: str, metric: str) -> Tensor:
    """Check embeddings and bring them to float64 in main memory, of length one for the cosine."""
    check_floating(embeddings, name)
    check_shape(embeddings, name, ("images", "dimensions"))
    check_finite(embeddings, name)
    exact = embeddings.detach().cpu().double()
    sizes = exact.abs().amax(dim=1)
    if metric == "euclidean":
        if float(sizes.max()) > LARGEST:
            after = f" have a coordinate above {LARGEST:g}, and differences overflow; scale all embeddings"
            raise ImageError(f"{name} of ", int(sizes.argmax()), after)
        return exact
    if (sizes == 0).any():
        after = " are all zero, and no cosine is defined for them"
        raise ImageError(f"{name} of ", int((sizes == 0).nonzero()[0]), after)
    return functional.normalize(scaled_to_one(exact, dim=1), dim=1, eps=0)


def _check_own(own: Tensor | None, queries: Tensor, gallery: Tensor) -> Tensor | None:
    if own is None:
        return None
    wanted = f"int64 positions from 0 to {len(gallery) - 1}, one per query"
    found = check_shape(as_whole(own, "exclude_self", wanted), "exclude_self", (len(queries),)).cpu()
    if int(found.min()) < 0 or int(found.max()) >= len(gallery):
        raise ValueError(f"exclude_self must hold {wanted}, got {found}")
    return found
