"""Embedding networks: shapes, lengths, what is trained at which rate and what is frozen."""

import pytest
import torch
from torch import nn

from retrieval_geometry.features import (
    EmbeddingNetwork,
    GlyphCNN,
    Scattering,
    load_backbone,
    load_embedding_network,
)
from retrieval_geometry.features.principal import principal_axes

TRUNKS = [
    ("resnet18", "layer3", 4),
    ("resnet50", None, 2),
    ("googlenet", None, 2),
    ("squeezenet1_1", None, 3),
    ("mobilenet_v2", None, 2),
]


@pytest.mark.parametrize(("trunk", "layer", "side"), TRUNKS)
def test_trunks_of_torchvision(trunk, layer, side):
    network = load_embedding_network(trunk, 16, layer, "random", input_size=64, output="map")
    embedded = network(torch.rand(2, 3, 64, 64))
    assert embedded.shape == (2, side**2, 16)
    embedded[0, 0, 0].backward()
    gradients = [parameter.grad for group in network.parameter_groups(1.0) for parameter in group["params"]]
    assert sum(gradient is not None for gradient in gradients) > len(gradients) / 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("output", ["vector", "map"])
def test_shapes_and_lengths(dtype, channels, output):
    network = load_embedding_network(dim=12, output=output)
    images = torch.randint(0, 256, (5, channels, 32, 32), dtype=torch.uint8)
    embedded = network(images if dtype == torch.uint8 else images.to(dtype) / 255)
    assert embedded.shape == ((5, 12) if output == "vector" else (5, 16, 12))
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(embedded.shape[:-1]))


def test_the_vector_is_the_mean_of_the_map_before_its_length_is_set():
    images = torch.rand(3, 3, 32, 32)
    vector = load_embedding_network(dim=6, normalize=False)(images)
    local = load_embedding_network(dim=6, normalize=False, output="map")(images)
    torch.testing.assert_close(vector, local.mean(dim=1))


def test_grey_and_rgb_and_uint8_agree():
    network = load_embedding_network(dim=6)
    grey = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1).double().float() / 255))


def test_the_small_network_is_small_and_sees_one_image_at_a_time():
    network = load_embedding_network(dim=64)
    assert 1e5 < sum(parameter.numel() for parameter in network.parameters()) < 3e5
    images = torch.rand(6, 3, 32, 32)
    torch.testing.assert_close(network(images)[2:4], network(images[2:4]))


def test_the_seed_decides_the_weights():
    one, two, other = (load_embedding_network(dim=4, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_is_kept_in_evaluation_mode_if_asked(frozen):
    network = load_embedding_network("mobilenet_v2", 8, None, "random", 64, freeze_batch_norm=frozen).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = norms[0].running_mean.clone()
    network(torch.rand(4, 3, 64, 64))
    assert network.training
    assert norms
    assert all(module.training is not frozen for module in norms)
    assert torch.equal(before, norms[0].running_mean) is frozen


def test_parameter_groups_and_a_frozen_trunk():
    network = load_embedding_network(dim=8)
    head, trunk = network.parameter_groups(0.1, 0.01)
    assert (head["lr"], trunk["lr"]) == (0.1, pytest.approx(0.001))
    assert len(head["params"]) + len(trunk["params"]) == len(list(network.parameters()))
    frozen = load_embedding_network(dim=8, freeze_trunk=True)
    (only,) = frozen.parameter_groups(0.1, 0.01)
    assert {id(parameter) for parameter in only["params"]} == {id(p) for p in frozen.head.parameters()}
    frozen(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in frozen.trunk.parameters())
    assert not frozen.train().trunk.training


def test_a_trunk_without_parameters():
    network = EmbeddingNetwork(Scattering(input_size=32), 8, freeze_trunk=True)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 8)


def test_prepare_shows_what_the_backbone_shows():
    backbone = load_backbone("squeezenet1_1", weights="random", input_size=64)
    network = EmbeddingNetwork(backbone, 8)
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    plain, wide = network.prepare(image), network.prepare(image, margin=4)
    assert wide.shape == (3, 72, 72)
    assert torch.equal(wide[:, 4:-4, 4:-4], plain)
    assert (plain.float() / 255 - backbone.prepare(image)).abs().max() <= 0.501 / 255


def test_prepare_repeats_the_edge_where_there_is_nothing_to_show():
    network, image = load_embedding_network(dim=4), torch.arange(3 * 32 * 32).view(3, 32, 32).to(torch.uint8)
    wide = network.prepare(image, margin=3)
    assert torch.equal(wide[:, 3:-3, 3:-3], image)
    assert torch.equal(wide[:, 0, 3:-3], image[:, 0])
    assert torch.equal(network.prepare(image), image)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 32, 32), "images must have shape"),
        (torch.rand(2, 4, 32, 32), "images must have shape"),
        (torch.rand(0, 3, 32, 32), "images must have shape"),
        (torch.rand(2, 3, 32, 32) * 255, r"must lie in \[0, 1\]"),
        (torch.full((2, 3, 32, 32), torch.nan), r"must lie in \[0, 1\]"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "uint8 or floating point"),
    ],
)
def test_images_that_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        load_embedding_network(dim=4)(images)


