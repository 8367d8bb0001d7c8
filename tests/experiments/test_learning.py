"""The comparison of losses, end to end on a few glyphs, and what its claims make of a result."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import wraps

import pytest
import torch
from sklearn.decomposition import PCA

from retrieval_geometry.datasets import ImageSet, MetricLearningSplit, class_split, glyphs
from retrieval_geometry.experiments import RunContext, experiments, find
from retrieval_geometry.experiments import claims as all_claims
from retrieval_geometry.experiments.comparisons import compare, other_side, side, transport_sides
from retrieval_geometry.experiments.learning import bench, chosen, data, kept, tuning
from retrieval_geometry.experiments.learning import run as learning_run
from retrieval_geometry.experiments.learning.data import LearningSetting, learning_setting
from retrieval_geometry.experiments.learning.methods import METHODS, TEN_LOSSES
from retrieval_geometry.experiments.learning.run import LearningRun
from retrieval_geometry.features import extract_descriptors
from retrieval_geometry.papers.rankmi import experiments as rankmi
from retrieval_geometry.papers.rankmi.claims import AS_GOOD
from retrieval_geometry.papers.rankmi.printed import TABLES
from retrieval_geometry.papers.wasserstein_dml import experiments as wasserstein
from retrieval_geometry.papers.wasserstein_dml.printed import TABLE1
from retrieval_geometry.reporting import Result
from retrieval_geometry.reporting.claims import check_all
from retrieval_geometry.reporting.details import Ablated, Compared, Separated, Subsets, Tuned
from retrieval_geometry.reporting.findings import Verdict
from retrieval_geometry.reporting.results import ResultError
from retrieval_geometry.training import TrainingConfig


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, context: RunContext) -> LearningSetting:
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
        asked=5,
        cache=context.cache,
    )
    for module in (bench, tuning, chosen):
        monkeypatch.setattr(module, "learning_setting", lambda context: found)
    return found


def test_the_bench_runs_end_to_end(setting, context, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "QUICK_METHODS", ("w-triplet", "w-contrastive", "proxynca", "npair", "rankmi"))
    result = bench.run_bench(context)
    assert [entry.method for entry in result.methods] == list(bench.QUICK_METHODS)
    for entry in result.methods:
        for metric in ("R@1", "AP@R", "NMI", "F1"):
            found = entry.metrics[metric]
            assert found.low <= found.value <= found.high
            assert len(entry.models.means[metric]) == 2
            assert found.value == pytest.approx(sum(entry.models.means[metric]) / 2, abs=1e-4)
        assert 0 < entry.metrics["R@1"].value <= 1
        assert entry.seconds_training > 0
        assert entry.seconds_model is None
        for metric in ("R@1", "R@4", "AP@R"):  # the groups say the same as the queries
            means = side(result, entry.method, metric).means
            assert means.by_model == pytest.approx(entry.models.means[metric], abs=2e-5)
    assert result.groups.name == "classes"
    assert sum(result.groups.sizes) == result.scope.queries == len(setting.split.query)
    assert (result.scope.steps, result.scope.models) == (2, 2)
    (found,) = compare(result, [("rankmi", "npair", "R@1")])
    gap = result["rankmi"].metrics["R@1"].value - result["npair"].metrics["R@1"].value
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(gap, abs=1e-4)
    transport = result.told(Compared).transport
    assert set(transport.by_transport) == set(transport.by_mean) == {"w-triplet", "w-contrastive"}
    assert set(transport.others) == set(bench.QUICK_METHODS) - {"rankmi"}
    assert sum(transport.sizes) == transport.queries == 5
    by_mean = transport_sides(result, transport, "w-triplet", "R@1")[1].means
    same_models = other_side(result, transport, "w-triplet", "R@1").means.values
    assert by_mean.values == pytest.approx(same_models)  # asked twice in one way
    assert len(same_models) == 2
    assert Result.read(result.write(tmp_path / "result.json")) == result
    rows = check_all(all_claims("rankmi"), {"learning-bench": result}, "quick")
    by_id = {row.claim.id: row for row in rows}
    assert by_id["rankmi-margin"].verdict is Verdict.NOT_TESTED  # the margin loss was not run
    looked_at = compare(result, [("rankmi", name, "R@1") for name in ("proxynca", "npair")], bound=-AS_GOOD)
    assert list(by_id["rankmi-best"].finding.parts) == looked_at
    assert "2 intervals at once" in by_id["rankmi-best"].evidence
    assert "2 steps, 2 models of each" in str(by_id["rankmi-best"].reach)
    assert by_id["rankmi-separation"].evidence == "no result of rankmi-distances with profile quick"


def test_a_run_that_was_interrupted_trains_only_what_is_missing(setting, context, monkeypatch):
    monkeypatch.setattr(bench, "QUICK_METHODS", ("w-triplet", "w-contrastive", "rankmi"))
    monkeypatch.setattr(bench, "transport_retrieval", lambda *_: None)
    trained, train_one = [], learning_run.train_one

    def interrupted(method, value, setting, seed, **others):
        trained.append((method.name, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train_one(method, value, setting, seed, **others)

    for module in (bench, learning_run):
        monkeypatch.setattr(module, "train_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.run_bench(context)
    first = list(trained)
    bench.run_bench(context)
    assert first == [("w-triplet", 0), ("w-triplet", 1), ("w-contrastive", 0)]
    missing = [("w-contrastive", 0), ("w-contrastive", 1), ("rankmi", 0), ("rankmi", 1)]
    assert trained[3:] == missing


LONG = ("learning-bench", "wasserstein-ablations", "wasserstein-coresets", "rankmi-ablations")


def without_times(result: Result) -> Result:
    """The same numbers, without the time that they took and the process that made them."""
    methods = tuple(replace(entry, seconds_training=None) for entry in result.methods)
    return replace(result, methods=methods, provenance=None)


@pytest.mark.parametrize("name", LONG)
def test_a_run_in_parts_is_the_run_in_one(name, setting, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "QUICK_METHODS", ("w-triplet", "npair", "rankmi"))
    monkeypatch.setattr(bench, "ASKED_BY_TRANSPORT", ("w-triplet",))
    monkeypatch.setattr(bench, "transport_retrieval", lambda *_: None)
    monkeypatch.setattr(wasserstein, "WARM_UP", 1)
    few = dict(list(rankmi.variants().items())[:3])
    monkeypatch.setattr(rankmi, "variants", lambda: few)
    few_measures = {way: wasserstein.variants()[way] for way in ("base", "points-4", "p-2")}
    monkeypatch.setattr(wasserstein, "variants", lambda: few_measures)
    experiment, made = find(name), {}
    for way in ("whole", "parts"):
        context = RunContext(results=tmp_path / "results", cache=tmp_path / way)
        own = replace(setting, cache=context.cache, config=replace(setting.config, steps=10))
        for module in (bench, chosen):
            monkeypatch.setattr(module, "learning_setting", lambda _, own=own: own)
        if way == "parts":
            for number in (1, 2):
                experiment.run_part(context, number, 2)
            for module in (bench, learning_run, wasserstein):
                again = wraps(learning_run.train_one)(lambda *_: pytest.fail("trained again"))
                monkeypatch.setattr(module, "train_one", again)
        made[way] = pkgutil.resolve_name(experiment.function)(context)
    assert without_times(made["parts"]) == without_times(made["whole"])


def test_long_experiments_have_parts():
    assert {name for name, found in experiments().items() if found.parts} == {
        *LONG,
        "geometric-table1",
        "learning-finetuned",
        "learning-tuning",
    }


def test_parts_train_what_the_run_then_finds(setting, context, monkeypatch):
    monkeypatch.setattr(bench, "QUICK_METHODS", ("w-triplet", "w-contrastive", "rankmi"))
    monkeypatch.setattr(bench, "transport_retrieval", lambda *_: None)
    trained, train_one = [], learning_run.train_one
    for module in (bench, learning_run):
        monkeypatch.setattr(
            module, "train_one", lambda *given: trained.append(given[0].name) or train_one(*given)
        )
    for number in (1, 2):
        find("learning-bench").run_part(context, number, 2)
    # One model of every method before the second of any; of those, every second one is a part.
    assert trained == ["w-triplet", "rankmi", "w-contrastive", "w-contrastive", "w-triplet", "rankmi"]
    bench.run_bench(context)
    assert len(trained) == 6
    with pytest.raises(ValueError, match="part must be a number of 1 to 2, got 3"):
        find("learning-bench").run_part(context, 3, 2)
    with pytest.raises(ValueError, match="geometric-layers is one piece"):
        find("geometric-layers").run_part(context, 1, 2)


def test_a_share_of_the_steps_drops_the_rate_after_the_same_share(setting):
    long = replace(setting, config=TrainingConfig(steps=1400, lr_drops=(950, 1250)))
    assert (long.for_share(0.1).config.steps, long.for_share(0.1).config.lr_drops) == (140, (95, 125))
    assert long.for_share(1).config == long.config
    assert setting.for_share(0.5).config.lr_drops == ()


def test_kept_models_outlive_the_code_and_the_cache(setting, context, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "QUICK_METHODS", ("w-triplet", "rankmi"))
    monkeypatch.setattr(kept, "recorded_dir", lambda: tmp_path)
    trained, train_one = [], learning_run.train_one
    for module in (bench, learning_run):
        monkeypatch.setattr(
            module, "train_one", lambda *given: trained.append((given[0].name, given[3])) or train_one(*given)
        )
    w_triplet = METHODS["w-triplet"]
    bench._train(w_triplet, bench.chosen_values()["w-triplet"], replace(setting, seeds=1), 0, "")
    assert bench.keep_models(context) == [
        "w-triplet-0.4-seed1", "w-triplet-0.4-seed1-transport", "rankmi-1-seed0", "rankmi-1-seed1"
    ]  # fmt: skip
    again = replace(setting, cache=tmp_path / "empty")  # as on another machine
    monkeypatch.setattr(bench, "learning_setting", lambda context: again)
    result = bench.run_bench(context)
    assert trained == [("w-triplet", 0), ("w-triplet", 1), ("rankmi", 0), ("rankmi", 1)]
    assert len(result["w-triplet"].models.means["R@1"]) == 2
    assert bench.keep_models(context) == []
    other = replace(again, cache=tmp_path / "other", config=replace(again.config, lr=0.5))
    assert learning_run.checkpoints_of(again).get("rankmi-1-seed0", LearningRun) is not None
    assert learning_run.checkpoints_of(other).get("rankmi-1-seed0", LearningRun) is None  # another setting
    kept.kept_models_file().write_text("{")
    with pytest.raises(ResultError, match=r"learning.json is damaged .* remove it to train its models anew"):
        learning_run.checkpoints_of(other).get("rankmi-1-seed0", LearningRun)


def test_a_best_value_at_the_edge_is_followed(setting, monkeypatch):
    """Five candidates, the middle three tried; the scores rise to the left, then to the right."""
    scores, asked = {}, []

    def validated(method, value, setting, seed):
        asked.append((value, setting.config.lr))
        return LearningRun({"AP@R": (scores[value],)}, (1,), (), 1.0)

    monkeypatch.setattr(tuning, "_validated", validated)
    method = replace(METHODS["triplet"], candidates=(1.0, 2.0, 3.0, 4.0, 5.0))
    narrow = replace(setting, tried=(1, 2, 3), rates=(0.5,))
    for values, tried, best in (
        ((5, 4, 3, 2, 1), [2, 3, 4, 1], 1),
        ((1, 2, 3, 4, 5), [2, 3, 4, 5], 5),
        ((9, 1, 3, 2, 9), [2, 3, 4], 3),
        ((1, 1, 1, 1, 1), [2, 3, 4, 1], 2),
    ):
        scores.update(zip(method.candidates, values, strict=True))
        asked.clear()
        found = tuning.tune(narrow, 0, [method])
        assert asked == [*((value, 1e-3) for value in tried), (best, 0.5)]
        assert found.chosen == {"triplet": best}
        assert found.rates == {"triplet": 1e-3}  # the first of equal ones
        assert len(found.all_runs[0]) + len(found.all_runs[1]) == len(asked)


def test_the_choice_goes_on_beyond_the_candidates_where_it_may(setting, monkeypatch):
    best_at = {"to the left": 0.1, "to the right": 64.0, "whole numbers": 1}
    for name, optimum in best_at.items():
        candidates = (1, 2, 3, 4, 5) if name == "whole numbers" else (1.0, 2.0, 4.0, 8.0, 16.0)

        def validated(method, value, setting, seed, optimum=optimum):
            return LearningRun({"AP@R": (-abs(value - optimum),)}, (1,), (), 1.0)

        monkeypatch.setattr(tuning, "_validated", validated)
        method = replace(METHODS["triplet"], candidates=candidates)
        for further, value in ((0, candidates[0 if optimum <= 1 else -1]), (2, optimum)):
            own = replace(setting, tried=(1, 2, 3), further=further)
            nearest = min(tuning.continued(candidates, further), key=lambda v: abs(v - value))
            assert tuning.tune(own, 0, [method]).chosen["triplet"] == nearest
    assert tuning.continued((0.2, 0.4, 0.8), 1) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert tuning.continued((1, 2, 5), 1) == [1, 2, 5, 12]


def test_all_queries_by_transport_are_asked_as_some_are(setting):
    network = learning_run.new_network(METHODS["w-triplet"], setting, 0)
    everyone = replace(setting, asked=len(setting.split.query))
    some = learning_run.asked_of(setting)
    assert len(some) == 5
    few, all_of_them = (bench.rank_both_ways(network, each) for each in (setting, everyone))
    for way in ("transport", "Euclidean"):
        for metric, values in few[way].items():
            assert len(all_of_them[way][metric]) == len(setting.split.query)
            torch.testing.assert_close(all_of_them[way][metric][some], values)


def test_models_are_validated_where_classes_are_held_out(setting):
    train, validation = class_split(setting.split.train, 8)
    split = replace(setting.split, train=train)
    config = replace(setting.config, steps=4, validate_every=2)
    held = replace(setting, split=split, validation=validation, config=config)
    trained = learning_run.train_one(METHODS["triplet"], 0.2, held, 0)
    assert [step for step, _ in trained.validations] == [2, 4]
    run = learning_run.measure(trained, held)
    assert run.curve == tuple((step, round(value, 5)) for step, value in trained.validations)
    again = learning_run.validator(held, trained.network)(trained.network.eval())
    assert again == pytest.approx(max(value for _, value in trained.validations))  # the best is kept
    assert set(held.for_validation().split.query.labels.tolist()) == set(validation.labels.tolist())
    assert held.identity != replace(held, validation=None).identity
    assert learning_run.validator(setting, trained.network) is None


def test_tuning_takes_the_best_value_on_classes_of_the_training_set(setting, context, monkeypatch):
    monkeypatch.setattr(tuning, "METHODS", {name: METHODS[name] for name in ("triplet", "supcon")})
    result = tuning.run_tuning(context)
    tuned = result.told(Tuned)
    for name, scores in tuned.scores.items():
        assert len(scores) == 5
        assert scores[f"{tuned.chosen[name]:g}"] == max(scores.values())
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


def test_a_closer_look_takes_the_chosen_rate(setting, context, monkeypatch):
    monkeypatch.setattr(chosen, "learning_setting", lambda _: replace(setting, seeds=3))
    rates = {"rankmi": 0.25}
    monkeypatch.setattr(chosen, "chosen_rates", lambda profile: rates)
    assert chosen.closer_look("rankmi", context).config.lr == 0.25
    assert chosen.closer_look("w-triplet", context).config == setting.config
    assert chosen.closer_look("w-triplet", context).seeds == 2
    assert chosen.closer_look("rankmi", RunContext("real", cache=context.cache)).seeds == 3


def test_the_papers_batches_are_those_of_its_settings(setting):
    changed = rankmi._changed(setting, rankmi.variants()["paper-batch"][2])
    assert (changed.config.batch_size, changed.config.per_class) == (120, 5)
    assert changed.dim == setting.dim


def test_wasserstein_ablations_change_one_thing_each(setting, context, monkeypatch):
    monkeypatch.setattr(chosen, "QUICK_SEEDS", 1)
    result = wasserstein.run_ablations(context)
    assert [entry.method for entry in result.methods] == list(wasserstein.variants())
    assert result.told(Ablated).parameter == "margin"


def test_coresets_take_a_share_of_every_class(setting):
    train = setting.split.train
    features = torch.randn(len(train), 16, 4, generator=torch.Generator().manual_seed(0))
    for choose in (wasserstein._wcraig, wasserstein._weighted, wasserstein._random):
        kept, weights = choose(train, features, 0.3, 0)
        counts, all_counts = kept.labels.bincount(), train.labels.bincount()
        assert ((counts >= 2) & (counts == (0.3 * all_counts).ceil().clamp(min=2))).all()
        if weights is not None:  # of each class they sum to all of its images
            torch.testing.assert_close(kept.labels.bincount(weights), all_counts.double())


def test_coresets_run_end_to_end(setting, context, monkeypatch):
    monkeypatch.setattr(wasserstein, "WARM_UP", 1)
    monkeypatch.setattr(
        chosen, "learning_setting", lambda *_: replace(setting, config=replace(setting.config, steps=10))
    )
    result = wasserstein.run_coresets(context)
    subsets = {f"{way}-{share}" for way in ("wcraig", "weighted", "random", "all") for share in (0.1, 0.3)}
    assert {entry.method for entry in result.methods} == subsets | {"full"}
    assert result.told(Subsets).shares == (0.1, 0.3)
    assert result["full"].seconds_training > 0
    asked = [claim for claim in all_claims() if "coresets" in claim.id]
    time, controls = check_all(asked, {result.experiment: result}, "quick")
    assert [part.first for part in time.finding.parts] == ["all images, all steps"] * 2
    assert "minus all images, all steps: R@1" in time.evidence  # what is lost stands beside what is saved
    assert len(controls.finding.parts) == 4


def test_pooled_measures_have_fewer_points():
    class Seen(torch.nn.Module):
        def forward(self, embeddings, labels):
            return embeddings

    maps = torch.arange(16.0).view(1, 16, 1)
    found = wasserstein.PooledMeasure(Seen(), 4)(maps, torch.tensor([0]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))


def test_rankmi_ablations_and_distances(setting, context, monkeypatch):
    few = {name: rankmi.variants()[name] for name in ("base", "updates-3", "dim-8", "monotone", "all-pairs")}
    monkeypatch.setattr(rankmi, "variants", lambda: few)
    monkeypatch.setattr(chosen, "QUICK_SEEDS", 1)
    result = rankmi.run_ablations(context)
    assert [entry.method for entry in result.methods] == list(few)
    distances = rankmi.run_distances(context)
    found = distances.told(Separated)
    for heaps in (found.before, found.after):
        for pairs in (heaps.matching, heaps.other):
            assert sum(pairs) == pytest.approx(1, abs=1e-3)
    assert 0 < found.after.overlap <= 1
    assert len(found.statistic) == len(found.edges) == rankmi.BINS + 1
    rows = check_all(all_claims("rankmi"), {distances.experiment: distances}, "quick")
    (separation,) = (row for row in rows if row.claim.id == "rankmi-separation")
    assert separation.verdict is Verdict.INCONCLUSIVE  # one model, whatever the overlap
    assert "one trained model" in separation.evidence


def test_heads_are_tuned_on_the_data_itself_and_stand_beside_the_trunk(setting, context, monkeypatch):
    test = setting.split.query
    query, gallery = (test.subset(range(start, len(test), 2)) for start in (0, 1))
    frozen = replace(
        setting,
        split=MetricLearningSplit(setting.split.train, query, gallery),
        trunk={"trunk": "glyph_cnn_bn", "freeze_trunk": True},
    )
    names = ("w-triplet", "w-contrastive", "triplet", "rankmi")
    for module in (bench, tuning):
        monkeypatch.setattr(module, "METHODS", {name: METHODS[name] for name in names})
    monkeypatch.setattr(bench, "products", lambda context: frozen)
    result = bench.run_products(RunContext("real", cache=context.cache))
    assert [entry.method for entry in result.methods] == [*names, "trunk"]
    told = result.told(Compared)
    for name, scores in told.scores.items():
        assert scores[f"{told.chosen[name]:g}"] == max(scores.values())
    trunk = learning_run.load_embedding_network(**frozen.trunk, dim=8).trunk
    features = [extract_descriptors(side, trunk)[:, 0] for side in (query, gallery)]
    distances = torch.cdist(*(vectors / vectors.norm(dim=1, keepdim=True) for vectors in features))
    found = gallery.labels[distances.argmin(dim=1)] == query.labels
    assert result["trunk"].metrics["R@1"].value == pytest.approx(float(found.float().mean()), abs=1e-4)
    gap = result["trunk"].metrics["R@1"].value - result["triplet"].metrics["R@1"].value
    (found,) = compare(result, [("trunk", "triplet", "R@1")])
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(gap, abs=1e-4)
    assert found.models == 2  # the trunk is no trained model
    assert result["trunk"].seconds_training is None
    trainings = sum(entry.seconds_training * 2 for entry in result.methods if entry.seconds_training)
    assert result.provenance.seconds > trainings  # the choice of hyper-parameters costs as well


@pytest.fixture
def small_finetuned(setting, monkeypatch) -> LearningSetting:
    """A stand-in for the photographs: a frozen trunk, two views, validation classes with a gallery."""
    train, held = class_split(setting.split.train, 8)
    test = setting.split.query
    halves = [side.subset(range(start, len(side), 2)) for side in (test, held) for start in (0, 1)]
    found = replace(
        setting,
        split=MetricLearningSplit(train, halves[0], halves[1]),
        trunk={"trunk": "glyph_cnn_bn", "freeze_trunk": True},
        config=replace(setting.config, steps=4, validate_every=2),
        validation=halves[2],
        validation_gallery=halves[3],
        tuned_with=setting.config,
        tried=(2,),
        views=2,
        on_axes=True,
    )
    monkeypatch.setattr(bench, "FINETUNED", ("w-triplet", "triplet", "proxyanchor"))
    monkeypatch.setattr(bench, "finetuned", lambda context: replace(found, cache=context.cache))
    return found


def test_fine_tuned_networks_stand_beside_three_controls(small_finetuned, context, tmp_path):
    result = bench.run_finetuned(replace(context, profile="real"))
    controls = ["trunk", "trunk-axes", "trunk-whitened"]
    assert [entry.method for entry in result.methods] == [*bench.FINETUNED, *controls]
    assert [result[name].models.trained for name in ("triplet", *controls)] == [True, False, False, False]
    split = small_finetuned.split
    trunk = learning_run.load_embedding_network(**small_finetuned.trunk, dim=8).trunk
    described = {
        side: extract_descriptors(getattr(split, side), trunk)[:, 0].numpy()
        for side in ("train", "query", "gallery")
    }
    for name, whiten in (("trunk-axes", False), ("trunk-whitened", True)):
        reference = PCA(8, whiten=whiten, svd_solver="full").fit(described["train"].astype("float64"))
        sides = [torch.from_numpy(reference.transform(described[side])) for side in ("query", "gallery")]
        distances = torch.cdist(*(vectors / vectors.norm(dim=1, keepdim=True) for vectors in sides))
        hit = split.gallery.labels[distances.argmin(dim=1)] == split.query.labels
        assert result[name].metrics["R@1"].value == pytest.approx(float(hit.double().mean()), abs=1e-4)
    # Every row is of the same queries in the same groups, so that differences have intervals.
    gaps = compare(result, [(name, control, "AP@R") for name in bench.FINETUNED for control in controls])
    assert all(gap.low <= gap.value <= gap.high for gap in gaps)
    assert [step for step, _ in result["triplet"].models.curves[0]] == [2, 4]
    assert result.told(Compared).scores.keys() == set(bench.FINETUNED)
    assert "principal axes" in result.settings["the head begins as"]
    assert Result.read(result.write(tmp_path / "result.json")) == result


def test_fine_tuning_in_parts_is_the_run_in_one(small_finetuned, monkeypatch, tmp_path):
    made = {}
    for way in ("whole", "parts"):
        context = RunContext("real", results=tmp_path / "results", cache=tmp_path / way)
        if way == "parts":
            for number in (1, 2):
                find("learning-finetuned").run_part(context, number, 2)
            for module in (bench, learning_run, tuning):
                again = wraps(learning_run.train_one)(lambda *_: pytest.fail("trained again"))
                monkeypatch.setattr(module, "train_one", again)
        made[way] = bench.run_finetuned(context)
    assert without_times(made["parts"]) == without_times(made["whole"])


def test_a_network_learns_from_views_of_the_training_images_alone(small_finetuned, monkeypatch):
    seen, train = [], learning_run.train

    def watched(network, objective, images, *others, **named):
        seen.append(images)
        return train(network, objective, images, *others, **named)

    monkeypatch.setattr(learning_run, "train", watched)
    learning_run.train_one(METHODS["triplet"], 0.2, small_finetuned, 0)
    ids = small_finetuned.split.train.ids
    assert seen[0].ids == (*ids, *(f"{name}, view 2" for name in ids))
    assert seen[0].labels.tolist() == 2 * small_finetuned.split.train.labels.tolist()
    learning_run.train_one(METHODS["triplet"], 0.2, replace(small_finetuned, views=1), 0)
    assert seen[1].ids == ids


def test_validation_classes_are_asked_against_their_gallery(small_finetuned):
    network = learning_run.new_network(METHODS["triplet"], small_finetuned, 0).eval()
    found = learning_run.validator(small_finetuned, network)(network)
    query, gallery = small_finetuned.validation, small_finetuned.validation_gallery
    sides = [learning_run.as_vectors(learning_run.embed(network, side)) for side in (query, gallery)]
    hit = gallery.labels[torch.cdist(*sides).argmin(dim=1)] == query.labels
    assert found == pytest.approx(float(hit.double().mean()))
    asked = small_finetuned.for_validation()
    assert (asked.split.query.ids, asked.split.gallery.ids) == (query.ids, gallery.ids)
    assert (asked.validation, asked.validation_gallery) == (None, None)


def test_models_of_other_views_starts_and_galleries_are_other_models(small_finetuned):
    changes = {"views": 3, "on_axes": False, "validation_gallery": None}
    found = [replace(small_finetuned, **{name: value}).identity for name, value in changes.items()]
    assert all(one != small_finetuned.identity for one in found)
    # Those of settings without any of them keep the names that they had.
    plain = replace(small_finetuned, views=1, on_axes=False, validation_gallery=None).identity
    assert set(plain) == {"images", "trunk", "dim", "config"}
    assert len(plain["images"]) == 4


def test_validation_products_are_asked_by_the_test_list():
    labels = torch.arange(8).repeat_interleave(3)
    ids = tuple(f"grocery/{side}/a/{label}.jpg" for label in range(8) for side in ("train", "val", "test"))
    names = tuple("abcdefgh")
    learnt, query, gallery = data._validation_products(
        ImageSet("shop", labels, names, ids, "0" * 64, lambda name: torch.zeros(3, 8, 8, dtype=torch.uint8))
    )
    assert learnt.labels.unique().tolist() == [0, 1, 2, 4, 5, 6]
    assert query.labels.tolist() == [3, 7]
    assert gallery.labels.tolist() == [3, 3, 7, 7]
    assert all("/test/" in name for name in query.ids)


def test_queries_of_one_alphabet_are_one_group(setting):
    query = setting.split.query
    names = tuple(f"{'Greek' if i % 2 else 'Futurama'}/{name}" for i, name in enumerate(query.classes))
    changed = replace(setting, split=replace(setting.split, query=replace(query, classes=names)))
    assert len(changed.groups.sizes) == 8  # classes
    groups = replace(changed, grouped_by="alphabets").groups
    even = sum(label % 2 == 0 for label in query.labels.tolist())
    assert groups.name == "alphabets"
    assert groups.sizes == (even, len(query) - even)
    assert groups.of_query == tuple(label % 2 for label in query.labels.tolist())


@pytest.mark.parametrize("name", ["products", "photographs", "finetuned"])
def test_photographs_need_their_data(name, tmp_path):
    run = getattr(bench, f"run_{name}")
    with pytest.raises(ValueError, match=f"profile must be real for learning-{name}"):
        run(RunContext())
    with pytest.raises(FileNotFoundError, match="is not under"):
        run(RunContext("real", str(tmp_path)))


def test_missing_data_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Omniglot is not under"):
        learning_setting(RunContext("real", str(tmp_path)))
