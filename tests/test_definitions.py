"""What the package computes fast is what the definitions say, in both dtypes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from retrieval_geometry.coresets import craig, facility_location, wcraig
from retrieval_geometry.distances import (
    DISTANCES,
    exact_transport_cost,
    pairwise,
    pairwise_exact_transport_cost,
    pairwise_sinkhorn_divergence,
    sinkhorn_divergence,
)
from retrieval_geometry.evaluation import CONVENTIONS, average_precision
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from retrieval_geometry.losses import (
    RankMILoss,
    SinkhornDistance,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
)
from retrieval_geometry.losses.sampling import distance_weights
from retrieval_geometry.losses.special_cases import quadruplet_loss
from tests import definitions
from tests.distances.common import DTYPES, TOLERANCE, gaussians, measures, mixtures, normal, source

LABELS = [0, 0, 1, 1, 2, 2]

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def agrees(found: torch.Tensor, expected: object, dtype: torch.dtype) -> bool:
    """Whether a result has the dtype and, within its tolerance, the values."""
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    if found.dtype != dtype or found.shape != wanted.shape:
        return False
    tolerance = TOLERANCE[dtype]
    return torch.allclose(found.double(), wanted, tolerance, tolerance * float(wanted.abs().max()) / 100)


def batch(dtype: torch.dtype) -> torch.Tensor:
    return normal(source(5), len(LABELS), 4, 3).to(dtype)


def test_every_distance_has_a_definition(dtype: torch.dtype) -> None:
    assert {*definitions.REFERENCES, *definitions.MIXTURES, "sinkhorn"} == set(DISTANCES)


@pytest.mark.parametrize("name", definitions.REFERENCES)
def test_distances_between_gaussians(name: str, dtype: torch.dtype) -> None:
    p, q = (gaussians(n, 5, n).to(dtype) for n in (3, 4))
    left, right = (Gaussian(g.mean.double(), g.cov.double()) for g in (p, q))
    assert agrees(
        pairwise(name, p, q), definitions.all_pairs(definitions.REFERENCES[name], left, right), dtype
    )


@pytest.mark.parametrize("name", definitions.MIXTURES)
def test_distances_between_mixtures(name: str, dtype: torch.dtype) -> None:
    def parts(m: GaussianMixture, i: int) -> definitions.Mixture:
        weights, means, variances = (t[i].double().numpy() for t in (m.weights, m.means, m.variances))
        return weights, means, variances

    p, q = mixtures(3, 4, 2, 1).to(dtype), mixtures(2, 3, 2, 2).to(dtype)
    define = definitions.MIXTURES[name]
    assert agrees(
        pairwise(name, p, q), [[define(parts(p, i), parts(q, j)) for j in range(2)] for i in range(3)], dtype
    )


@pytest.mark.parametrize("p", [1, 2])
def test_transport_between_point_sets(p: int, dtype: torch.dtype) -> None:
    (x, a), (y, b) = ([t.to(dtype) for t in measures(2, n, 3, n)] for n in (4, 5))
    sets = [[t[i].double().numpy() for t in (x, y, a, b)] for i in range(2)]
    masses = [[*pair[:2], *(m / m.sum() for m in pair[2:])] for pair in sets]
    expected = [definitions.sinkhorn_divergence(*pair, p, 2.0) for pair in masses]
    assert agrees(sinkhorn_divergence(x, y, a, b, p, 2.0), expected, dtype)
    assert agrees(pairwise_sinkhorn_divergence(x, y, a, b, p, 2.0).diagonal(), expected, dtype)
    costs = [
        [definitions.exact_transport_cost(*(t.double().numpy() for t in (u, v)), p) for v in x] for u in x
    ]
    assert agrees(pairwise_exact_transport_cost(x, x.clone(), p), costs, dtype)
    assert agrees(exact_transport_cost(x[:1], x[1:], p), costs[0][1:], dtype)


@pytest.mark.parametrize("exact", [True, False])
def test_losses_on_transport(exact: bool, dtype: torch.dtype) -> None:
    x = batch(dtype)
    unit = torch.nn.functional.normalize(x, dim=2).double().numpy()
    even = np.full(4, 1 / 4)

    def soft(u: definitions.Array, v: definitions.Array, p: int) -> float:
        return definitions.sinkhorn_divergence(u, v, even, even, p, 1.0)

    d = np.zeros((len(x), len(x)))
    for i, j in itertools.combinations(range(len(x)), 2):
        pair = unit[i], unit[j]
        cost = definitions.exact_transport_cost if exact else soft
        d[i, j] = d[j, i] = cost(*pair, 1)
    labels = torch.tensor(LABELS)
    assert agrees(SinkhornDistance(epsilon=1.0, exact=exact)(x), d, dtype)
    found = WassersteinContrastiveLoss(0.8, epsilon=1.0, exact=exact)(x, labels)
    assert agrees(found, definitions.contrastive(d, LABELS, 0.8), dtype)
    found = WassersteinTripletLoss(0.1, epsilon=1.0, exact=exact)(x, labels)
    assert agrees(found, definitions.triplet(d, LABELS, 0.1), dtype)


def test_rankmi(dtype: torch.dtype) -> None:
    x, labels = batch(dtype).flatten(1), torch.tensor(LABELS)
    loss = RankMILoss(margin=float("inf"), sampling="all")
    loss.inner_step(x, labels)
    v = loss.statistics(loss.distance(x)).double().numpy()
    assert agrees(loss(x, labels), definitions.rankmi(v, LABELS), dtype)


def test_quadruplets_and_weights_of_negatives(dtype: torch.dtype) -> None:
    positive, negative = (normal(source(n), n).abs().to(dtype) for n in (4, 6))
    expected = definitions.quadruplet(positive.double().numpy(), negative.double().numpy(), 0.3)
    assert agrees(quadruplet_loss(positive, negative, 0.3), expected, dtype)
    d = torch.linspace(0.6, 1.3, 9).to(dtype).expand(9, 9)
    weights = np.array([definitions.distance_weight(float(value), 16) for value in d[0]])
    assert agrees(
        distance_weights(d, torch.ones(9, 9, dtype=torch.bool), 16)[0], weights / weights.max(), dtype
    )


def test_subsets(dtype: torch.dtype) -> None:
    similarity = normal(source(7), 12, 9).abs().to(dtype)
    assert facility_location(similarity, 4).tolist() == definitions.greedy(similarity, 4)
    x = batch(dtype)
    d = pairwise_sinkhorn_divergence(x, x)
    chosen = definitions.greedy(d.max() - d, 3)
    nearest = torch.bincount(d[:, chosen].argmin(dim=1), minlength=3)
    for found in (craig(d, 3), wcraig(x, 3)):
        assert found.indices.tolist() == chosen
        assert found.weights.tolist() == nearest.tolist()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_average_precision(convention: str, dtype: torch.dtype) -> None:
    """Of embeddings in either dtype, ranked by their distances."""
    x, labels = batch(dtype).flatten(1), torch.tensor(LABELS)
    ranked = labels[torch.cdist(x, x).fill_diagonal_(torch.inf).argsort(dim=1)[:, :-1]]
    found = average_precision(ranked, labels, convention, k=3)
    for value, row, label in zip(found.tolist(), ranked.tolist(), LABELS, strict=True):
        right = [other == label for other in row]
        assert value == pytest.approx(definitions.average_precision(right, sum(right), convention, 3))
