import dataclasses

import pytest
import torch

from retrieval_geometry.distances import euclidean_mean_distance
from retrieval_geometry.image_models import Gaussian
from retrieval_geometry.papers.geometric.methods import METHODS
from retrieval_geometry.papers.geometric.retrieval import draws, nearest_by_distance, rank_setting, score


@pytest.fixture
def models(small_setting) -> Gaussian:
    """Means on a line in the order of the images: neighbours are known."""
    mean = torch.arange(24.0)[:, None] ** 1.01
    return Gaussian(mean, torch.ones(24, 1, 1))


def test_a_query_never_finds_itself(small_setting, models):
    ranking = rank_setting(METHODS["mean-euclidean"], models, small_setting)
    assert not (ranking.nearest == small_setting.queries[:, None]).any()
    assert ranking.nearest[0].tolist() == list(range(1, 11))


def test_the_ranking_is_that_of_the_full_sort(small_setting, models):
    full = euclidean_mean_distance(models[small_setting.queries], models)
    full[torch.arange(6), small_setting.queries] = torch.inf
    ranking = rank_setting(METHODS["mean-euclidean"], models, small_setting)
    assert torch.equal(ranking.nearest, full.argsort(dim=1)[:, :10])


def test_a_database_apart_from_the_queries(small_setting, models):
    apart = dataclasses.replace(small_setting, database=torch.arange(3, 24))
    nearest = rank_setting(METHODS["mean-euclidean"], models, apart).nearest
    assert nearest[0].tolist() == list(range(3, 13))
    assert apart.n_relevant.tolist() == [9, 9, 9, 11, 11, 11]  # images 12 to 14 are searched too
    assert small_setting.n_relevant.tolist() == [11] * 6


def test_scores_follow_from_the_neighbours(small_setting, models):
    method = METHODS["mean-euclidean"]
    ranking = rank_setting(method, models, small_setting)
    entry = score(method, ranking, small_setting, 0.123456, ("a note",))
    # Image 0 finds 1..10, all of its class; image 12 finds 11 and 13 first.
    assert entry.relevance.unpack()[0].all()
    expected = (ranking.nearest < 12) == (small_setting.queries < 12)[:, None]
    assert (torch.from_numpy(entry.relevance.unpack()) == expected).all()
    assert entry.metrics["P@10"].value == pytest.approx(float(expected.double().mean()), abs=1e-6)
    assert entry.metrics["P@1"].n == 6
    assert entry.seconds_model == 0.123
    assert entry.notes[0] == "a note"
    spread = draws(entry, small_setting)
    assert spread["P@10"][1] <= spread["P@10"][0] <= spread["P@10"][2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_distances_come_by_their_place(small_setting, dtype):
    """Also where they are equal but for the last bits; negative values, such as divergences may have, too."""
    level = torch.tensor([-2.0, 0.5, 3.0, 7.0], dtype=dtype).repeat(6)
    noise = torch.randn(6, 24, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = nearest_by_distance(level * (1 + torch.finfo(dtype).eps / 2 * noise), 1.0, small_setting)
    for query, nearest in zip(small_setting.queries.tolist(), found.nearest.tolist(), strict=True):
        places = [i for start in range(4) for i in range(start, 24, 4) if i != query]
        assert nearest == places[:10]


def test_perfect_distances_give_perfect_scores(small_setting):
    same = small_setting.query_labels[:, None] == small_setting.images.labels
    ranking = nearest_by_distance(1.0 - same.double(), 1.0, small_setting)
    entry = score(METHODS["mean-euclidean"], ranking, small_setting, None, ())
    assert {metric.value for metric in entry.metrics.values()} == {1.0}
    assert entry.seconds_model is None
