"""Meta-classes and their proxies: random partitions, the proxy N-pair loss, and hard proxies ([edms])."""

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import (
    check_choice,
    check_count,
    check_labels,
    check_number,
    check_same_kind,
    check_seed,
)
from retrieval_geometry.losses._batch import check_batch, check_directions
from retrieval_geometry.losses._vectors import check_vectors

DEALT = ("classes", "images")


def random_meta_classes(labels: Tensor, n_meta: int, seed: int = 0, dealt: str = "classes") -> Tensor:
    """Random partition of the images into meta-classes.

    Source: [edms] section 4.1. Derived in chapter 20.

    Meta-classes are balanced: the numbers of classes (or images) in two of them differ by one at most.

    Args:
        labels: ``(M,)`` classes.
        n_meta: K, at least 2.
        seed: of the partition.
        dealt: ``"classes"``: all images of a class go to one meta-class; ``"images"``: each goes by itself.

    Returns:
        ``(M,)`` numbers from 0 to K - 1.

    Raises:
        ValueError: fewer than two meta-classes, or more than there are classes (or images).

    Example:
        >>> random_meta_classes(torch.tensor([5, 5, 7, 7, 9, 9]), 2).bincount().sort().values
        tensor([2, 4])
    """
    found = check_labels(labels)
    check_choice(dealt, "dealt", DEALT)
    _, members = found.unique(return_inverse=True)
    if dealt == "images":
        members = torch.arange(len(found), device=found.device)
    n = int(members.max()) + 1 if len(members) else 0
    if check_count(n_meta, "n_meta", at_least=2) > n:
        raise ValueError(f"n_meta must be at most the number of {dealt}, {n}, got {n_meta}")
    generator = torch.Generator().manual_seed(check_seed(seed))
    order = torch.randperm(n, generator=generator)
    meta_of = torch.empty_like(order)
    meta_of[order] = torch.arange(n) % n_meta
    return meta_of.to(found.device)[members]


def random_proxies(meta_class: Tensor, n_meta: int | None = None, seed: int = 0) -> Tensor:
    """An image of each meta-class, at random: the beginning of its proxy.

    Source: [edms] section 4.1. Used in chapter 20.

    Args:
        meta_class: ``(M,)`` numbers from 0 to K - 1.
        n_meta: K; by default one more than the largest number.
        seed: of the choice.

    Returns:
        ``(K,)`` numbers of images.

    Raises:
        ValueError: a meta-class without an image, or numbers out of range.
    """
    found = check_labels(meta_class, name="meta_class")
    if not len(found):
        raise ValueError("meta_class must have at least one image, got none")
    n_meta = int(found.max()) + 1 if n_meta is None else check_count(n_meta, "n_meta", at_least=1)
    _check_range(found, n_meta)
    empty = (found.bincount(minlength=n_meta) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"meta_class must have an image of each of 0 to {n_meta - 1}, got none of {empty}")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(check_seed(seed)))
    order = order.to(found.device)
    # The first image of each meta-class in a random order; a stable sort keeps that order within it.
    by_meta = order[found[order].sort(stable=True).indices]
    starts = found.bincount(minlength=n_meta).cumsum(0)
    return by_meta[functional.pad(starts, (1, 0))[:-1]]


def npair_margin_loss(x: Tensor, labels: Tensor, margin: float = 5e-4) -> Tensor:
    r"""N-pair loss with margin of all pairs of an anchor and a positive in a batch.

    .. math:: \log \Bigl(1 + \sum_{x^-} e^{s(x, x^-) - s(x, x^+) + m}\Bigr)

    Source: [edms] eq. 3. Derived in chapters 20 and 21.

    Args:
        x: ``(N, d)`` vectors of length one; s is their dot product.
        labels: ``(N,)`` classes or meta-classes.
        margin: m.

    Returns:
        A scalar, the mean over the pairs; 0 where there are none.

    Raises:
        ValueError: vectors that are no finite ``(N, d)``, labels that are not one for each, or a margin
            below 0.

    Example:
        >>> x = torch.eye(2)[[0, 0, 1]]
        >>> npair_margin_loss(x, torch.tensor([0, 0, 1]), margin=0.0)  # log(1 + exp(0 - 1)) for both pairs
        tensor(0.3133)
    """
    check_vectors(x, "x")
    check_number(margin, "margin", at_least=0)
    return mean_npair(x @ x.mT, check_labels(labels, len(x)).to(x.device), margin)


