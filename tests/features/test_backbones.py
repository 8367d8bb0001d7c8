"""Networks by name: shapes, weights of every origin, several layers, refusals."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model
from torchvision.transforms.v2 import functional as transforms

from retrieval_geometry._files import file_sha256
from retrieval_geometry.features import load_backbone


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(1)
    return get_model("squeezenet1_1", weights=None).eval()


def test_squeezenet_has_the_shape_of_vgg_m_conv5():
    backbone = load_backbone("squeezenet1_1", weights="random")
    assert backbone(torch.rand(2, 3, 224, 224)).shape == (2, 169, 512)
    assert (backbone.dim, backbone.input_size, backbone.resize_size) == (512, 224, 256)
    assert backbone.identity["layer"] == "features"


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("scattering", 96, (144, 87)),
        ("resnet18", 64, (4, 512)),
        ("alexnet", 127, (49, 256)),
        ("vgg11", 64, (16, 512)),
        ("vgg11_bn", 64, (16, 512)),
        ("mobilenet_v3_small", 64, (4, 576)),
        ("efficientnet_b0", 64, (4, 1280)),
        ("shufflenet_v2_x0_5", 64, (4, 1024)),
        ("mnasnet0_5", 64, (4, 1280)),
        ("regnet_x_400mf", 64, (4, 400)),
        ("densenet121", 64, (4, 1024)),
        ("googlenet", 64, (4, 1024)),
        pytest.param("inception_v3", 96, (1, 2048), marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, (4, 768), marks=pytest.mark.slow),
        pytest.param("swin_t", 64, (4, 768), marks=pytest.mark.slow),
        pytest.param("vit_b_32", 224, (49, 768), marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", 64, (4, 2048), marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 64, (4, 2048), marks=pytest.mark.slow),
        pytest.param("maxvit_t", 224, (49, 512), marks=pytest.mark.slow),
    ],
)
def test_default_layer_of_every_family_is_its_last_feature_map(name, size, shape):
    weights = None if name == "scattering" else "random"
    backbone = load_backbone(name, weights=weights, input_size=size)
    assert backbone(torch.rand(1, 3, size, size)).shape == (1, *shape)
    assert backbone.dim == shape[1]


def test_weights_from_a_file_give_the_networks_own_map(squeezenet, tmp_path):
    torch.save(squeezenet.state_dict(), tmp_path / "mine.pth")
    backbone = load_backbone("squeezenet1_1", weights=tmp_path / "mine.pth", input_size=64)
    images = torch.rand(2, 3, 64, 64)
    normalised = transforms.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = squeezenet.features(normalised).flatten(2).mT
    torch.testing.assert_close(backbone(images), expected)
    assert backbone.identity["weights"] == "mine.pth"
    assert backbone.identity["weights_sha256"] == file_sha256(tmp_path / "mine.pth")


def test_safetensors_are_read(squeezenet, tmp_path):
    save_file(squeezenet.state_dict(), tmp_path / "mine.safetensors")
    backbone = load_backbone("squeezenet1_1", weights=tmp_path / "mine.safetensors", input_size=64)
    assert backbone.weights == "mine.safetensors"


def test_torchvision_names_are_looked_up_in_its_cache(squeezenet, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    torch.save(squeezenet.state_dict(), cached)
    for member in ("IMAGENET1K_V1", "DEFAULT"):
        backbone = load_backbone("squeezenet1_1", weights=member, input_size=64)
        assert backbone.weights == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
        assert backbone.weights_sha256 == file_sha256(cached)
    cached.write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"squeezenet1_1-b8a52dc0\.pth is damaged; remove it"):
        load_backbone("squeezenet1_1", weights="DEFAULT")


def test_torchvision_weights_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        FileNotFoundError, match=r"could not be fetched from https://.*no route.*put the file at"
    ):
        load_backbone("squeezenet1_1", weights="DEFAULT")


def test_a_trunk_will_do_if_the_layer_needs_no_more(tmp_path):
    state = get_model("resnet18", weights=None).state_dict()
    trunk = {key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}
    counters = [key for key in trunk if key.endswith("num_batches_tracked")]
    for key in counters:
        del trunk[key]
    torch.save(trunk, tmp_path / "trunk.pth")
    backbone = load_backbone("resnet18", "layer3", tmp_path / "trunk.pth", input_size=64)
    assert backbone(torch.rand(1, 3, 64, 64)).shape == (1, 16, 256)
    with pytest.raises(ValueError, match=r"missing \(layer4\.0\.bn1\.bias.*choose a layer of that part"):
        load_backbone("resnet18", "layer4", tmp_path / "trunk.pth")


def test_weights_of_another_network_are_refused(squeezenet, tmp_path):
    torch.save(squeezenet.state_dict(), tmp_path / "squeeze.pth")
    with pytest.raises(ValueError, match=r"squeeze\.pth do not belong to resnet18: .*missing.*unexpected"):
        load_backbone("resnet18", weights=tmp_path / "squeeze.pth")
    with pytest.raises(ValueError, match=r"of another shape \(features\.0\.weight \(64, 3, 3, 3\), not"):
        load_backbone("squeezenet1_0", weights=tmp_path / "squeeze.pth")


def test_damaged_and_foreign_weight_files(squeezenet, tmp_path):
    torch.save(squeezenet.state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-1000])
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save({"model": {"model": squeezenet.state_dict()}}, tmp_path / "nested.pth")
    torch.save(squeezenet, tmp_path / "pickled.pth")  # a whole module: code, not weights
    nan = squeezenet.state_dict() | {"features.0.bias": torch.full((64,), torch.nan)}
    torch.save(nan, tmp_path / "nan.pth")
    cases = {
        "cut.pth": "damaged",
        "text.pth": "no PyTorch weight file",
        "empty.safetensors": "no safetensors file",
        "nested.pth": "must hold a state dict",
        "pickled.pth": "holds pickled Python objects",
        "nan.pth": r"NaN or infinite values in features\.0\.bias",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            load_backbone("squeezenet1_1", weights=tmp_path / name)


def test_random_weights_must_be_asked_for_and_are_the_same_each_time():
    with pytest.raises(
        ValueError, match=r"weights of resnet18 must be chosen: IMAGENET1K_V1, DEFAULT, the path"
    ):
        load_backbone("resnet18")
    torch.manual_seed(5)
    first = load_backbone("mobilenet_v3_small", weights="random", input_size=64)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # the caller's random state is left alone
    second = load_backbone("mobilenet_v3_small", weights="random", input_size=64)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(first(images), second(images))
    assert first.weights == "random"


def test_missing_weight_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone\.pth'; weights of resnet18 can be"):
        load_backbone("resnet18", weights=tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match="IMAGENET1K_V7"):
        load_backbone("resnet18", weights="IMAGENET1K_V7")


@pytest.mark.parametrize(
    ("name", "near"),
    [("rsnet18", "resnet18"), ("VGG_M", "vgg_m"), ("scatering", "scattering"), ("zzzz", "there are")],
)
def test_unknown_backbone_gets_near_matches(name, near):
    with pytest.raises(ValueError, match=f"no backbone '{name}'.*{near}"):
        load_backbone(name, weights="random")


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "quantized_resnet18"])
def test_other_tasks_than_classification_are_no_backbones(name):
    with pytest.raises(ValueError, match="no backbone"):
        load_backbone(name, weights="random")


def test_unknown_layer_gets_near_matches():
    with pytest.raises(ValueError, match=r"resnet18 has no layer 'layr3'; did you mean layer3"):
        load_backbone("resnet18", "layr3", "random")
    with pytest.raises(ValueError, match="one layer or several different ones"):
        load_backbone("resnet18", [], "random")
    with pytest.raises(ValueError, match="one layer or several different ones"):
        load_backbone("resnet18", ["layer1", "layer1"], "random")


def test_a_layer_without_a_map_is_refused():
    with pytest.raises(ValueError, match=r"layer 'fc' of resnet18 gives shape \(1, 1000\), no feature map"):
        load_backbone("resnet18", "fc", "random", input_size=64)


@pytest.mark.parametrize("size", [3, 0, -5, 2.5])
def test_input_size_that_cannot_be(size):
    with pytest.raises(ValueError, match="input_size"):
        load_backbone("alexnet", weights="random", input_size=size)


def test_the_scattering_takes_no_weights_and_no_layer():
    with pytest.raises(ValueError, match="neither layers nor weights"):
        load_backbone("scattering", weights="random")
    with pytest.raises(ValueError, match="neither layers nor weights"):
        load_backbone("scattering", layer="S1")


def test_several_layers_stand_side_by_side_on_the_coarsest_grid():
    fine, coarse, both = (
        load_backbone("resnet18", layer, "random", input_size=64)
        for layer in ("layer2", "layer3", ("layer2", "layer3"))
    )
    images = torch.rand(2, 3, 64, 64)
    grid = fine(images).mT.unflatten(2, (4, 2, 4, 2)).mean(dim=(3, 5)).flatten(2).mT
    torch.testing.assert_close(both(images), torch.cat([grid, coarse(images)], dim=2))
    assert both.dim == 128 + 256
    assert both.identity["layer"] == "layer2+layer3"


@pytest.mark.parametrize(
    ("name", "layers"),
    [("squeezenet1_1", ["features.0", "features.1"]), ("googlenet", ["conv1.bn", "conv2"])],
)
def test_in_place_layers_do_not_overwrite_an_earlier_output(name, layers):
    """ReLU in place, as a module or a function, would rectify the layer before it as well."""
    images = torch.rand(1, 3, 64, 64)
    both = load_backbone(name, layers, "random", input_size=64).trunk(images)
    for layer in layers:
        alone = load_backbone(name, layer, "random", input_size=64).trunk(images)
        assert torch.equal(both[layer], alone[layer])


def test_batch_norm_uses_its_stored_statistics():
    backbone = load_backbone("resnet18", "layer1", "random", input_size=64)
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(backbone(images)[:1], backbone(images[:1]))


def test_float64():
    backbone = load_backbone("squeezenet1_1", weights="random", input_size=64).double()
    assert backbone(torch.rand(1, 3, 64, 64, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.slow
def test_swin_maps_have_channels_last():
    backbone = load_backbone("swin_t", "features", "random", input_size=64)
    assert backbone(torch.rand(1, 3, 64, 64)).shape == (1, 4, 768)


@pytest.mark.gpu
def test_a_backbone_on_the_gpu():
    cpu, gpu = (load_backbone("squeezenet1_1", weights="random", device=device) for device in ("cpu", "cuda"))
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(cpu(images), gpu(images.cuda()).cpu(), atol=1e-3, rtol=1e-3)