def test_settings_that_are_refused():
    with pytest.raises(ValueError, match="output must be one of vector, map"):
        EmbeddingNetwork(GlyphCNN(), 8, output="tokens")
    with pytest.raises(ValueError, match="dim must be"):
        EmbeddingNetwork(GlyphCNN(), 0)
    with pytest.raises(ValueError, match="glyph_cnn is trained whole, has one layer"):
        load_embedding_network("glyph_cnn", weights="random")
    with pytest.raises(ValueError, match="weights of resnet18 must be chosen"):
        load_embedding_network("resnet18")
    with pytest.raises(ValueError, match="trunk_factor must be"):
        load_embedding_network().parameter_groups(0.1, 0.0)


def test_a_standardised_head_spreads_the_embeddings_of_its_images() -> None:
    network = load_embedding_network("glyph_cnn_bn", dim=8, normalize=False)
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.eval()
    network.standardize_head(images)
    embedded = network(images)
    torch.testing.assert_close(embedded.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(embedded.std(dim=0), torch.ones(8), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="images must be at least two"):
        network.standardize_head(images[:1])


def test_batch_norm_of_the_small_network_learns_unless_it_is_frozen() -> None:
    for frozen in (False, True):
        network = load_embedding_network("glyph_cnn_bn", dim=8, freeze_batch_norm=frozen)
        before = {name: value.clone() for name, value in network.named_buffers()}
        network.train()(torch.rand(8, 3, 32, 32))
        after = dict(network.named_buffers())
        assert any(not torch.equal(after[name], value) for name, value in before.items()) is not frozen


@pytest.fixture(scope="module")
def with_tail() -> EmbeddingNetwork:
    return load_embedding_network(
        "efficientnet_lite0", 8, weights="random", input_size=64, train_from="stage7", freeze_trunk=True
    )


@pytest.mark.parametrize("output", ["vector", "map"])
def test_a_network_in_two_parts_is_the_whole(output):
    settings = {"weights": "random", "input_size": 64, "freeze_trunk": True, "output": output}
    whole = load_embedding_network("efficientnet_lite0", 8, **settings).eval()
    parts = load_embedding_network("efficientnet_lite0", 8, train_from="stage7", **settings).eval()
    images = torch.rand(3, 3, 64, 64)
    assert torch.allclose(parts(images), whole(images), atol=1e-5)
    assert parts.features(images).shape == (3, 4, 192)
    assert parts.trunk.layer == "stage6"
    assert parts.identity["tail"] == ["stage7", "head_linear", "head"]
    assert "tail" not in whole.identity


def test_the_tail_is_trained_and_the_trunk_is_not(with_tail):
    _, tail = with_tail.parameter_groups(1.0, trunk_factor=0.1)
    assert tail["lr"] == 0.1
    assert {id(each) for each in tail["params"]} == {id(each) for each in with_tail.tail.parameters()}
    with_tail.train()(torch.rand(2, 3, 64, 64))[0, 0].backward()
    assert all(parameter.grad is None for parameter in with_tail.trunk.parameters())
    assert all(parameter.grad is not None for parameter in with_tail.tail.parameters())
    norms = [module for module in with_tail.tail.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_the_head_is_set_by_what_comes_out_of_the_tail():
    settings = {"input_size": 64, "train_from": "stage7", "freeze_trunk": True, "normalize": False}
    network = load_embedding_network("efficientnet_lite0", 8, **settings)  # trained: its outputs vary
    images = torch.rand(32, 3, 64, 64)
    network.standardize_head(images)
    assert torch.allclose(network(images).std(dim=0), torch.ones(8), atol=1e-3)


def test_a_tail_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="tail stands behind a frozen trunk"):
        load_embedding_network("efficientnet_lite0", 8, weights="random", train_from="stage7")
    for wrong in ("stage9", "stem_linear"):  # nothing would be left in front of the first step
        with pytest.raises(ValueError, match=f"efficientnet_lite0 has no layer '{wrong}'"):
            load_embedding_network("efficientnet_lite0", 8, weights="random", train_from=wrong)
    with pytest.raises(ValueError, match="train_from needs efficientnet_lite0"):
        load_embedding_network("squeezenet1_1", 8, weights="random", train_from="features")
    with pytest.raises(ValueError, match="train_from='stage7'"):
        load_embedding_network(train_from="stage7")


@pytest.mark.parametrize("output", ["vector", "map"])
def test_a_head_on_axes_ranks_as_the_principal_axes_of_the_trunk_do(output):
    settings = {"input_size": 64, "freeze_trunk": True, "normalize": False, "output": output}
    network = load_embedding_network("efficientnet_lite0", 8, train_from="stage7", **settings).eval()
    images = torch.rand(24, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network.set_head_to_axes(network.features(images))
    pooled = load_embedding_network("efficientnet_lite0", 8, **settings).features(images).mean(dim=1)
    axes = principal_axes(pooled, 8)
    found = network(images).detach()
    found = found if output == "vector" else found.mean(dim=1)
    torch.testing.assert_close(
        found, axes.project(pooled) / axes.variances.mean().sqrt().float(), rtol=1e-3, atol=1e-3
    )
    assert float(found.var(dim=0).mean()) == pytest.approx(1, rel=1e-3)
    with pytest.raises(ValueError, match="too few for dim = 8"):
        network.set_head_to_axes(network.features(images[:5]))
    with pytest.raises(ValueError, match="features must"):
        network.set_head_to_axes(pooled)