def proxy_npair_loss(x: Tensor, meta_class: Tensor, proxies: Tensor, margin: float = 5e-4) -> Tensor:
    r"""N-pair loss against proxies, the mean over a batch.

    .. math:: \log \Bigl(1 + \sum_{j \ne k} e^{s(x, p_j) - s(x, p_k) + m}\Bigr)

    Source: [edms] eq. 4. Derived in chapter 20.

    Args:
        x: ``(N, d)`` vectors of length one.
        meta_class: ``(N,)`` numbers from 0 to K - 1.
        proxies: ``(K, d)`` vectors of length one.
        margin: m.

    Returns:
        A scalar.

    Raises:
        ValueError: no batch, fewer than two proxies, a meta-class without a proxy, or a margin below 0.

    Example:
        >>> proxy_npair_loss(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), margin=0.0)
        tensor(0.3133)
    """
    meta_class = check_meta_classes(x, meta_class, proxies)
    check_number(margin, "margin", at_least=0)
    return proxy_terms(x @ proxies.mT, meta_class, margin).mean()


def hard_proxies(
    x: Tensor, meta_class: Tensor, initial: Tensor, steps: int = 100, lr: float = 1e-3
) -> Tensor:
    r"""Proxies that are as far from the images of their meta-class as the loss of eq. 7 lets them.

    .. math:: \min_{|p| = 1} \log \Bigl(1 + \sum_{x_n \in D_k \setminus \{p_k\}}
        e^{s(p, x_n) - s(p, p_k)}\Bigr)

    Source: [edms] eq. 7, erratum 1.4. Derived in chapter 20.

    As printed, over all vectors, the loss has no minimum: p may grow without end (erratum 1.4). So each step
    of gradient descent ends on the sphere. An image that equals the initial proxy is left out of its sum, as
    printed. All meta-classes are descended at once.

    Args:
        x: ``(M, d)`` vectors of length one, the images to learn from.
        meta_class: ``(M,)`` numbers from 0 to K - 1.
        initial: ``(K, d)`` vectors of length one, such as an image of each meta-class.
        steps: of gradient descent; 0 gives the initial proxies.
        lr: length of a step over that of the gradient.

    Returns:
        ``(K, d)`` vectors of length one. A proxy without other images stays where it is.

    Raises:
        ValueError: no vectors, an initial proxy that is zero, numbers out of range, or a setting out of
            range.
    """
    *_, last = hard_proxy_path(x, meta_class, initial, steps, lr)
    return last


@torch.no_grad()
def hard_proxy_path(
    x: Tensor, meta_class: Tensor, initial: Tensor, steps: int = 100, lr: float = 1e-3
) -> Iterator[Tensor]:
    """The proxies ``(K, d)`` before the first step of :func:`hard_proxies`, and after each.

    Source: [edms] eq. 7, erratum 1.4. Used in chapter 20.

    Raises:
        ValueError: as :func:`hard_proxies`.
    """
    meta_class = check_meta_classes(x, meta_class, initial, at_least=1, name="initial")
    check_count(steps, "steps", at_least=0)
    check_number(lr, "lr", above=0)
    dtype = initial.dtype
    exact = dtype if dtype in (torch.float32, torch.float64) else torch.float32  # half a step would be lost
    x, anchors = x.to(exact), check_directions(initial.to(exact))
    members, present = _by_meta_class(x, meta_class, anchors)
    # A sum that starts at the anchor: s(p, x) - s(p, p_k) is one product with the difference.
    pulls = members - anchors.unsqueeze(1)
    absent = torch.where(present, 0.0, -torch.inf).to(x.dtype)
    proxies = functional.normalize(anchors, dim=1)
    yield proxies.to(dtype)
    for _ in range(steps):
        exponents = torch.einsum("knd,kd->kn", pulls, proxies) + absent
        # The weight of each term in log(1 + sum): a softmax with a zero among its exponents.
        weights = functional.pad(exponents, (0, 1)).softmax(dim=1)[:, :-1]
        gradient = torch.einsum("kn,knd->kd", weights, pulls)
        proxies = functional.normalize(proxies - lr * gradient, dim=1)
        yield proxies.to(dtype)


