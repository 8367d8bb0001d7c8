"""Optimal transport inside the loss: images compared as measures by the losses of metric learning."""

from typing import TypedDict, Unpack

import torch
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction, ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from retrieval_geometry._check import (
    check_choice,
    check_coordinates,
    check_count,
    check_finite,
    check_flag,
    check_floating,
    check_number,
    check_shape,
)
from retrieval_geometry._tolerances import ZERO_LENGTH
from retrieval_geometry.distances import pairwise_exact_transport_cost, pairwise_sinkhorn_divergence
from retrieval_geometry.losses._batch import check_batch

MEASURES = ("features", "atoms", "histogram")
"""Readings of an embedding as the measure of an image."""


class SinkhornDistance(BaseDistance):
    r"""Transport between images, as a distance for any loss or miner of pytorch-metric-learning.

    .. math:: d_w(i, j) = S_\varepsilon(\mu_i, \mu_j)^{1/p}

    Source: [wasserstein-dml] eqs. 3-4, erratum 2.1. Derived in chapter 11.

    Here :math:`S_\varepsilon` is :func:`~retrieval_geometry.distances.sinkhorn_divergence`: debiasing applies
    to the p-th power, and the root comes last. The paper leaves the measure :math:`\mu_i` of an image open.
    Three readings:

    - ``"features"``: embeddings ``(B, n, d)`` are n local features of equal mass;
    - ``"atoms"``: a vector ``(B, D)`` is cut into ``atoms`` points of D / atoms numbers, of equal mass;
    - ``"histogram"``: the softmax of ``(B, D)`` gives masses to D positions at equal steps on [0, 1].

    Args:
        p: 1 or 2, the power of the ground distance.
        epsilon: strength of the regularisation, in units of the ground distance to the power p.
        measure: one of the three readings.
        atoms: number of pieces of a vector, for ``"atoms"``.
        debias: without it, the entropic cost alone: it is not zero between equal measures.
        exact: the p-Wasserstein distance itself, without epsilon: by linear assignment between sets of equal
            size, and by cumulative sums between histograms (p = 1).
        normalize_embeddings: put each local feature, or the vector before it is cut, on the unit sphere; one
            that is zero stays at the origin. A histogram's masses are normalised by the softmax instead.

    Raises:
        ValueError: a setting out of range; on call, embeddings of another shape than the reading needs,
            values that are not finite, a vector that cannot be cut, or sets of unequal size under ``exact``.

    Example:
        >>> x = torch.tensor([[[0.0], [1.0]], [[3.0], [4.0]]])
        >>> SinkhornDistance(p=2, normalize_embeddings=False)(x).round(decimals=3)  # a shift by 3
        tensor([[0., 3.],
                [3., 0.]])
    """

    def __init__(
        self,
        p: int = 1,
        epsilon: float = 0.05,
        measure: str = "features",
        atoms: int = 8,
        debias: bool = True,
        exact: bool = False,
        normalize_embeddings: bool = True,
    ) -> None:
        check_choice(measure, "measure", MEASURES)
        if isinstance(p, bool) or p not in (1, 2):
            raise ValueError(f"p must be one of 1, 2; got {p!r}")
        if exact and measure == "histogram" and p == 2:
            raise ValueError("exact histograms are for p = 1; take p=1, or exact=False")
        check_flag(normalize_embeddings, "normalize_embeddings")
        super().__init__(normalize_embeddings=normalize_embeddings and measure != "histogram", p=p)
        self.epsilon = check_number(epsilon, "epsilon", above=0)
        self.measure = measure
        self.debias, self.exact = check_flag(debias, "debias"), check_flag(exact, "exact")
        self.atoms = check_count(atoms, "atoms")

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        """Distances ``(P, Q)`` of P images from Q; each pair once where both are the same tensor."""
        return super().forward(query_emb, None if ref_emb is query_emb else ref_emb)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances ``(P, Q)`` of images that are normalised already."""
        x, a = self._measures(query_emb)
        # The same object tells the divergence that each pair is needed once.
        y, b = (x, a) if ref_emb is query_emb else self._measures(ref_emb)
        if self.exact:
            if a is not None and b is not None:
                return _histogram_distances(a, b)
            return self._root(pairwise_exact_transport_cost(x, y, self.p), x, y)
        # Eq. 4 on the p-th powers, and the root after it (erratum 2.1).
        power = pairwise_sinkhorn_divergence(x, y, a, b, self.p, self.epsilon, self.debias)
        return self._root(power, x, y)

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances ``(B,)`` of the i-th image of one batch from the i-th of the other."""
        # One pair at a time: the miners of the library ask for few.
        pairs = zip(query_emb.split(1), ref_emb.split(1), strict=True)
        return torch.cat([self.compute_mat(x, y).flatten() for x, y in pairs])

    def normalize(self, embeddings: Tensor, dim: int = -1, **kwargs: object) -> Tensor:
        """Put the last axis on the unit sphere, whatever ``dim`` says; zeros stay zeros."""
        norm = self.get_norm(embeddings).unsqueeze(-1)
        return embeddings / torch.where(norm > ZERO_LENGTH, norm, 1.0)

    def get_norm(self, embeddings: Tensor, dim: int = -1, **kwargs: object) -> Tensor:
        """Euclidean norms along the last axis, whatever ``p`` and ``dim`` are."""
        return torch.linalg.vector_norm(embeddings, dim=-1)

    def check_shapes(self, query_emb: Tensor, ref_emb: Tensor | None) -> None:
        """Refuse embeddings that cannot be read as measures."""
        axes: tuple[str, ...] = ("images", "dimensions")
        if self.measure == "features":
            axes = ("images", "features", "dimensions")
        for embeddings in (query_emb,) if ref_emb is None else (query_emb, ref_emb):
            name = f'embeddings (read as measure="{self.measure}")'
            check_shape(check_floating(embeddings, name), name, axes)
            check_coordinates(check_finite(embeddings, name), name)
            if self.measure == "atoms" and embeddings.shape[1] % self.atoms:
                raise ValueError(
                    f"atoms={self.atoms} must divide the {embeddings.shape[1]} dimensions of the embeddings"
                )

    def _measures(self, embeddings: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points ``(B, n, d)`` and their masses ``(B, n)``, None where these are equal."""
        if self.measure == "features":
            return embeddings, None
        if self.measure == "atoms":
            return embeddings.unflatten(1, (self.atoms, -1)), None
        # Third reading: positions are common to all images, masses differ.
        positions = torch.linspace(0, 1, embeddings.shape[1]).to(embeddings)
        return positions.unsqueeze(1).expand(len(embeddings), -1, -1), embeddings.softmax(dim=1)

    def _root(self, power: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Root of order p; powers within rounding of the size of their points give 0 and a gradient of 0."""
        if self.p == 1:
            return power
        # The root of rounding, 1e-8, would be a distance with an infinite slope.
        size_x, size_y = (points.detach().square().sum(dim=2).mean(dim=1) for points in (x, y))
        rounding = torch.finfo(power.dtype).eps * torch.maximum(size_x.unsqueeze(1), size_y)
        positive = power > rounding
        return torch.where(positive, torch.where(positive, power, 1.0).sqrt(), 0.0)


def _histogram_distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact W_1 ``(P, Q)`` of histograms ``(P, D)``, ``(Q, D)`` on equal steps of [0, 1].

    In one dimension it is the area between the two distribution functions.
    """
    # The last value of a distribution function is 1, and adds nothing.
    below_a, below_b = (masses.cumsum(dim=1)[:, :-1] for masses in (a, b))
    return torch.cdist(below_a, below_b, p=1) / max(1, a.shape[1] - 1)


class TransportSettings(TypedDict, total=False):
    """Settings of :class:`SinkhornDistance` that a loss passes on."""

    p: int
    epsilon: float
    measure: str
    atoms: int
    debias: bool
    exact: bool


class _OnTransport(BaseMetricLossFunction):
    """A loss of the library, named behind this class among the bases, on transport between images."""

    def __init__(self, settings: TransportSettings, **margins: float) -> None:
        super().__init__(distance=SinkhornDistance(**settings), reducer=MeanReducer(), **margins)

    def forward(self, embeddings: Tensor, labels: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The loss of a batch, a scalar; further arguments are those of pytorch-metric-learning."""
        return super().forward(embeddings, check_batch(embeddings, labels), *args, **kwargs)


class WassersteinContrastiveLoss(_OnTransport, ContrastiveLoss):
    r"""Contrastive loss on transport distances.

    .. math:: \frac1{|P|} \sum_{(i,j) \in P} d_w(i, j) + \frac1{|N|} \sum_{(i,j) \in N}
              [\gamma - d_w(i, j)]_+

    Source: [wasserstein-dml] eq. 1. Derived in chapter 11.

    It takes embeddings ``(B, n, d)``, or ``(B, D)`` under the other two measures, and labels ``(B,)``. The
    paper's b counts the pairs; positive and negative pairs are averaged apart, as each has its own number in
    a batch. The class is :class:`pytorch_metric_learning.losses.ContrastiveLoss` with
    :class:`SinkhornDistance`. A batch without positive (negative) pairs has only the other sum; without both
    the loss is 0.

    Args:
        margin: :math:`\gamma`, in units of the distance (points on the unit sphere are at most 2 apart).
        transport: ``p``, ``epsilon``, ``measure``, ``atoms``, ``debias``, ``exact`` by name, see
            :class:`SinkhornDistance`.

    Raises:
        ValueError: a setting out of range; on call, what :class:`SinkhornDistance` refuses, or labels that
            are not one whole number for each image.

    Example:
        >>> x = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
        >>> WassersteinContrastiveLoss(margin=2.0)(x, torch.tensor([0, 0, 1])).round(decimals=2)
        tensor(0.5900)
    """

    def __init__(self, margin: float = 1.0, **transport: Unpack[TransportSettings]) -> None:
        check_number(margin, "margin", at_least=0)
        super().__init__(transport, pos_margin=0, neg_margin=margin)


class WassersteinTripletLoss(_OnTransport, TripletMarginLoss):
    r"""Triplet loss on transport distances.

    .. math:: \frac1{|T|} \sum_{(a, p, n) \in T} [d_w(a, p) - d_w(a, n) + \gamma]_+

    Source: [wasserstein-dml] eq. 2. Derived in chapter 11.

    It takes embeddings ``(B, n, d)``, or ``(B, D)`` under the other two measures, and labels ``(B,)``. T
    holds all triplets of the batch, or those of a miner of pytorch-metric-learning, the third argument of the
    call. The class is :class:`pytorch_metric_learning.losses.TripletMarginLoss` with
    :class:`SinkhornDistance`; a batch without triplets has the loss 0.

    Args:
        margin: :math:`\gamma`, in units of the distance.
        transport: ``p``, ``epsilon``, ``measure``, ``atoms``, ``debias``, ``exact`` by name, see
            :class:`SinkhornDistance`.

    Raises:
        ValueError: as :class:`WassersteinContrastiveLoss`.

    Example:
        >>> x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
        >>> WassersteinTripletLoss(margin=0.2)(x, torch.tensor([0, 0, 1])).round(decimals=2)
        tensor(0.9100)
    """

    def __init__(self, margin: float = 0.2, **transport: Unpack[TransportSettings]) -> None:
        check_number(margin, "margin", at_least=0)
        super().__init__(transport, margin=margin)
