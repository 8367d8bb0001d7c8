"""Precision, recall and the average precisions: by loops, against scikit-learn, and where they differ."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from retrieval_geometry.evaluation import (
    CONVENTIONS,
    average_precision,
    mean_average_precision,
    precision_at_k,
    recall_at_k,
)


def _rankings(
    n_queries: int = 30, n_items: int = 20, n_classes: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    ranked = torch.randint(n_classes, (n_queries, n_items), generator=source)
    return ranked, torch.randint(n_classes, (n_queries,), generator=source)


def _by_loops(ranked: list[int], query: int, convention: str, k: int, n_relevant: int) -> float:
    precisions, gains, hits = [], [], 0
    for rank, label in enumerate(ranked, start=1):
        hits += label == query
        precisions.append(hits / rank)
        gains.append(hits / rank if label == query else 0.0)
    hits_at_k = sum(label == query for label in ranked[:k])
    return {
        "full": sum(gains) / n_relevant,
        "R": sum(gains[:n_relevant]) / n_relevant,
        "k": sum(gains[:k]) / min(k, n_relevant),
        "hits": sum(gains[:k]) / hits_at_k if hits_at_k else 0.0,
        "ranks": sum(precisions[:k]) / k,
        "precision": hits_at_k / k,
    }[convention]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_precision_and_recall_by_loops(k):
    ranked, query = _rankings()
    hits = [
        sum(label == q for label in row[:k]) for row, q in zip(ranked.tolist(), query.tolist(), strict=True)
    ]
    assert precision_at_k(ranked, query, k).tolist() == pytest.approx([count / k for count in hits])
    assert recall_at_k(ranked, query, k).tolist() == [float(count > 0) for count in hits]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("k", [1, 4, 20])
def test_average_precisions_by_loops(convention, k):
    ranked, query = _rankings()
    counts = (ranked == query[:, None]).sum(1)
    expected = [
        _by_loops(row, q, convention, k, r)
        for row, q, r in zip(ranked.tolist(), query.tolist(), counts.tolist(), strict=True)
    ]
    assert average_precision(ranked, query, convention, k).tolist() == pytest.approx(expected)
    assert mean_average_precision(ranked, query, convention, k) == pytest.approx(np.mean(expected))


def test_full_is_scikit_learns():
    ranked, query = _rankings()
    scores = -np.arange(ranked.shape[1])
    expected = [
        average_precision_score(row == q, scores)
        for row, q in zip(ranked.numpy(), query.numpy(), strict=True)
    ]
    assert average_precision(ranked, query, "full").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("class_size", [2, 5])
def test_perfect_retrieval_of_a_small_class_scores_one(convention, class_size):
    # The query is not in its own ranking, so R = n - 1.
    ranked = torch.tensor([[1] * (class_size - 1) + [0] * 10])
    value = average_precision(ranked, torch.tensor([1]), convention, k=class_size - 1)
    assert float(value) == 1.0


@pytest.mark.parametrize(("class_size", "wrong"), [(2, 0.5), (5, 0.8)])
def test_counting_the_query_among_the_relevant_spoils_a_perfect_retrieval(class_size, wrong):
    # The trap of one well-known code base: AP divided by n instead of n - 1.
    ranked = torch.tensor([[1] * (class_size - 1) + [0] * 10])
    value = average_precision(ranked, torch.tensor([1]), "full", n_relevant=torch.tensor([class_size]))
    assert float(value) == pytest.approx(wrong)


def test_readings_of_table_1_agree_at_one_and_differ_at_ten():
    # "MAP Top-k" of [geometric] Table 1: four readings, one number at k = 1.
    ranked, query = _rankings()
    at_one = [mean_average_precision(ranked, query, c, k=1) for c in ("k", "hits", "ranks", "precision")]
    assert at_one == pytest.approx([float(precision_at_k(ranked, query, 1).mean())] * 4)
    at_ten = [mean_average_precision(ranked, query, c, k=10) for c in ("k", "hits", "ranks", "precision")]
    assert len({round(value, 3) for value in at_ten}) == 4
    assert at_ten[3] == pytest.approx(float(precision_at_k(ranked, query, 10).mean()))


def test_relevant_items_beyond_a_cut_ranking_count():
    ranked, query = torch.tensor([[1, 0, 1]]), torch.tensor([1])
    known = {"n_relevant": torch.tensor([4])}
    assert float(average_precision(ranked, query, "full", **known)) == pytest.approx((1 + 2 / 3) / 4)
    assert float(average_precision(ranked, query, "k", k=3, **known)) == pytest.approx((1 + 2 / 3) / 3)
    with pytest.raises(ValueError, match="query 0 has 4 relevant items, but the ranking stops at 3"):
        average_precision(ranked, query, "R", **known)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=2, max_size=15).filter(any), st.data())
def test_order_among_the_conventions(relevant, data):
    ranked, query = torch.tensor([relevant]).long(), torch.tensor([1])
    k = data.draw(st.integers(1, len(relevant)))
    value = {c: float(average_precision(ranked, query, c, k)) for c in CONVENTIONS}
    assert all(0 <= one <= 1 + 1e-12 for one in value.values())
    assert value["R"] <= value["full"] + 1e-12
    assert value["k"] <= value["hits"] + 1e-12
    # Moving a relevant item one place ahead never hurts.
    for i in range(1, len(relevant)):
        if relevant[i] and not relevant[i - 1]:
            better = ranked.clone()
            better[0, i - 1], better[0, i] = 1, 0
            for c in ("full", "R", "k", "ranks", "precision"):
                assert float(average_precision(better, query, c, k)) >= value[c] - 1e-12


def test_moving_a_hit_into_view_can_lower_the_average_over_hits():
    # Why "hits" is a poor convention: a further hit, found late, lowers it.
    query = torch.tensor([1])
    early = average_precision(torch.tensor([[1, 0, 0, 0, 1]]), query, "hits", k=4)
    late = average_precision(torch.tensor([[1, 0, 0, 1, 0]]), query, "hits", k=4)
    assert float(late) < float(early)


def test_query_without_relevant_items_is_named():
    ranked, query = torch.tensor([[1, 0], [0, 0]]), torch.tensor([1, 1])
    for convention in ("full", "R", "k"):
        with pytest.raises(ValueError, match="query 1 has no relevant item"):
            average_precision(ranked, query, convention, k=1)
    assert precision_at_k(ranked, query, 2).tolist() == [0.5, 0.0]
    assert recall_at_k(ranked, query, 2).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranked_labels": torch.rand(3, 4)}, "ranked_labels must be a tensor of integer labels"),
        ({"ranked_labels": [["a", "b"]]}, "ranked_labels must be a tensor of integer labels, got list"),
        ({"ranked_labels": torch.zeros(3).long()}, "ranked_labels must have shape"),
        ({"query_labels": torch.zeros(2).long()}, r"query_labels must have shape \(3\)"),
        ({"k": 0}, "k must be a whole number from 1 to 4"),
        ({"k": 5}, "k must be a whole number from 1 to 4"),
        ({"k": None}, 'convention "k" needs k'),
        ({"convention": "map"}, "convention must be one of full, R, k"),
        ({"n_relevant": torch.tensor([1, 1, 1])}, "n_relevant of query 0 is 1, but its ranking shows 4"),
        ({"n_relevant": torch.tensor([4])}, "n_relevant must have shape"),
        ({"n_relevant": torch.tensor([torch.nan] * 3)}, "n_relevant must be whole numbers, .*float32"),
        ({"n_relevant": torch.tensor([torch.inf] * 3)}, "n_relevant must be whole numbers"),
        ({"n_relevant": torch.tensor([4, 4.7, 4])}, "n_relevant must be whole numbers"),
        ({"n_relevant": torch.tensor([4, 4, 4 + 1j])}, "n_relevant must be whole numbers"),
        (
            {"query_labels": torch.ones(3) + 1j},
            "query_labels must be a tensor of integer labels",
        ),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {
        "ranked_labels": torch.ones(3, 4).long(),
        "query_labels": torch.ones(3).long(),
        "k": 2,
        "convention": "k",
    }
    with pytest.raises(ValueError, match=message):
        average_precision(**(good | change))
