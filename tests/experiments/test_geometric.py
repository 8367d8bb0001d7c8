from dataclasses import replace
from pkgutil import resolve_name

import pytest
import torch

from retrieval_geometry.experiments import RunContext, find
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.papers.geometric import experiments, layers, networks, robustness
from retrieval_geometry.papers.geometric.methods import ALL_METHODS, MODELS, PAPER_METHODS
from retrieval_geometry.papers.geometric.printed import TABLE1
from retrieval_geometry.reporting import Groups, Result
from retrieval_geometry.reporting.details import Dealt, Ranked


def use(module, setting, monkeypatch) -> None:
    monkeypatch.setattr(module, "load_setting", lambda context: setting)


def test_the_papers_seven_methods_are_there_by_its_names():
    assert [method.name for method in PAPER_METHODS] == list(TABLE1)
    assert len(ALL_METHODS) == len({method.label for method in ALL_METHODS.values()})
    assert {method.model for method in ALL_METHODS.values()} == MODELS.keys() | {"sift-bow", "scattering"}


def test_table1_runs_end_to_end(small_setting, context, monkeypatch, tmp_path):
    use(experiments, small_setting, monkeypatch)
    monkeypatch.setattr(experiments, "SIFT_WORDS", 20)
    result = experiments.run_table1(context)
    assert [entry.method for entry in result.methods] == list(ALL_METHODS)
    for entry in result.methods:
        assert entry.relevance.unpack().shape == (6, 10)
        assert entry.seconds_per_comparison > 0
        if entry.method != "sift-bow-euclidean":
            assert entry.metrics["P@10"].value > 0.7, entry.label  # an astronaut is no brick wall
    gallery = result.told(Ranked).gallery
    assert set(gallery.neighbours) == set(ALL_METHODS)
    assert gallery.queries[0] not in gallery.neighbours["gmm-wasserstein"][0]
    assert result.groups == Groups("classes", (3, 3), (0, 0, 0, 1, 1, 1))
    assert (result.scope.queries, result.scope.possible) == (6, 24)
    assert Result.read(result.write(tmp_path / "result.json")) == result


def test_table1_in_parts_is_table1_in_one(small_setting, context, monkeypatch, tmp_path):
    use(experiments, small_setting, monkeypatch)
    names = (
        "gmm-normal-kl",
        "gmm-wasserstein",
        "gmm8-variational-kl",
        "mean-euclidean",
        "sample-wasserstein",
    )
    monkeypatch.setattr(experiments, "ALL_METHODS", {name: ALL_METHODS[name] for name in names})
    whole = experiments.run_table1(context)
    other = replace(context, cache=tmp_path / "other")
    for number in (1, 2, 3):
        find("geometric-table1").run_part(other, number, 3)
    monkeypatch.setattr(experiments, "build", lambda *_: pytest.fail("built again"))
    parts = experiments.run_table1(other)
    assert parts.details == whole.details
    for one, found in zip(whole.methods, parts.methods, strict=True):
        assert (found.method, found.metrics, found.relevance) == (one.method, one.metrics, one.relevance)


def test_the_rectified_table_takes_the_last_feature_map(small_setting, context, monkeypatch):
    layered = replace(small_setting, backbone={**small_setting.backbone, "layer": "conv5"})
    use(experiments, layered, monkeypatch)
    seen = []
    monkeypatch.setattr(experiments, "run_table", lambda name, setting, *_: seen.append((name, setting)))
    experiments.run_rectified(RunContext("real"))
    assert seen[0][0] == "geometric-rectified"
    assert seen[0][1].backbone == small_setting.backbone
    with pytest.raises(ValueError, match="profile must be real or paper"):
        experiments.run_rectified(context)


def test_each_network_is_asked_with_every_image(small_setting, context, monkeypatch, tmp_path):
    use(networks, small_setting, monkeypatch)
    for pattern in ("squeezenet1_1", "mobilenet_v2"):
        (tmp_path / f"{pattern}-x.pth").touch()
    seen = {}
    monkeypatch.setattr(networks, "run_table", lambda name, setting, _: seen.update({name: setting}))
    for name in networks.NETWORKS:
        experiment = find(f"geometric-{name}")
        with pytest.raises(ValueError, match=f"profile must be real for {experiment.name}"):
            experiment.run(context)
        resolve_name(experiment.function)(RunContext("real", data_root=str(tmp_path)))
        setting = seen[experiment.name]
        assert setting.queries.tolist() == list(range(len(small_setting.images)))
        assert setting.backbone["layer"] == networks.NETWORKS[name].layer
    assert seen["geometric-mobilenet"].backbone["weights"] == str(tmp_path / "mobilenet_v2-x.pth")


