"""Agreement of clusters with classes, whatever the names of the clusters."""

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from retrieval_geometry._check import check_dense

Labels = ArrayLike | Tensor


def normalized_mutual_information(classes: Labels, clusters: Labels) -> float:
    r"""Mutual information of classes and clusters over the mean of their entropies, in [0, 1].

    .. math:: \mathrm{NMI} = \frac{2\,I(Y; C)}{H(Y) + H(C)}

    Source: Manning et al. 2008, section 16.3. Derived in chapter 10.

    The mean is the arithmetic one, as in metric learning; scikit-learn computes it.

    Args:
        classes: ``(n,)`` labels.
        clusters: ``(n,)`` labels.

    Raises:
        ValueError: not two lists of labels of one length, or no label at all.

    Example:
        >>> normalized_mutual_information([0, 0, 1, 1], [5, 5, 3, 3])
        1.0
    """
    from sklearn.metrics import normalized_mutual_info_score  # slow to import

    found = _label_lists(classes, clusters)
    return float(normalized_mutual_info_score(*found, average_method="arithmetic"))


def pairwise_f1(classes: Labels, clusters: Labels) -> float:
    r"""F1 score of the pairs that share a cluster, as a guess of those that share a class.

    .. math:: F_1 = \frac{2\,|\text{same cluster and class}|}{|\text{same cluster}| + |\text{same class}|}

    Source: Manning et al. 2008, section 16.3. Derived in chapter 10.

    It lies in [0, 1], and is 1 where every item is a class and a cluster of its own. Classes and clusters are
    labels ``(n,)``, as for :func:`normalized_mutual_information`.

    Raises:
        ValueError: as :func:`normalized_mutual_information`.

    Example:
        >>> pairwise_f1([0, 0, 1, 1], [0, 0, 0, 1])
        0.4
    """
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(*_label_lists(classes, clusters), sparse=True)
    # A cell of the table holds the items of one class and one cluster: pairs inside cells share both.
    both = _n_pairs(table.data)
    either = _n_pairs(np.asarray(table.sum(axis=0))) + _n_pairs(np.asarray(table.sum(axis=1)))
    return 2 * both / either if either else 1.0


def _n_pairs(sizes: np.ndarray) -> int:
    """The number of pairs inside groups of these sizes."""
    return int((sizes.astype(np.int64) * (sizes.astype(np.int64) - 1) // 2).sum())


def _label_lists(classes: Labels, clusters: Labels) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for labels, name in ((classes, "classes"), (clusters, "clusters")):
        if isinstance(labels, Tensor):
            labels = check_dense(labels, name).detach().cpu().numpy()
        values = np.asarray(labels)
        if values.ndim != 1 or not len(values) or values.dtype.kind not in "biuUS":
            raise ValueError(
                f"{name} must be a list of integers or names, one per item, "
                f"got shape {values.shape} of {values.dtype}"
            )
        found.append(values)
    if len(found[0]) != len(found[1]):
        lengths = f"{len(found[0])} and {len(found[1])}"
        raise ValueError(f"classes and clusters must be as long as each other, got {lengths}")
    return found[0], found[1]
