"""VGG-M: geometry, normalisation, and public weight files in their own formats."""

import numpy as np
import pytest
import scipy.io
import torch

from retrieval_geometry.features import VGGM, convert_vgg_m, load_backbone
from retrieval_geometry.features.vggm import MEAN_BGR, fit_mean

SHAPES = {
    "conv1": (7, 7, 3, 96),
    "conv2": (5, 5, 96, 256),
    "conv3": (3, 3, 256, 512),
    "conv4": (3, 3, 512, 512),
    "conv5": (3, 3, 512, 512),
}


def _cell(items):
    cell = np.empty((1, len(items)), dtype=object)
    cell[0, :] = items
    return cell


def _matconvnet(path, older=False, mean="image"):
    """Write imagenet-vgg-m.mat with small numbers: a row of layers, filters h x w x in x out, for RGB."""
    generator = np.random.default_rng(0)
    filters = {
        name: 0.01 * generator.standard_normal(shape, dtype=np.float32) for name, shape in SHAPES.items()
    }
    biases = {
        name: generator.standard_normal((1, shape[-1])).astype(np.float32) for name, shape in SHAPES.items()
    }
    layers = []
    for name in SHAPES:
        layer = {"type": "conv", "name": name, "stride": np.array([[1.0, 1.0]]), "pad": np.zeros((1, 4))}
        if older:
            layer |= {"filters": filters[name], "biases": biases[name]}
        else:
            layer |= {"weights": _cell([filters[name], biases[name]])}
        layers += [layer, {"type": "relu", "name": name.replace("conv", "relu")}]
    layers.append({"type": "softmax", "name": "prob"})
    image = {
        "image": generator.uniform(90, 130, (224, 224, 3)).astype(np.float32),
        "colour": np.array([[[123.0, 117.0, 104.0]]], dtype=np.float32),
    }.get(mean)
    normalization = {} if image is None else {"averageImage": image}
    normalization["imageSize"] = np.array([[224.0, 224.0, 3.0]])
    content = {"layers": _cell(layers)}
    content |= {"normalization": normalization} if older else {"meta": {"normalization": normalization}}
    scipy.io.savemat(path, content)
    return filters, biases, image


def test_geometry_is_that_of_the_paper():
    """Chatfield et al. 2014, table 1; [geometric] section 3: 13 x 13 local features of 512 dimensions."""
    for size in (224, 221):
        backbone = load_backbone("vgg_m", weights="random", input_size=size)
        assert backbone(torch.rand(1, 3, size, size)).shape == (1, 169, 512)
    sizes = [109, 54, 26, 13, 13]
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3"]
    for layer, size in zip(layers, sizes, strict=True):
        backbone = load_backbone("vgg_m", layer, "random")
        assert backbone(torch.rand(1, 3, 224, 224)).shape[1] == size**2


def test_images_become_bgr_from_0_to_255_less_the_mean():
    network = VGGM(input_size=32)
    seen = []
    network.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.rand(1, 3, 32, 32)
    network(images)
    for channel, (colour, mean) in enumerate(zip((2, 1, 0), MEAN_BGR, strict=True)):
        torch.testing.assert_close(seen[0][0, channel], 255 * images[0, colour] - mean)


def test_local_response_normalisation_divides_alpha_by_the_window():
    """Caffe's convention: (2 + 5e-4 / 5 * sum of squares over 5 channels)^0.75."""
    x = 100 * torch.rand(1, 96, 2, 2)
    squares = torch.nn.functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
    window = sum(squares[:, i : i + 96] for i in range(5))
    torch.testing.assert_close(VGGM(32).norm1(x), x / (2 + 1e-4 * window) ** 0.75)


def test_conv5_is_before_the_last_relu():
    before = load_backbone("vgg_m", weights="random", input_size=64)
    after = load_backbone("vgg_m", "relu5", "random", input_size=64)
    images = torch.rand(1, 3, 64, 64)
    assert before(images).min() < 0
    torch.testing.assert_close(before(images).clamp(min=0), after(images))