class ProxyNPairLoss(BaseMetricLossFunction):
    """:func:`proxy_npair_loss` with proxies that are set from outside, as a loss of embeddings and labels.

    Source: [edms] eq. 4. Used in chapter 21.

    The labels are meta-classes. :attr:`proxies` is a buffer, which hard proxies renew each epoch.

    Args:
        proxies: ``(K, d)``; scaled to length one, as the embeddings are.
        margin: m.

    Raises:
        ValueError: a setting out of range; on call as :func:`proxy_npair_loss`, or an embedding that is zero.
    """

    proxies: Tensor

    def __init__(self, proxies: Tensor, margin: float = 5e-4) -> None:
        super().__init__()
        self.margin = check_number(margin, "margin", at_least=0)
        self.register_buffer(
            "proxies", functional.normalize(check_vectors(proxies, "proxies").detach(), dim=1)
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        labels = check_batch(embeddings, labels)
        return super().forward(check_directions(embeddings), labels)

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: None, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, dict[str, Any]]:
        """The term of each image, in the form that reducers of pytorch-metric-learning take."""
        x = functional.normalize(embeddings, dim=1)
        proxies = self.proxies.to(x)
        meta_class = check_meta_classes(x, labels, proxies)
        terms = proxy_terms(self._similarity(x, proxies), meta_class, self.margin)
        indices = torch.arange(len(x), device=x.device)
        return {"loss": {"losses": terms, "indices": indices, "reduction_type": "element"}}

    def _similarity(self, x: Tensor, proxies: Tensor) -> Tensor:
        return x @ proxies.mT


def check_meta_classes(
    x: Tensor, meta_class: Tensor, proxies: Tensor, at_least: int = 2, name: str = "proxies"
) -> Tensor:
    """Refuse images, meta-classes and proxies that do not go together; return the meta-classes as int64.

    Raises:
        ValueError: no vectors, of different lengths, dtypes or devices; too few proxies; numbers that are
            not one for each image, or beyond the proxies.
    """
    check_vectors(x, "x")
    check_vectors(proxies, name)
    check_same_kind((x, proxies), f"x and {name}")
    if x.shape[1] != proxies.shape[1]:
        raise ValueError(f"{name} must have as many dimensions as x, {x.shape[1]}, got {proxies.shape[1]}")
    if len(proxies) < at_least:
        raise ValueError(f"{name} must be at least {at_least}, one for each meta-class, got {len(proxies)}")
    found = check_labels(meta_class, len(x), "meta_class").to(x.device)
    _check_range(found, len(proxies))
    return found


def proxy_terms(similarity: Tensor, meta_class: Tensor, margin: float, violated_only: bool = False) -> Tensor:
    """For each image log(1 + sum of e^(similarity to another proxy minus that to its own, plus margin)).

    Args:
        similarity: ``(N, K)`` of images to proxies.
        meta_class: ``(N,)``.
        margin: m.
        violated_only: leave terms with an exponent below zero out of the sum.
    """
    own = similarity.gather(1, meta_class.unsqueeze(1))
    exponents = similarity - own + margin
    left_out = functional.one_hot(meta_class, similarity.shape[1]).bool()
    if violated_only:
        left_out = left_out | (exponents < 0)
    return functional.pad(exponents.masked_fill(left_out, -torch.inf), (0, 1)).logsumexp(dim=-1)


def mean_npair(similarity: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of eq. 3 over all pairs of an anchor and a positive, from similarities ``(N, N)``."""
    same = labels.unsqueeze(1) == labels
    anchors, positives = (same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).nonzero(
        as_tuple=True
    )
    if not len(anchors):
        return similarity.sum() * 0  # a batch without a positive teaches nothing, and has a gradient
    # Each anchor's negatives are summed once: the sum of e^(s- - s+ + m) is e^(logsumexp of s- - s+ + m).
    without = same.all(dim=1)
    hidden = same & ~without.unsqueeze(1)  # the sum of nothing has no gradient: such rows are set afterwards
    of_negatives = similarity.masked_fill(hidden, -torch.inf).logsumexp(dim=1)
    of_negatives = of_negatives.masked_fill(without, -torch.inf)
    exponents = of_negatives[anchors] - similarity[anchors, positives] + margin
    return functional.pad(exponents.unsqueeze(1), (0, 1)).logsumexp(dim=1).mean()


def _check_range(meta_class: Tensor, n_meta: int) -> None:
    if len(meta_class) and (int(meta_class.min()) < 0 or int(meta_class.max()) >= n_meta):
        found = f"{int(meta_class.min())} to {int(meta_class.max())}"
        raise ValueError(f"meta_class must be numbers from 0 to {n_meta - 1}, got {found}")


def _by_meta_class(x: Tensor, meta_class: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Images ``(K, n, d)`` of each meta-class, filled up with the anchor, and which of them are present."""
    n_meta = len(anchors)
    counts = meta_class.bincount(minlength=n_meta)
    order = meta_class.sort(stable=True).indices
    of_meta = meta_class[order]
    place = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts)[of_meta]
    widest = max(1, int(counts.max()))
    members = anchors.unsqueeze(1).repeat(1, widest, 1)
    members[of_meta, place] = x[order]
    present = torch.zeros(n_meta, widest, dtype=torch.bool, device=x.device)
    # The set D_k without p_k: an image that is the proxy itself is no term of its sum.
    present[of_meta, place] = (x[order] != anchors[of_meta]).any(dim=1)
    return members, present
