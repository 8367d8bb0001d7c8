"""The comparison of losses, end to end on a few glyphs, and what its claims make of a result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from retrieval_geometry.datasets import MetricLearningSplit, class_split, glyphs
from retrieval_geometry.experiments import (
    checkpoints,
    learning,
    learning_run,
    rankmi,
    wasserstein,
)
from retrieval_geometry.experiments import claims as all_claims
from retrieval_geometry.experiments.learning_data import LearningSetting, learning_setting
from retrieval_geometry.experiments.learning_methods import METHODS, TEN_LOSSES
from retrieval_geometry.experiments.rankmi_claims import overlap
from retrieval_geometry.experiments.rankmi_paper import TABLES
from retrieval_geometry.experiments.wasserstein_claims import bench_difference
from retrieval_geometry.experiments.wasserstein_paper import TABLE1
from retrieval_geometry.features import extract_descriptors
from retrieval_geometry.reporting import Result
from retrieval_geometry.reporting.claims import Verdict, check_all
from retrieval_geometry.training import TrainingConfig


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path) -> LearningSetting:
    """Twelve characters to learn from, eight to test with; a model takes two steps."""
    images = glyphs(n_maps=1)
    few = images.subset((images.labels < 20).nonzero()[:, 0])
    train, query = class_split(few, 12)
    found = LearningSetting(
        name="a few glyphs",
        licence="none",
        protocol="twelve characters against eight",
        split=MetricLearningSplit(train, query),
        trunk={"trunk": "glyph_cnn_bn"},
        dim=8,
        config=TrainingConfig(steps=2, batch_size=16, per_class=4, accelerator="cpu"),
        seeds=2,
    )
    monkeypatch.setattr(checkpoints, "results_dir", lambda: tmp_path / "results")
    for module in (learning, learning_run):
        monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    for module in (learning, wasserstein, rankmi):
        monkeypatch.setattr(module, "learning_setting", lambda profile, data_root, device: found)
    monkeypatch.setattr(learning, "ASKED", 5)
    return found


def test_the_bench_runs_end_to_end(setting, monkeypatch, tmp_path):
    monkeypatch.setattr(
        learning, "QUICK_METHODS", ("w-triplet", "w-contrastive", "proxynca", "npair", "rankmi")
    )
    result = learning.run_bench("quick", "data", "cpu", 0)
    assert [entry.method for entry in result.methods] == list(learning.QUICK_METHODS)
    for entry in result.methods:
        for metric in ("R@1", "AP@R", "NMI", "F1"):
            found = entry.metrics[metric]
            assert found.low <= found.value <= found.high
            spread = result.extra["seeds"][entry.method].get(metric)
            if spread:
                assert len(spread) == 2
                assert found.value == pytest.approx(sum(spread) / 2, abs=1e-4)
        assert 0 < entry.metrics["R@1"].value <= 1
    value, low, high = result.extra["differences"]["rankmi"]["npair"]["R@1"]
    gap = result["rankmi"].metrics["R@1"].value - result["npair"].metrics["R@1"].value
    assert low <= value <= high
    assert value == pytest.approx(gap, abs=1e-4)
    assert set(result.extra["transport"]) == {"w-triplet", "w-contrastive"}
    against = result.extra["transport"]["w-triplet"]["against"]
    assert set(against) == set(learning.QUICK_METHODS) - {"w-triplet"}
    assert all(low <= value <= high for other in against.values() for value, low, high in other.values())
    assert Result.read(result.write(tmp_path / "result.json")) == result
    rows = check_all(all_claims("rankmi"), {"learning-bench": result}, "quick")
    by_id = {row.claim.id: row for row in rows}
    assert by_id["rankmi-margin"].verdict is Verdict.NOT_TESTED  # the margin loss was not run
    best = max(("proxynca", "npair"), key=lambda name: result[name].metrics["R@1"].value)
    value, low, high = result.extra["differences"]["rankmi"][best]["R@1"]
    assert f"R@1 {value:+.3f} [{low:+.3f}, {high:+.3f}]" in by_id["rankmi-best"].evidence
    assert by_id["rankmi-separation"].evidence == "no result of rankmi-distances with profile quick"


def test_a_run_that_was_interrupted_trains_only_what_is_missing(setting, monkeypatch):
    monkeypatch.setattr(learning, "QUICK_METHODS", ("w-triplet", "w-contrastive", "rankmi"))
    monkeypatch.setattr(learning, "transport_retrieval", lambda *_: {})
    trained, train_one = [], learning_run.train_one

    def interrupted(method, value, setting, seed, **others):
        trained.append((method.name, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train_one(method, value, setting, seed, **others)

    monkeypatch.setattr(learning_run, "train_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learning.run_bench("quick", "data", "cpu", 0)
    first = list(trained)
    learning.run_bench("quick", "data", "cpu", 0)
    assert first == [("w-triplet", 1), ("w-contrastive", 1), ("rankmi", 0)]
    assert trained[3:] == [("rankmi", 0), ("rankmi", 1)]


def test_tuning_takes_the_best_value_on_classes_of_the_training_set(setting, monkeypatch):
    monkeypatch.setattr(learning, "METHODS", {name: METHODS[name] for name in ("triplet", "supcon")})
    result = learning.run_tuning("quick", "data", "cpu", 0)
    for name, scores in result.extra["scores"].items():
        assert len(scores) == 5
        assert scores[f"{result.extra['chosen'][name]:g}"] == max(scores.values())
    validation = setting.for_validation().split
    assert set(validation.query.labels.tolist()) <= set(setting.split.train.labels.tolist())
    assert not set(validation.query.labels.tolist()) & set(validation.train.labels.tolist())


def test_every_method_has_as_many_candidates_and_the_papers_losses_are_there():
    assert {len(method.candidates) for method in METHODS.values()} == {5}
    assert all(list(method.candidates) == sorted(set(method.candidates)) for method in METHODS.values())
    for rows in TABLE1.values():
        assert list(rows) == [method.name for method in TEN_LOSSES]
    assert all(set(rows) <= METHODS.keys() for rows in TABLES.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(setting, name):
    method = METHODS[name]
    trained = learning_run.train_one(method, method.candidates[0], setting, 0)
    vectors = learning_run.as_vectors(learning_run.embed(trained.network, setting.split.query))
    assert vectors.shape == (len(setting.split.query), 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert len(trained.losses) == 2


def test_wasserstein_ablations_change_one_thing_each(setting, monkeypatch):
    monkeypatch.setattr(wasserstein, "ABLATION_SEEDS", 1)
    result = wasserstein.run_ablations("quick", "data", "cpu", 0)
    assert [entry.method for entry in result.methods] == list(wasserstein.variants())
    assert set(result.extra["differences"]) == set(wasserstein.variants()) - {"base"}


def test_coresets_take_a_share_of_every_class(setting):
    train = setting.split.train
    features = torch.randn(len(train), 16, 4, generator=torch.Generator().manual_seed(0))
    for choose in (wasserstein._wcraig, wasserstein._weighted, wasserstein._random):
        kept, weights = choose(train, features, 0.3, 0)
        counts, all_counts = kept.labels.bincount(), train.labels.bincount()
        assert ((counts >= 2) & (counts == (0.3 * all_counts).ceil().clamp(min=2))).all()
        if weights is not None:  # of each class they sum to all of its images
            torch.testing.assert_close(kept.labels.bincount(weights), all_counts.double())


def test_coresets_run_end_to_end(setting, monkeypatch):
    monkeypatch.setattr(wasserstein, "WARM_UP", 1)
    monkeypatch.setattr(
        wasserstein, "learning_setting", lambda *_: replace(setting, config=replace(setting.config, steps=10))
    )
    result = wasserstein.run_coresets("quick", "data", "cpu", 0)
    assert set(result.extra["differences"]) == {
        f"{way}-{share}" for way in ("weighted", "random", "all") for share in (0.1, 0.3)
    }
    assert result["full"].seconds_model > 0


def test_pooled_measures_have_fewer_points():
    class Seen(torch.nn.Module):
        def forward(self, embeddings, labels):
            return embeddings

    maps = torch.arange(16.0).view(1, 16, 1)
    found = wasserstein.PooledMeasure(Seen(), 4)(maps, torch.tensor([0]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))


def test_rankmi_ablations_and_distances(setting, monkeypatch):
    few = {name: rankmi.variants()[name] for name in ("base", "updates-3", "dim-8", "monotone", "all-pairs")}
    monkeypatch.setattr(rankmi, "variants", lambda: few)
    monkeypatch.setattr(rankmi, "ABLATION_SEEDS", 1)
    result = rankmi.run_ablations("quick", "data", "cpu", 0)
    assert set(result.extra["differences"]) == set(few) - {"base"}
    found = rankmi.run_distances("quick", "data", "cpu", 0).extra
    for when in ("before", "after"):
        for pairs in ("matching", "other"):
            assert sum(found[when][pairs]) == pytest.approx(1, abs=1e-3)
    assert 0 < overlap(found["after"]) <= 1
    assert len(found["statistic"]) == len(found["edges"]) == rankmi.BINS + 1


def test_a_difference_reads_the_same_from_both_ends(setting, monkeypatch):
    monkeypatch.setattr(learning, "transport_retrieval", lambda *_: {})
    monkeypatch.setattr(learning, "QUICK_METHODS", ("w-triplet", "w-contrastive", "rankmi"))
    result = {"learning-bench": learning.run_bench("quick", "data", "cpu", 0)}
    one = bench_difference(result, "rankmi", "w-contrastive", "R@1").evidence
    other = bench_difference(result, "w-contrastive", "rankmi", "R@1").evidence
    assert one.startswith("RankMI minus W-contrastive")
    assert other.startswith("W-contrastive minus RankMI")
    assert one.split()[-3].lstrip("+-") == other.split()[-3].lstrip("+-")


def test_heads_are_tuned_on_the_data_itself_and_stand_beside_the_trunk(setting, monkeypatch):
    test = setting.split.query
    query, gallery = (test.subset(range(start, len(test), 2)) for start in (0, 1))
    frozen = replace(
        setting,
        split=MetricLearningSplit(setting.split.train, query, gallery),
        trunk={"trunk": "glyph_cnn_bn", "freeze_trunk": True},
    )
    names = ("w-triplet", "w-contrastive", "triplet", "rankmi")
    monkeypatch.setattr(learning, "METHODS", {name: METHODS[name] for name in names})
    monkeypatch.setattr(learning, "products", lambda data_root, device: frozen)
    result = learning.run_products("real", "data", "cpu", 0)
    assert [entry.method for entry in result.methods] == [*names, "trunk"]
    for name, scores in result.extra["scores"].items():
        assert scores[f"{result.extra['chosen'][name]:g}"] == max(scores.values())
    trunk = learning_run.load_embedding_network(**frozen.trunk, dim=8).trunk
    features = [extract_descriptors(side, trunk)[:, 0] for side in (query, gallery)]
    distances = torch.cdist(*(vectors / vectors.norm(dim=1, keepdim=True) for vectors in features))
    found = gallery.labels[distances.argmin(dim=1)] == query.labels
    assert result["trunk"].metrics["R@1"].value == pytest.approx(float(found.float().mean()), abs=1e-4)
    gap = result["trunk"].metrics["R@1"].value - result["triplet"].metrics["R@1"].value
    value, low, high = result.extra["differences"]["trunk"]["triplet"]["R@1"]
    assert low <= value <= high
    assert value == pytest.approx(gap, abs=1e-4)


@pytest.mark.parametrize("name", ["products", "photographs"])
def test_photographs_need_their_data(name, tmp_path):
    run = getattr(learning, f"run_{name}")
    with pytest.raises(ValueError, match=f"profile must be real for learning-{name}"):
        run("quick", "data", "cpu", 0)
    with pytest.raises(FileNotFoundError, match="is not under"):
        run("real", str(tmp_path), "cpu", 0)


def test_missing_data_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Omniglot is not under"):
        learning_setting("real", str(tmp_path), "cpu")
