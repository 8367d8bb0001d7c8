"""RankMI: the embedding is trained to tell distances of matching pairs from those of the others."""

import math
from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count, check_number, check_seed
from retrieval_geometry._seeded import seeded
from retrieval_geometry.losses._batch import check_batch, check_directions
from retrieval_geometry.losses.sampling import distance_weights, draw_negatives
from retrieval_geometry.losses.statistics_network import (
    StatisticsNetwork,
    divergence_bound,
    find_beta,
    negative_score,
    positive_score,
)

SAMPLING = ("distance", "all")
GRID = 64


class RankMILoss(BaseMetricLossFunction):
    r"""RankMI loss: minus the estimated divergence between distances of matching and of other pairs.

    .. math:: \mathcal{L} = -\frac1{|P|} \sum_{P} T(d_{ij}) - \frac1{|N|} \sum_{N} \log(2 - e^{T(d_{ij})})

    Source: [rankmi] eq. 6 and Algorithm 1. Derived in chapter 13.

    Call the loss with embeddings ``(B, D)`` and labels ``(B,)``, and :meth:`inner_step` before each step of
    the embedding: it climbs the bound on all pairs i < j of the batch (section 3.2; the listing of Algorithm
    1 forgets to leave i = j out, erratum 3.5) and finds :math:`\beta`. Algorithm 1 begins with the embedding,
    which is harmless; here the statistics come first. The loss then keeps matching pairs beyond :math:`\beta
    - \alpha` and others within :math:`\beta + \alpha`, and draws one of the latter for each matching pair.
    Several updates share the batch of the embedding step; the paper takes a batch for each.

    The statistics network is no parameter to the outer optimiser: it asks for no gradient outside
    :meth:`inner_step`, which owns an Adam. ``state_dict`` holds the network, beta, the optimiser and the
    state of the draws. If a batch lacks one kind of pair, that kind adds nothing to the loss, and the
    statistics stay as they are.

    Args:
        updates: k, steps of the statistics network on each batch.
        margin: alpha; infinity keeps all pairs.
        sampling: ``"distance"``, distance-weighted negatives for vectors on the sphere, or ``"all"``.
        monotonicity: weight of a penalty on slopes of V above 0, at even steps between 0 and the largest
            distance of the batch: mean of :math:`[V'(d)]_+`. 0, as in the paper, is none.
        distance: between embeddings; by default Euclidean on the unit sphere.
        hidden: width of the statistics network.
        depth: number of its inner layers.
        learning_rate: of the statistics network.
        weight_decay: of the statistics network.
        seed: of its weights and of the draws.

    Raises:
        ValueError: a setting out of range; on call, a batch that is no batch, an embedding that is zero, or
            anything but vectors under ``sampling="distance"``.

    Example:
        >>> loss = RankMILoss(margin=float("inf"), sampling="all")
        >>> x, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        >>> before = loss(x, labels)
        >>> for _ in range(20):
        ...     loss.inner_step(x, labels)
        >>> bool(loss(x, labels) < before)
        True
    """

    beta: Tensor

    def __init__(
        self,
        updates: int = 1,
        margin: float = 0.2,
        sampling: str = "distance",
        monotonicity: float = 0.0,
        distance: BaseDistance | None = None,
        hidden: int = 128,
        depth: int = 2,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(distance=distance)
        self.updates = check_count(updates, "updates")
        self.margin = margin if margin == math.inf else check_number(margin, "margin", at_least=0)
        self.sampling = check_choice(sampling, "sampling", SAMPLING)
        self.monotonicity = check_number(monotonicity, "monotonicity", at_least=0)
        check_number(learning_rate, "learning_rate", above=0, at_most=100)
        check_number(weight_decay, "weight_decay", at_least=0, at_most=100)
        self.generator = torch.Generator().manual_seed(check_seed(seed))
        with seeded(seed):
            self.statistics = StatisticsNetwork(hidden, depth).requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.statistics.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self.register_buffer("beta", torch.tensor(1.0, dtype=torch.float64))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar, for the embedding network; the statistics stay as they are."""
        return super().forward(embeddings, self._check(embeddings, labels))

    def inner_step(self, embeddings: Tensor, labels: Tensor) -> None:
        """Train the statistics network on all pairs of the batch, then find beta."""
        labels = self._check(embeddings, labels)
        with torch.no_grad():
            distances = self.distance(embeddings.detach())
        # Algorithm 1, lines 6-8 with erratum 3.5: each pair once, and no image with itself.
        above = torch.ones_like(distances, dtype=torch.bool).triu(1)
        same = labels.unsqueeze(1) == labels
        positive, negative = distances[same & above], distances[~same & above]
        if not (len(positive) and len(negative)):
            return
        highest = float(distances.max())
        self.statistics.requires_grad_(True)
        try:
            for _ in range(self.updates):
                self._update(positive, negative, highest)
        finally:
            self.statistics.requires_grad_(False)
        beta = float(self.beta)  # the last root is near the next: the search begins there
        self.beta.fill_(find_beta(self.statistics, beta, 0.0, max(highest, beta), distances.device))

    def _update(self, positive: Tensor, negative: Tensor, highest: float) -> None:
        with torch.enable_grad():
            values = self.statistics(torch.cat([positive, negative]))
            # Algorithm 1, line 11: ascent on eq. 6 in the statistics alone; distances carry no gradient.
            loss = -divergence_bound(values[: len(positive)], values[len(positive) :])
            if self.monotonicity and highest > 0:
                grid = torch.linspace(0, highest, GRID, dtype=positive.dtype, device=positive.device)
                # Eq. 9 asks for a V that falls; slopes above 0 are charged.
                slope = self.statistics(grid).diff() * (GRID - 1) / highest
                loss = loss + self.monotonicity * slope.relu().mean()
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # no gradient is left behind for the outer optimiser

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: None, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, dict[str, Any]]:
        """Terms of the pairs that are kept, in the form that reducers of pytorch-metric-learning take."""
        distances = self.distance(embeddings)
        positive, negative = self._pairs(distances.detach(), labels, embeddings.shape[-1])
        terms = {
            "pos_loss": (positive, positive_score, "pos_pair"),
            "neg_loss": (negative, negative_score, "neg_pair"),
        }
        return {
            name: {
                # Minus T of eq. 7 for matches, minus log(2 - e^T) for the others; a reducer takes the means.
                "losses": -score(self.statistics(distances[pairs])) if len(pairs[0]) else 0,
                "indices": pairs,
                "reduction_type": kind,
            }
            for name, (pairs, score, kind) in terms.items()
        }

    def _pairs(
        self, distances: Tensor, labels: Tensor, dim: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Matching pairs and others that take part (Algorithm 1, lines 19-21)."""
        same = labels.unsqueeze(1) == labels
        allowed = ~same & (distances < self.beta + self.margin)
        same.fill_diagonal_(False)
        first, second = (same & (distances > self.beta - self.margin)).nonzero(as_tuple=True)
        if self.sampling == "all":
            anchors, others = allowed.nonzero(as_tuple=True)
            return (first, second), (anchors, others)
        # One negative for every match of the batch, also for those that the margin left out.
        anchors = same.nonzero(as_tuple=True)[0]
        found, others = draw_negatives(distance_weights(distances, allowed, dim), anchors, self.generator)
        return (first, second), (anchors[found], others)

    def _check(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = check_batch(embeddings, labels)
        if self.sampling == "distance" or embeddings.ndim == 2:
            check_directions(embeddings)
        return labels

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]

    def get_extra_state(self) -> dict[str, Any]:
        """States of the inner optimiser and of the draws, for ``state_dict``."""
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up optimiser and draws where :meth:`get_extra_state` left them."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
