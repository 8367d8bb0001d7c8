"""The weights of the members of an ensemble, chosen on validation classes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import check_count, check_finite, check_kind, check_labels, check_shape


def ensemble_weights(embeddings: Sequence[Tensor], labels: Tensor, rounds: int | None = None) -> Tensor:
    """Weights of the members of an ensemble, by greedy selection with replacement.

    Source: Caruana et al. 2004, for the weights of [edms] eq. 1. Used in no chapter.

    The member that lifts R@1 on the given images most is added to the sum of similarities, and may be added
    again; its weight is how often it was. R@1 counts, of equal ones the larger mean similarity to the nearest
    image of the own class over that to the nearest other one.

    Args:
        embeddings: of each of the E members ``(n, d)``, of validation images; scaled to length one here.
        labels: ``(n,)``; two images at least of some class.
        rounds: of the selection; 4 E by default.

    Returns:
        ``(E,)`` float64 that sum to 1.

    Raises:
        ValueError: no members, one that is no finite ``(n, d)``, of different numbers of images, labels that
            do not fit, no class with two images, or no second class.

    Example:
        >>> good, bad = torch.eye(2)[[0, 0, 1, 1]], torch.eye(2)[[0, 1, 0, 1]]
        >>> ensemble_weights([bad, good], torch.tensor([0, 0, 1, 1]))
        tensor([0., 1.], dtype=torch.float64)
    """
    if not len(embeddings):
        raise ValueError("embeddings must hold at least one member")
    for number, one in enumerate(embeddings):
        check_shape(check_kind(one, f"embeddings[{number}]", Tensor), f"embeddings[{number}]", ("n", "d"))
        check_finite(one, f"embeddings[{number}]")
    sizes = [len(one) for one in embeddings]
    if len(set(sizes)) > 1:
        raise ValueError(f"embeddings must be of the same images for each member, got {sizes} of them")
    members = len(embeddings)
    rounds = 4 * members if rounds is None else check_count(rounds, "rounds")
    labels = check_labels(labels, sizes[0]).cpu()
    same = labels.unsqueeze(1) == labels
    itself = torch.eye(sizes[0], dtype=torch.bool)
    asked = (same & ~itself).any(dim=1)
    if not asked.any() or same.all():
        raise ValueError("labels must have a class with two images, and a second class")
    units = [functional.normalize(one.detach().double().cpu(), dim=1) for one in embeddings]
    counts, total = torch.zeros(members, dtype=torch.float64), torch.zeros(sizes[0], sizes[0]).double()
    for _ in range(rounds):
        scores = [_score(total + unit @ unit.mT, same & ~itself, ~same, asked) for unit in units]
        best = scores.index(max(scores))  # the first of equal ones
        counts[best] += 1
        total += units[best] @ units[best].mT
    return counts / rounds


def _score(similarity: Tensor, right: Tensor, wrong: Tensor, asked: Tensor) -> tuple[float, float]:
    """R@1 of the images that are asked, and by how much the nearest right image leads."""
    own, other = (similarity.masked_fill(~kind, -torch.inf).amax(dim=1)[asked] for kind in (right, wrong))
    lead = own - other
    return round(float((lead > 0).double().mean()), 9), round(float(lead.mean()), 9)
