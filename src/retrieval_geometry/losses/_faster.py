"""Two losses of pytorch-metric-learning with the same values in a fraction of the time.

The library's histogram loss sorts all triplets to find its pairs; its lifted structure loss has a row of all
negative pairs for each positive one. Both need no more than the matrix of the pairs.
"""

from typing import Any

import torch
from pytorch_metric_learning import losses
from torch import Tensor


class HistogramLoss(losses.HistogramLoss):
    """The library's histogram loss on pairs read off the labels; it takes no pairs of a miner."""

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: None, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, Any]:
        """The loss of a batch in the library's form."""
        matching = labels.unsqueeze(1) == labels
        each_once = torch.ones_like(matching).triu(1)
        # A triplet has an anchor with a match: pairs of two images without one are in none.
        anchored = (matching.sum(dim=1) > 1).unsqueeze(1)
        positive, negative = matching & each_once, ~matching & each_once & (anchored | anchored.mT)
        if not positive.any() or not negative.any():
            return self.zero_losses()
        cosines = self.distance(embeddings, ref_emb)
        matched = self.compute_density(cosines[positive]).cumsum(dim=0)
        loss = (self.compute_density(cosines[negative]) * matched).sum()
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}


class LiftedStructureLoss(losses.LiftedStructureLoss):
    """The library's lifted structure loss, each image's sum over its negatives taken once."""

    def _compute_loss(
        self, pos_pairs: Tensor, neg_pairs: Tensor, indices_tuple: tuple[Tensor, ...]
    ) -> dict[str, Any]:
        a1, p, a2, n = indices_tuple
        with_negatives = a2.unique()
        if len(a1) == 0 or not torch.isin(torch.cat([a1, p]), with_negatives).all():
            return super()._compute_loss(pos_pairs, neg_pairs, indices_tuple)
        # The negatives of a pair are those of its two images: the logarithm of the sum of two sums.
        margins = neg_pairs.new_full((len(with_negatives), int(n.max()) + 1), -torch.inf)
        rows = torch.searchsorted(with_negatives, a2)
        margins = margins.index_put((rows, n), self.distance.margin(self.neg_margin, neg_pairs))
        sums = margins.logsumexp(dim=1)
        first, second = (sums[torch.searchsorted(with_negatives, images)] for images in (a1, p))
        gaps = torch.logaddexp(first, second) + self.distance.margin(pos_pairs, self.pos_margin)
        # Each positive pair comes twice.
        values = torch.relu(gaps).square() / 2
        return {"loss": {"losses": values.unsqueeze(1), "indices": (a1, p), "reduction_type": "pos_pair"}}
