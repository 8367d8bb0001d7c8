"""Ensembles of networks: eq. 1 of [edms], one pass of a shared trunk, files of members."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval_geometry.evaluation import ensemble_weights
from retrieval_geometry.features import (
    EmbeddingEnsemble,
    EmbeddingNetwork,
    load_embedding_network,
    load_ensemble,
    save_member,
)
from retrieval_geometry.training import embed
from tests.training.toy import toy_images

WEIGHTS = torch.tensor([1.0, 0.0, 3.0])
FROZEN = {"trunk": "squeezenet1_1", "weights": "random", "input_size": 64, "freeze_trunk": True, "dim": 5}


def images(n: int = 3, side: int = 32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def members(**settings) -> list[EmbeddingNetwork]:
    return [load_embedding_network(**{"dim": 4, **settings}, seed=seed).eval() for seed in range(3)]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_dot_product_is_the_weighted_sum_of_those_of_the_members(weights, normalize):
    networks = members(normalize=normalize)
    joined = EmbeddingEnsemble(networks, weights).eval()(images())
    alpha = torch.ones(3) if weights is None else weights
    expected = torch.zeros(3, 3)
    for one, network in zip(alpha, networks, strict=True):  # eq. 1
        unit = torch.nn.functional.normalize(network(images()), dim=1)
        expected += one * unit @ unit.mT
    torch.testing.assert_close(joined @ joined.mT, expected / alpha.sum())
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(3))


def test_a_frozen_trunk_in_common_sees_an_image_once(monkeypatch):
    networks, passes = members(**FROZEN), []
    ensemble = EmbeddingEnsemble(networks).eval()
    expected = ensemble.join([network(images(side=64)) for network in networks])
    for network in networks:
        before = network.features
        monkeypatch.setattr(network, "features", lambda x, before=before: passes.append(1) or before(x))
    torch.testing.assert_close(ensemble(images(side=64)), expected)
    assert len(passes) == 1


def test_other_trunks_are_not_taken_for_one():
    networks = members(**FROZEN)
    with torch.no_grad():
        next(networks[1].trunk.parameters()).add_(1)
    ensemble = EmbeddingEnsemble(networks).eval()
    assert not ensemble.freeze_trunk
    expected = ensemble.join([network(images(side=64)) for network in networks])
    torch.testing.assert_close(ensemble(images(side=64)), expected)
    with pytest.raises(ValueError, match="features are those of one trunk, but the members have several"):
        ensemble.project(torch.zeros(1, 1, 512))


@pytest.mark.parametrize("settings", [{}, FROZEN], ids=["whole", "frozen"])
def test_a_set_is_embedded_by_all_members(settings, tmp_path):
    ensemble = EmbeddingEnsemble(members(**settings), WEIGHTS)
    some = toy_images().subset(range(5))
    parts = [embed(network, some) for network in ensemble.members]
    torch.testing.assert_close(embed(ensemble, some, cache=tmp_path), ensemble.join(parts))
    assert embed(ensemble, some).shape == (5, ensemble.dim)


@pytest.mark.parametrize("settings", [{"dim": 4}, FROZEN], ids=["whole", "frozen"])
def test_saved_members_are_loaded_as_one(settings, tmp_path):
    paths = [tmp_path / f"{i}.member" for i in range(3)]
    for seed, path in enumerate(paths):
        network = load_embedding_network(**settings, seed=seed).eval()
        with torch.no_grad():
            network.head.bias.add_(seed)  # not what the settings alone give
        save_member(path, network, settings, "toy")
    side = 64 if "input_size" in settings else 32
    found = load_ensemble(paths, WEIGHTS)
    networks = [load_embedding_network(**settings, seed=seed).eval() for seed in range(3)]
    if "input_size" in settings:
        sizes = [path.stat().st_size for path in paths]
        assert max(sizes) < 40_000  # a frozen trunk is not written again for each
        assert found.freeze_trunk
    for seed, network in enumerate(networks):
        with torch.no_grad():
            network.head.bias.add_(seed)
    torch.testing.assert_close(
        found(images(side=side)), EmbeddingEnsemble(networks, WEIGHTS)(images(side=side))
    )


def test_members_that_do_not_go_together_are_refused(tmp_path):
    one, other = load_embedding_network(dim=4), load_embedding_network(dim=5)
    for networks, message in (
        ([], "members must be at least one network"),
        ([one, other], r"members must agree in dim, got \[4, 5\]"),
        ([one, torch.nn.Linear(1, 1)], "members must be of the class EmbeddingNetwork"),
        ([load_embedding_network(dim=4, output="map")], "members must give vectors"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingEnsemble(networks)
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1e308, 1e308], [1j, 1j]):
        dtype = torch.complex64 if weights == [1j, 1j] else torch.float64
        with pytest.raises(ValueError, match="weights must be 2 numbers, one for each member"):
            EmbeddingEnsemble([one, one], torch.tensor(weights, dtype=dtype))
    with pytest.raises(ValueError, match="one tensor for each of 2 members, got 1"):
        EmbeddingEnsemble([one, one]).join([torch.zeros(1, 4)])


def test_files_that_are_no_members_are_refused(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    network = load_embedding_network(dim=4)
    save_member(paths[0], network, {"dim": 4}, "these images")
    with pytest.raises(FileNotFoundError):
        load_ensemble(paths)
    save_member(paths[1], network, {"dim": 4}, "those images")
    with pytest.raises(ValueError, match=r"b was trained on other images than .*a: they make no ensemble"):
        load_ensemble(paths)
    content = bytearray(paths[1].read_bytes())
    content[len(content) // 2] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(ValueError, match=r"ensemble member .*b is damaged; train this member again"):
        load_ensemble(paths)
    with pytest.raises(ValueError, match="settings make another network"):
        save_member(paths[1], network, {"dim": 5}, "those images")
    with pytest.raises(ValueError, match="settings must be plain values"):
        save_member(paths[1], network, {"dim": np.int64(4)}, "those images")
    with pytest.raises(ValueError, match="paths must name at least one member"):
        load_ensemble([])


def test_weights_are_those_of_the_members_that_help():
    labels = torch.arange(6).repeat_interleave(5)
    generator = torch.Generator().manual_seed(0)
    codes = torch.nn.functional.one_hot(labels, 6).float()

    def member(seen: list[int], noise: float) -> Tensor:
        """Tells the classes in ``seen`` apart and no others."""
        kept = torch.zeros(6)
        kept[seen] = 1
        return codes * kept + noise * torch.randn(30, 6, generator=generator)

    left, right, blind = member([0, 1, 2], 0.1), member([3, 4, 5], 0.1), member([], 0.1)
    weights = ensemble_weights([left, right, blind], labels)
    assert weights.sum() == pytest.approx(1)
    assert min(weights[:2]) > 0.3
    assert weights[2] < 0.1
    torch.testing.assert_close(ensemble_weights([left], labels), torch.ones(1, dtype=torch.float64))
    for embeddings, given, message in (
        ([], labels, "embeddings must hold at least one member"),
        ([left, right.clone().fill_(float("nan"))], labels, r"embeddings\[1\] of image 0 has a NaN"),
        ([left[:, 0]], labels, r"embeddings\[0\] must have shape \(n, d\)"),
        ([left, right[:3]], labels, r"of the same images for each member, got \[30, 3\]"),
        ([left], torch.arange(30), "labels must have a class with two images"),
        ([left], torch.zeros(30).long(), "labels must have a class with two images, and a second class"),
    ):
        with pytest.raises(ValueError, match=message):
            ensemble_weights(embeddings, given)


def test_loaded_weights_are_used_even_if_trunks_part():
    shared, networks = EmbeddingEnsemble(members(**FROZEN)).eval(), members(**FROZEN)
    with torch.no_grad():
        next(networks[1].trunk.parameters()).add_(0.1)
    parted = EmbeddingEnsemble(networks).eval()
    again = copy.deepcopy(shared).eval()
    again.load_state_dict(parted.state_dict())
    torch.testing.assert_close(again(images(side=64)), parted(images(side=64)))
    again.load_state_dict(shared.state_dict())
    assert again.freeze_trunk


def test_a_frozen_trunk_that_the_settings_do_not_give_is_not_lost(tmp_path):
    network = members(**FROZEN)[0]
    with torch.no_grad():
        next(network.trunk.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="settings make another frozen trunk than that of the network, in"):
        save_member(tmp_path / "a", network, FROZEN, "toy")
    assert not (tmp_path / "a").exists()


def test_a_view_is_saved_without_what_lies_behind_it(tmp_path):
    network = load_embedding_network(dim=4)
    plain, view = tmp_path / "plain", tmp_path / "view"
    save_member(plain, network, {"dim": 4}, "toy")
    network.head.weight = torch.nn.Parameter(torch.zeros(10_000, network.head.in_features)[:4])
    save_member(view, network, {"dim": 4}, "toy")
    assert view.stat().st_size == plain.stat().st_size


def test_weights_that_come_with_a_gradient_are_taken_by_value():
    ensemble = EmbeddingEnsemble(members(), torch.ones(3, requires_grad=True))
    assert not copy.deepcopy(ensemble).weights.requires_grad
