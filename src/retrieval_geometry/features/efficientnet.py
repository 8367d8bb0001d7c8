"""EfficientNet-lite0, whose weights, trained on ImageNet, come with a package.

timm has the same network, but takes seconds to import: too long for one query. A test compares both.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry._check import check_count
from retrieval_geometry._packaged import packaged_file
from retrieval_geometry._seeded import seeded
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.network import (
    NetworkBackbone,
    check_layers,
    layer_names,
    weights_of_file,
)
from retrieval_geometry.features.weights import StateDict, Weights, load_into

NAME = "efficientnet_lite0"
STRIDE = 32
STAGES = (
    # blocks, expansion, kernel, stride, channels: Tan and Le 2019, table 1, but for squeeze and excitation
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)


def load_efficientnet_lite0(
    layer: str | Sequence[str] | None, weights: str | os.PathLike[str] | None, input_size: int | None
) -> NetworkBackbone:
    """The backbone, as :func:`load_backbone` describes it."""
    size = check_count(input_size or 224, "input_size", at_least=STRIDE)
    layers = layer_names("head" if layer is None else layer)
    with seeded(0):
        network = efficientnet_lite0()
    steps = list(network.named_children())[:-2]  # no pooling, no classes
    names = [name for name, _ in steps]
    check_layers(layers, names, NAME)
    last = max(names.index(name) for name in layers)
    trunk = _Outputs(steps[: last + 1], layers)
    loaded = _load_weights(network, set(trunk.state_dict()), weights)
    return NetworkBackbone(
        trunk,
        (127 / 255,) * 3,
        (128 / 255,) * 3,
        name=NAME,
        layer="+".join(layers),
        input_size=size,
        resize_size=round(size * 256 / 224),
        interpolation="bicubic",
        weights=loaded.name,
        weights_sha256=loaded.sha256,
    )


def efficientnet_lite0() -> nn.Sequential:
    """The whole network: normalised images ``(B, 3, S, S)`` to logits ``(B, 1000)`` of ImageNet's classes.

    The outputs of its stages are linear; those of the stem and the head are rectified, and linear one step
    before. The order of its weights is that of the package and of timm.
    """
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    steps["stem_linear"] = _convolution(3, 32, 3, 2)
    steps["stem"] = nn.ReLU6()
    channels = 32
    for number, (blocks, expansion, kernel, stride, outputs) in enumerate(STAGES, start=1):
        inputs = [channels] + [outputs] * (blocks - 1)
        strides = [stride] + [1] * (blocks - 1)
        steps[f"stage{number}"] = nn.Sequential(
            *(_Block(*sizes, kernel, outputs, expansion) for sizes in zip(inputs, strides, strict=True))
        )
        channels = outputs
    steps["head_linear"] = _convolution(channels, 1280, 1)
    steps["head"] = nn.ReLU6()
    steps["pooled"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    steps["classifier"] = nn.Linear(1280, 1000)
    return nn.Sequential(steps)


def split_stages(backbone: Backbone, first: str) -> tuple[NetworkBackbone, nn.Sequential]:
    """Cut a backbone in two before a stage: a backbone up to it, and the stages from it on.

    Raises:
        ValueError: another network than this one, one that several layers are read from, or no such stage.
    """
    trunk = getattr(backbone, "trunk", None)
    if not isinstance(trunk, _Outputs) or len(trunk.layers) > 1:
        raise ValueError(
            f"train_from needs {NAME} and one layer of it, got {backbone.name} and {backbone.layer}"
        )
    assert isinstance(backbone, NetworkBackbone)
    steps = list(trunk.named_children())
    names = [name for name, _ in steps]
    check_layers([first], names[1:], NAME)
    cut = names.index(first)
    mean, std = (part.flatten().tolist() for part in (backbone.mean, backbone.std))
    identity: dict[str, Any] = {**backbone.identity, "layer": names[cut - 1]}
    front = NetworkBackbone(_Outputs(steps[:cut], names[cut - 1 : cut]), mean, std, **identity)
    return front, nn.Sequential(OrderedDict(steps[cut:]))


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: where the stride leaves a choice, more at the end."""

    def forward(self, input: Tensor) -> Tensor:
        borders = []
        for length in (input.shape[3], input.shape[2]):
            needed = self.kernel_size[0] - 1 - (length - 1) % self.stride[0]
            borders += [max(needed, 0) // 2, max(needed, 0) - max(needed, 0) // 2]
        return super().forward(functional.pad(input, borders))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch norm."""
    padding = kernel // 2 if stride == 1 else 0
    kind = nn.Conv2d if stride == 1 else _Same
    convolution = kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=1e-3))


class _Block(nn.Module):
    """An inverted residual: channels made more, filtered one by one, made fewer; the input is added."""

    def __init__(self, inputs: int, stride: int, kernel: int, outputs: int, expansion: int) -> None:
        middle = inputs * expansion
        expand = [_convolution(inputs, middle, 1), nn.ReLU6()] if expansion > 1 else []
        filtered = [_convolution(middle, middle, kernel, stride, middle), nn.ReLU6()]
        super().__init__()
        self.steps = nn.Sequential(*expand, *filtered, _convolution(middle, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, input: Tensor) -> Tensor:
        output = self.steps(input)
        return input + output if self.residual else output


class _Outputs(nn.Sequential):
    """Steps of a network, run one after the other; a dict of the outputs of some of them."""

    def __init__(self, steps: Sequence[tuple[str, nn.Module]], layers: Sequence[str]) -> None:
        super().__init__(OrderedDict(steps))
        self.layers = tuple(layers)

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, step in self.named_children():
            input = step(input)
            found[name] = input
        return {layer: found[layer] for layer in self.layers}


def _load_weights(network: nn.Module, needed: set[str], weights: str | os.PathLike[str] | None) -> Weights:
    if weights == "random":
        return Weights({}, "random", "")
    file = packaged_file() if weights is None or weights == "package" else weights
    loaded = weights_of_file(file, NAME, "package, the path of a file, or 'random'")
    load_into(network, needed, loaded._replace(state=_by_our_names(loaded.state, network)), NAME)
    return loaded


def _by_our_names(state: StateDict, network: nn.Module) -> StateDict:
    """Rename weights of the package or of timm, which come in our order."""
    own = network.state_dict()
    foreign = next(iter(state), "") in ("_conv_stem.weight", "conv_stem.weight")
    return dict(zip(own, state.values(), strict=True)) if foreign and len(own) == len(state) else state