def test_the_same_seed_gives_the_same_table(small_setting, context, monkeypatch):
    use(experiments, small_setting, monkeypatch)
    few = tuple(ALL_METHODS[name] for name in ("gmm-normal-kl", "smt-normal-kl", "gmm8-variational-kl"))
    _, descriptors = experiments.describe(small_setting, context)
    first, second = (experiments.compare(few, descriptors, small_setting, 3) for _ in range(2))
    assert [part.entry.relevance for part in first] == [part.entry.relevance for part in second]


def test_an_interrupted_run_goes_on_where_it_stopped(small_setting, context, monkeypatch):
    few = tuple(ALL_METHODS[name] for name in ("gmm-normal-kl", "mean-euclidean", "mean-cosine"))
    _, descriptors = experiments.describe(small_setting, context)
    first, second = (Checkpoints(context.cache, experiments.compare, run=run) for run in (1, 2))
    ran, rank_setting = [], experiments.rank_setting

    def interrupted(method, models, setting):
        ran.append(method.name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return rank_setting(method, models, setting)

    monkeypatch.setattr(experiments, "rank_setting", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.compare(few, descriptors, small_setting, 0, first)
    parts = experiments.compare(few, descriptors, small_setting, 0, first)
    assert ran == ["gmm-normal-kl", "mean-euclidean", "mean-euclidean", "mean-cosine"]
    experiments.compare(few[:1], descriptors, small_setting, 0, second)
    assert ran[4:] == ["gmm-normal-kl"]
    (damaged,) = first.folder.glob("mean-cosine.part")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    again = experiments.compare(few, descriptors, small_setting, 0, first)
    assert ran[5:] == ["mean-cosine"]
    assert again[:2] == parts[:2]
    assert again[2].nearest == parts[2].nearest


def of_a_network(setting):
    """The same images, described by the network of the quick profile."""
    backbone = {"name": "efficientnet_lite0", "layer": "stage4", "weights": "package"}
    return replace(setting, backbone=backbone)


def test_layers_add_up(small_setting, context, monkeypatch):
    use(layers, of_a_network(small_setting), monkeypatch)
    result = layers.run_layers(context)
    assert result.settings["parts"] == {"first": 24, "middle": 40, "last": 80}
    assert [entry.method for entry in result.methods[:4]] == [
        "mean-euclidean-first",
        "mean-euclidean-middle",
        "mean-euclidean-last",
        "mean-euclidean-all",
    ]
    assert len(result.methods) == 12


def test_each_layer_has_unit_variance(small_setting):
    x = torch.randn(24, 5, 144, generator=torch.Generator().manual_seed(0))
    x[:, :, :24] *= 100
    parts = layers.split_layers("quick", x, of_a_network(small_setting))
    for part in parts.values():
        assert float(part.flatten(0, 1).var(dim=0).sum()) == pytest.approx(1, rel=1e-4)


def test_robustness_runs_end_to_end(small_setting, context, monkeypatch):
    use(robustness, small_setting, monkeypatch)
    monkeypatch.setitem(robustness.DEALS, "quick", 2)
    result = robustness.run_robustness(context)
    assert len(result.methods) == len(robustness.COMPARED)
    images = result.told(Dealt).images["gmm-wasserstein"]
    assert len(images.variation) == 6
    assert result.groups.sizes == (3, 3)
    assert (result.scope.queries, result.scope.possible) == (6, 24)
    assert result["gmm-wasserstein"].metrics["variation"].value == pytest.approx(
        sum(images.variation) / 6, rel=1e-3
    )


def test_what_robustness_measures():
    distances = torch.full((2, 3, 3), 10.0, dtype=torch.float64)
    distances[0].fill_diagonal_(1)
    distances[1].fill_diagonal_(3)
    distances[1, 0, 2] = 0  # once, image 0 is taken for image 2
    found = robustness.measure(distances)
    assert found["variation"].tolist() == pytest.approx([2**0.5 / 2] * 3)  # sd of 1 and 3 over their mean
    assert found["noise"].tolist() == pytest.approx([0.2] * 3)
    assert found["found"].tolist() == [0.5, 1, 1]


def test_an_unusable_device_is_refused_by_name(small_setting):
    with pytest.raises(ValueError, match="'cuda:99' is not usable here; there is: cpu"):
        experiments.describe(small_setting, RunContext(device="cuda:99"))
    with pytest.raises(ValueError, match="'gpu' is not usable here"):
        experiments.describe(small_setting, RunContext(device="gpu"))
