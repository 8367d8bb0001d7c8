"""Networks of timm: tokens as maps, preprocessing, weight files, and nothing that is fetched unasked."""

import socket

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from timm.data import create_transform, resolve_data_config

from retrieval_geometry._files import file_sha256
from retrieval_geometry.features import load_backbone, load_embedding_network

DINO, DINOV2 = "vit_small_patch16_224.dino", "vit_small_patch14_reg4_dinov2"
CLIP, VIT = "vit_base_patch16_clip_224.openai", "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever reaches out fails its test."""

    def refuse(*arguments, **settings):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)


@pytest.fixture(scope="module")
def vit():
    """A vision transformer whose weights are nobody else's, with a classifier."""
    torch.manual_seed(7)
    return timm.create_model(VIT).eval()


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        (DINO, 64, (16, 384)),
        (DINOV2, 56, (16, 384)),
        (CLIP, 64, (16, 768)),
        (VIT, 32, (4, 192)),
        ("timm/resnet18", 64, (4, 512)),
        ("timm/tf_efficientnet_lite0", 64, (4, 1280)),
        ("mobilenetv4_conv_small", 64, (4, 960)),
        ("swin_tiny_patch4_window7_224", 64, (4, 768)),
        pytest.param(DINO, None, (196, 384), marks=pytest.mark.slow),
        pytest.param(DINOV2, None, (1369, 384), marks=pytest.mark.slow),
        pytest.param("vit_base_patch14_dinov2", None, (1369, 768), marks=pytest.mark.slow),
        pytest.param(CLIP, None, (196, 768), marks=pytest.mark.slow),
        pytest.param("vit_base_patch16_224", None, (196, 768), marks=pytest.mark.slow),
    ],
)
def test_the_default_is_the_last_feature_map_without_class_and_register_tokens(name, size, shape):
    backbone = load_backbone(name, weights="random", input_size=size)
    images = torch.rand(1, 3, backbone.input_size, backbone.input_size)
    assert backbone(images).shape == (1, *shape)
    assert backbone.dim == shape[1]
    assert (backbone.name, backbone.weights) == ("timm/" + name.removeprefix("timm/"), "random")


@pytest.mark.parametrize(("name", "prefix"), [(DINOV2, 5), (VIT, 1)])
def test_tokens_stand_where_their_patches_are(name, prefix):
    backbone = load_backbone(name, weights="random", input_size=56 if prefix == 5 else 64)
    images = torch.rand(2, 3, backbone.input_size, backbone.input_size)
    tokens = backbone.trunk.network.forward_features((images - backbone.mean) / backbone.std)
    torch.testing.assert_close(backbone(images), tokens[:, prefix:])


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("timm/resnet18", "layer3", (16, 256)),
        (VIT, "blocks.5", (16, 192)),
        ("swin_tiny_patch4_window7_224", "layers.2", (16, 384)),
        ("timm/resnet18", ["layer2", "layer3"], (16, 384)),
    ],
)
def test_any_stage(name, layer, shape):
    backbone = load_backbone(name, layer, "random", input_size=64)
    assert backbone(torch.rand(1, 3, 64, 64)).shape == (1, *shape)


def test_before_and_after_the_non_linearity():
    images = torch.rand(1, 3, 64, 64)
    before, after = (
        load_backbone("timm/resnet18", layer, "random", input_size=64)(images)
        for layer in ("layer3.0.bn1", "layer3.0.act1")
    )
    assert before.min() < 0
    assert torch.equal(before.clamp(min=0), after)


@pytest.mark.parametrize(
    ("name", "ours"), [("resnet18", "resnet18"), ("efficientnet_lite0", "efficientnet_lite0")]
)
def test_a_name_that_others_have_too_is_theirs_without_the_prefix(name, ours):
    assert load_backbone(name, weights="random", input_size=64).name == ours
    assert load_backbone("timm/" + name, weights="random", input_size=64).name == "timm/" + ours


