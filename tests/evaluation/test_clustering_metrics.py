"""NMI and pairwise F1: against scikit-learn, entropies and loops over pairs."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from retrieval_geometry.evaluation import normalized_mutual_information, pairwise_f1


def _labels(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, n), rng.integers(0, 6, n)


def _entropy(labels: np.ndarray) -> float:
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def test_mutual_information_over_the_mean_entropy():
    classes, clusters = _labels()
    expected = mutual_info_score(classes, clusters) / ((_entropy(classes) + _entropy(clusters)) / 2)
    assert normalized_mutual_information(classes, clusters) == pytest.approx(expected)


def test_f1_by_a_loop_over_pairs():
    classes, clusters = _labels()
    pairs = list(combinations(range(len(classes)), 2))
    together = {pair for pair in pairs if clusters[pair[0]] == clusters[pair[1]]}
    alike = {pair for pair in pairs if classes[pair[0]] == classes[pair[1]]}
    precision, recall = len(together & alike) / len(together), len(together & alike) / len(alike)
    assert pairwise_f1(classes, clusters) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("score", [normalized_mutual_information, pairwise_f1])
def test_names_do_not_matter_and_agreement_is_one(score):
    classes, clusters = _labels()
    names = np.array(["f", "e", "d", "c", "b", "a"])
    assert score(classes, clusters) == pytest.approx(score(classes, names[clusters]))
    assert score(classes, clusters) == pytest.approx(score(clusters, classes))
    assert score(classes, 7 - classes) == pytest.approx(1)
    assert score(torch.from_numpy(classes), clusters.tolist()) == pytest.approx(score(classes, clusters))


def test_extremes():
    items = list(range(6))
    assert pairwise_f1(items, items) == 1.0
    assert pairwise_f1(items, [0] * 6) == 0.0
    assert normalized_mutual_information([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0, abs=1e-12)


def test_many_items_do_not_overflow():
    labels = np.zeros(200_000, dtype=np.int32)
    assert pairwise_f1(labels, labels) == 1.0


@pytest.mark.parametrize("score", [normalized_mutual_information, pairwise_f1])
@pytest.mark.parametrize(
    ("classes", "clusters", "message"),
    [
        ([0, 1], [0, 1, 2], "as long as each other, got 2 and 3"),
        ([], [], "classes must be a list"),
        ([[0, 1]], [[0, 1]], "classes must be a list"),
        ([0, 1], [0.5, 0.7], "clusters must be a list of integers"),
    ],
)
def test_bad_labels_are_refused(score, classes, clusters, message):
    with pytest.raises(ValueError, match=message):
        score(classes, clusters)