@pytest.mark.parametrize("older", [False, True])
def test_a_matconvnet_file_is_converted(tmp_path, older):
    path = tmp_path / "imagenet-vgg-m.mat"
    filters, biases, image = _matconvnet(path, older)
    state = convert_vgg_m(path)
    assert state.keys() == {"mean", *(f"{name}.{kind}" for name in SHAPES for kind in ("weight", "bias"))}
    for name in SHAPES:
        weight = state[f"{name}.weight"]
        assert torch.equal(state[f"{name}.bias"], torch.from_numpy(biases[name][0]))
        for y, x, source, target in [(0, 1, 0, 5), (2, 0, 2, 50)]:
            channel = 2 - source if name == "conv1" else source
            assert float(weight[target, channel, y, x]) == filters[name][y, x, source, target]
    assert float(state["mean"][0, 10, 20]) == image[10, 20, 2]
    VGGM().load_state_dict(state)


def test_a_converted_network_computes_what_matconvnet_does(tmp_path):
    """The first convolution by hand: RGB less the mean image, correlated with filters h x w x in x out."""
    path = tmp_path / "imagenet-vgg-m.mat"
    filters, biases, image = _matconvnet(path)
    backbone = load_backbone("vgg_m", "conv1", path)
    pixels = torch.rand(1, 3, 224, 224)
    found = backbone(pixels)[0].reshape(109, 109, 96)
    rgb = 255 * pixels[0].permute(1, 2, 0).numpy() - image
    for row, column in [(0, 0), (50, 108)]:
        window = rgb[2 * row : 2 * row + 7, 2 * column : 2 * column + 7]
        expected = np.einsum("yxc,yxck->k", window, filters["conv1"]) + biases["conv1"][0]
        np.testing.assert_allclose(found[row, column].detach(), expected, rtol=1e-3, atol=1e-3)
    assert backbone.weights == "imagenet-vgg-m.mat"
    assert len(backbone.weights_sha256) == 64


@pytest.mark.parametrize("mean", ["colour", None])
def test_a_mean_colour_and_no_mean(tmp_path, mean):
    _matconvnet(tmp_path / "net.mat", mean=mean)
    state = convert_vgg_m(tmp_path / "net.mat")
    if mean is None:
        assert "mean" not in state
    else:
        assert state["mean"].flatten().tolist() == [104, 117, 123]
    backbone = load_backbone("vgg_m", weights=tmp_path / "net.mat", input_size=64)
    assert backbone(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_the_mean_image_fits_crops_of_its_own_size_and_its_colour_the_others():
    state = {"mean": torch.rand(3, 224, 224)}
    assert fit_mean(state, 224)["mean"] is state["mean"]
    other = fit_mean(state, 221)["mean"]
    assert other.shape == (3, 221, 221)
    torch.testing.assert_close(other[:, 7, 9], state["mean"].mean(dim=(1, 2)))


def test_the_port_is_renamed(tmp_path):
    numbers = (0, 4, 8, 10, 12)
    ported = {}
    for number, (height, width, inside, outside) in zip(numbers, SHAPES.values(), strict=True):
        ported[f"features.{number}.weight"] = torch.randn(outside, inside, height, width)
        ported[f"features.{number}.bias"] = torch.randn(outside)
    torch.save(ported | {"classif.0.bias": torch.zeros(4096)}, tmp_path / "vggm.pth")
    state = convert_vgg_m(tmp_path / "vggm.pth")
    assert torch.equal(state["conv5.weight"], ported["features.12.weight"])
    assert len(state) == 10
    assert load_backbone("vgg_m", weights=tmp_path / "vggm.pth", input_size=64).dim == 512


def test_own_state_dicts_pass_through(tmp_path):
    torch.save(VGGM(64).state_dict(), tmp_path / "own.pth")
    assert load_backbone("vgg_m", weights=tmp_path / "own.pth", input_size=64).weights == "own.pth"


def test_files_of_other_networks(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1), "x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no VGG-M.*features\.0\.bias"):
        convert_vgg_m(tmp_path / "other.pth")
    scipy.io.savemat(tmp_path / "other.mat", {"a": 1})
    (tmp_path / "text.mat").write_text("weights")
    for name in ("other.mat", "text.mat"):
        with pytest.raises(ValueError, match=f"{name} holds no VGG-M in the format of MatConvNet"):
            convert_vgg_m(tmp_path / name)
    for name in ("gone.mat", "gone.pth"):
        with pytest.raises(FileNotFoundError, match=f"no weight file at .*{name}"):
            convert_vgg_m(tmp_path / name)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong\.pth do not belong to vgg_m: .*missing.*another shape"):
        load_backbone("vgg_m", weights=tmp_path / "wrong.pth")
