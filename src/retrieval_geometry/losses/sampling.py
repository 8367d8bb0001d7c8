"""Distance-weighted sampling of negatives (Wu et al. 2017), for all anchors of a batch at once."""

import math

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from retrieval_geometry._check import check_number, check_seed, check_shape
from retrieval_geometry.losses._batch import check_batch

NEAREST, FARTHEST = 0.5, 1.4
"""Closer negatives count as this close; farther ones than the second give a margin loss no gradient."""


def distance_weights(
    distances: Tensor, allowed: Tensor, dim: int, nearest: float = NEAREST, farthest: float = FARTHEST
) -> Tensor:
    r"""Weights of the negatives of each anchor: 1 over the density of distances on the sphere.

    .. math:: w(d) \propto d^{2 - D} (1 - d^2 / 4)^{(3 - D) / 2}

    at d not below ``nearest``, and 0 beyond ``farthest``. The logarithms are relative to the maximum of their
    own *row*: between a distance of 0.5 and one of 1.4 they fall by 92 at D = 128 and by 370 at D = 512. With
    one maximum for all rows, as in pytorch-metric-learning, a single close pair takes the weights of all
    other anchors out of the range of float32.

    Source: Wu et al. 2017, section 4. Derived in chapter 10.

    Args:
        distances: ``(B, B)`` Euclidean distances of points on the unit sphere.
        allowed: ``(B, B)``, true where the column may be a negative of the row.
        dim: D, the dimension of the embedding.
        nearest: distances below count as this one, so that a noisy few are not drawn all the time.
        farthest: pairs beyond are never drawn; below 2.

    Returns:
        ``(B, B)``; the largest of a row is 1, or the row is 0 where nothing is allowed within ``farthest``.

    Raises:
        ValueError: the shapes differ, or a bound is outside (0, 2).

    Example:
        >>> d = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> distance_weights(d, d > 0, dim=8)
        tensor([[0., 1.],
                [1., 0.]])
    """
    _check_bounds(nearest, farthest)
    check_shape(allowed, "allowed", tuple(distances.shape))
    # log w(d) = (2 - D) log d + (3 - D) / 2 log(1 - d^2 / 4): the inverse density, as logarithms.
    clamped = distances.detach().clamp(nearest, farthest)
    logs = clamped.log().mul_(2 - dim).sub_(clamped.square().mul_(-0.25).log1p_(), alpha=(dim - 3) / 2)
    logs = logs.masked_fill_(~(allowed & (distances < farthest)), -math.inf)
    highest = logs.amax(dim=1, keepdim=True)
    # A row without a candidate has the maximum -inf, and -inf - -inf is no number.
    return logs.sub_(highest.masked_fill_(highest == -math.inf, 0)).exp_()


def _check_bounds(nearest: float, farthest: float) -> None:
    if not check_number(farthest, "farthest", above=0) < 2:
        raise ValueError(f"farthest must be below 2, the diameter of the sphere, and above 0; got {farthest}")
    check_number(nearest, "nearest", above=0, at_most=farthest)


def draw_negatives(weights: Tensor, anchors: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one negative for each entry of ``anchors``, with probability in proportion to its weight.

    The draws come from a generator on the CPU, so that they are the same on every device.

    Args:
        weights: ``(B, B)``, at least 0; an anchor whose row is 0 has no negative.
        anchors: ``(T,)`` rows, one for each draw.
        generator: on the CPU.

    Returns:
        Positions in ``anchors`` that got a negative, ``(S,)``, and the negatives, ``(S,)``.

    Example:
        >>> weights = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> draw_negatives(weights, torch.tensor([0, 0, 1]), torch.Generator())
        (tensor([0, 1]), tensor([1, 1]))
    """
    n = len(weights)
    cumulated = weights.double().cumsum(dim=1)
    total = cumulated[:, -1:].clone()
    # All rows on one line, row i from i to i + 1: one search serves all draws.
    line = cumulated.div_(torch.where(total > 0, total, 1.0)).add_(
        torch.arange(n, device=weights.device).unsqueeze(1)
    )
    # Below 1 by more than the rounding of a row's end, or a draw would fall into the next row.
    drawn = torch.rand(len(anchors), generator=generator, dtype=torch.float64).clamp_(max=1 - 1e-12)
    places = torch.searchsorted(line.flatten(), anchors + drawn.to(weights.device), right=True)
    found = (total.squeeze(1) > 0)[anchors].nonzero().squeeze(1)
    return found, (places - anchors * n)[found]


class RowDistanceWeightedMiner(BaseMiner):
    """Miner of one negative for each positive pair, drawn by its distance from the anchor.

    Source: Wu et al. 2017, section 4, with one maximum a row (see :func:`distance_weights`). Derived in
    chapter 10.

    It takes embeddings ``(B, D)`` and labels ``(B,)`` and gives triplets, three tensors ``(T,)`` of anchors,
    positives and negatives. An anchor without a negative within ``farthest`` gives no triplet. The state of
    the generator is part of ``state_dict``, so that an interrupted run goes on with the same draws.

    Args:
        nearest: see :func:`distance_weights`.
        farthest: see :func:`distance_weights`.
        seed: of the generator.

    Raises:
        ValueError: a bound is outside (0, 2), or ``seed`` is no whole number.

    Example:
        >>> x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.5]]))
        >>> RowDistanceWeightedMiner()(x, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """

    def __init__(self, nearest: float = NEAREST, farthest: float = FARTHEST, seed: int = 0) -> None:
        super().__init__()
        _check_bounds(nearest, farthest)
        self.nearest, self.farthest = nearest, farthest
        self.generator = torch.Generator().manual_seed(check_seed(seed))

    def forward(self, embeddings: Tensor, labels: Tensor, *others: object) -> tuple[Tensor, ...]:
        """The triplets of a batch, checked; further arguments are those of pytorch-metric-learning."""
        return super().forward(embeddings, check_batch(embeddings, labels), *others)

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and negatives of the triplets, each ``(T,)``."""
        if ref_emb is not embeddings:
            raise ValueError("ref_emb must be left out: negatives are drawn from the batch itself")
        same = labels.unsqueeze(1) == labels
        weights = distance_weights(
            self.distance(embeddings), ~same, embeddings.shape[1], self.nearest, self.farthest
        )
        anchors, positives = same.fill_diagonal_(False).nonzero(as_tuple=True)
        found, negatives = draw_negatives(weights, anchors, self.generator)
        return anchors[found], positives[found], negatives

    def get_extra_state(self) -> dict[str, Tensor]:
        """State of the generator, for ``state_dict``."""
        return {"generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up the draws where :meth:`get_extra_state` left them."""
        self.generator.set_state(state["generator"].cpu())
