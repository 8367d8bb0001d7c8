"""What is reported of embeddings, against pytorch-metric-learning and by hand."""

import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from retrieval_geometry.evaluation import (
    average_precision,
    bootstrap_interval,
    evaluate_embeddings,
    precision_at_k,
    recall_at_k,
    seed_interval,
)


def classes(n_classes=12, per_class=9, noise=0.9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    centres = torch.randn(n_classes, 8, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), 8, generator=generator), labels


METRICS = {"precision_at_1": "P@1", "r_precision": "P@R", "mean_average_precision_at_r": "AP@R"}


@pytest.mark.parametrize("with_gallery", [True, False])
def test_against_pytorch_metric_learning(with_gallery):
    queries, labels = classes()
    gallery, gallery_labels = classes(per_class=5, seed=0)
    calculator = AccuracyCalculator(include=tuple(METRICS), k="max_bin_count")
    reference = (gallery, gallery_labels, False) if with_gallery else (None, None, False)
    expected = calculator.get_accuracy(queries, labels, *reference)
    ours = evaluate_embeddings(queries, labels, *(reference[:2] if with_gallery else ()), clustering=False)
    for theirs, name in METRICS.items():
        assert ours[name].interval.value == pytest.approx(expected[theirs], abs=1e-6)


def test_nmi_against_pytorch_metric_learning_where_the_clusters_are_clear():
    embeddings, labels = classes(noise=0.05)
    labels = labels // 2  # two clusters of points in each class: NMI below 1
    ours = evaluate_embeddings(embeddings[:, :1] * 0 + labels[:, None] + 0.1 * embeddings[:, :1], labels)
    assert ours["NMI"].interval.value == pytest.approx(1)
    assert ours["F1"].interval.value == pytest.approx(1)
    noisy, classes_of = classes(noise=1.2)
    found = evaluate_embeddings(noisy, classes_of)
    theirs = AccuracyCalculator(include=("NMI",)).get_accuracy(noisy, classes_of)["NMI"]
    assert found["NMI"].values.shape == (3,)
    assert abs(found["NMI"].interval.value - theirs) < 0.08
    assert found["F1"].interval.value < found["NMI"].interval.value < 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_each_value_is_that_of_the_ranking_written_out(metric, monkeypatch):
    monkeypatch.setattr("retrieval_geometry.evaluation.embeddings.RANKED_BYTES", 1600)  # several blocks
    embeddings, labels = classes()
    ours = evaluate_embeddings(
        embeddings, labels, ks=(1, 5), metric=metric, conventions=("full", "R", "k"), clustering=False
    )
    points = embeddings.double()
    if metric == "cosine":
        points = points / points.norm(dim=1, keepdim=True)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    ranked = labels[distances.argsort(dim=1)[:, :-1]]
    expected = {
        "R@1": recall_at_k(ranked, labels, 1),
        "R@5": recall_at_k(ranked, labels, 5),
        "P@1": precision_at_k(ranked, labels, 1),
        "P@5": precision_at_k(ranked, labels, 5),
        "P@R": precision_at_k(ranked, labels, 8),
        "AP (full)": average_precision(ranked, labels, "full"),
        "AP@R": average_precision(ranked, labels, "R"),
        "AP@5 (k)": average_precision(ranked, labels, "k", 5),
    }
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(ours[name].values, values)
        assert ours[name].interval == bootstrap_interval(values, groups=labels)  # other classes


def test_classes_of_several_sizes_have_their_own_r():
    points = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1]])
    found = evaluate_embeddings(points, torch.tensor([4, 4, 4, 9, 9]), ks=(1,))
    for name in ("R@1", "P@R", "AP@R", "NMI", "F1"):
        assert found[name].interval.value == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), {}, "queries must have shape"),
        ((torch.full((4, 2), torch.nan), torch.tensor([0, 0, 1, 1])), {"ks": (1,)}, "of image 0 has a NaN"),
        ((torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)), {}, "of one class"),
        (
            (torch.ones(4, 2), torch.tensor([0, 0, 0, 1])),
            {"ks": (1,)},
            r"query 3 \(label 1\) has no other image",
        ),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1, 1])), {"ks": (4,)}, "each of ks must be .* 1 to 3, got 4"),
        (
            (torch.ones(4, 2), torch.tensor([0, 0, 1, 1])),
            {"ks": ()},
            r"ks must be the k of .* got \(\)",
        ),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1])), {}, "labels must be 4 whole numbers"),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1j, 1j])), {}, "labels must be 4 whole numbers, .*complex64"),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1, 1])), {"seed": -1}, "seed must be a whole number"),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), torch.ones(4, 2)), {}, "belong together"),
        ((torch.ones(4, 2), torch.tensor([0, 0, 1, 1])), {"ks": (1,), "conventions": ("x",)}, "conventions"),
    ],
)
def test_what_is_refused(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate_embeddings(*arguments, **settings)


@pytest.mark.parametrize("scale", [1e-200, 1e160])
def test_squares_that_leave_float64_change_nothing(scale):
    embeddings, labels = classes()
    for metric in ("euclidean", "cosine"):
        found, expected = (
            evaluate_embeddings(x, labels, metric=metric)
            for x in (embeddings.double() * scale, embeddings.double())
        )
        for name, measure in expected.items():
            torch.testing.assert_close(found[name].values, measure.values)


def test_a_query_whose_class_the_gallery_lacks():
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"query 2 \(label 2\)"):
        evaluate_embeddings(torch.ones(3, 2), labels, torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), ks=(1,))


def test_seed_interval_is_students():
    """Student 1908; t with two degrees of freedom at 97.5 % is 4.30265."""
    interval = seed_interval([1.0, 2.0, 3.0])
    assert interval.value == 2
    assert interval.high - 2 == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert 2 - interval.low == pytest.approx(interval.high - 2)
    for values, message in (([1.0], "at least two seeds"), ([1.0, float("nan")], "must be finite")):
        with pytest.raises(ValueError, match=message):
            seed_interval(values)
    with pytest.raises(ValueError, match="confidence"):
        seed_interval([1.0, 2.0], confidence=1.0)