@pytest.mark.parametrize("name", ["timm/resnet18", DINO, CLIP])
def test_images_are_prepared_as_timm_does(name):
    backbone = load_backbone(name, weights="random")
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name.removeprefix("timm/")).to_dict())
    theirs = create_transform(**config)(Image.fromarray(data.cat()))
    image = backbone.prepare(torch.from_numpy(data.cat()).permute(2, 0, 1))
    ours = ((image - backbone.mean) / backbone.std).double()
    # theirs rounds to whole pixels twice, once along each side
    assert (ours - theirs).abs().max() < 3 / 255 / backbone.std.min()
    assert (ours - theirs).abs().mean() < 0.5 / 255 / backbone.std.min()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(vit, tmp_path, suffix):
    file = tmp_path / f"vit.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(vit.state_dict(), file)
    backbone = load_backbone(VIT, weights=file)
    images = torch.rand(1, 3, 224, 224)
    expected = vit.forward_features((images - backbone.mean) / backbone.std)[:, 1:]
    torch.testing.assert_close(backbone(images), expected)
    assert (backbone.weights, backbone.weights_sha256) == (file.name, file_sha256(file))


def test_position_embeddings_fit_another_size(vit, tmp_path):
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    backbone = load_backbone(VIT, weights=tmp_path / "vit.safetensors", input_size=96)
    overlay = {"file": str(tmp_path / "vit.safetensors"), "custom_load": False}
    theirs = timm.create_model(VIT, pretrained=True, pretrained_cfg_overlay=overlay, img_size=96).eval()
    images = torch.rand(1, 3, 96, 96)
    expected = theirs.forward_features((images - backbone.mean) / backbone.std)[:, 1:]
    torch.testing.assert_close(backbone(images), expected)
    assert backbone(images).shape == (1, 36, 192)


def test_files_of_another_size_or_family_and_damaged_ones(vit, tmp_path):
    others = {
        "small.pth": timm.create_model("vit_small_patch16_224").state_dict(),
        "resnet.pth": timm.create_model("resnet18").state_dict(),
    }
    for name, state in others.items():
        torch.save(state, tmp_path / name)
        with pytest.raises(ValueError, match=rf"the weights {name} do not belong to timm/{VIT}"):
            load_backbone(VIT, weights=tmp_path / name)
    save_file(vit.state_dict(), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors is no safetensors file, or a damaged one"):
        load_backbone(VIT, weights=tmp_path / "cut.safetensors")


def test_pretrained_weights_are_fetched_when_asked_for(vit, tmp_path, monkeypatch):
    asked = []

    def fetch(repository, file):
        asked.append((repository, file))
        save_file(vit.state_dict(), tmp_path / "model.safetensors")
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    backbone = load_backbone(VIT, weights="pretrained", input_size=64)
    assert asked == [("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "model.safetensors")]
    assert torch.equal(backbone.trunk.network.norm.weight, vit.norm.weight)


def test_pretrained_weights_out_of_reach(monkeypatch):
    def no_route(*arguments):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_route)
    with pytest.raises(
        FileNotFoundError, match=r"timm/vit_tiny_patch16_224\..*no route.*fetch model\.safetensors elsewhere"
    ):
        load_backbone(VIT, weights="pretrained")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("timm/resnet81", {"weights": "random"}, "no backbone 'timm/resnet81'; did you mean resnet"),
        (VIT + ".dino", {"weights": "random"}, "no backbone 'vit_tiny_patch16_224.dino'; did you mean"),
        (VIT, {}, rf"weights of timm/{VIT} must be chosen: pretrained \(fetched"),
        (VIT, {"weights": "random", "layer": "blocks.12"}, rf"timm/{VIT} has no layer 'blocks.12'"),
        (VIT, {"weights": "random", "input_size": 8}, "input_size must be a multiple of .* 16 pixels, got 8"),
        (VIT, {"weights": "random", "input_size": 100}, "a multiple of the patches"),
        ("timm/resnet18", {"weights": "random", "input_size": 16}, "at least the stride of .* 32 pixels"),
    ],
)
def test_what_cannot_be(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(name, **settings)


def test_no_such_file():
    with pytest.raises(FileNotFoundError, match=r"no file 'gone\.pth'; weights of timm/resnet18 can be: pre"):
        load_backbone("timm/resnet18", weights="gone.pth")


@pytest.mark.parametrize("name", [VIT, "timm/resnet18"])
def test_as_a_trunk_to_train(name):
    network = load_embedding_network(name, 8, weights="random", input_size=64)
    embedded = network(torch.rand(2, 3, 64, 64))
    assert embedded.shape == (2, 8)
    embedded[0, 0].backward()
    assert any(parameter.grad is not None for parameter in network.trunk.parameters())
