"""Backbones by name: the scattering, VGG-M, and any classification network of torchvision.

torchvision takes seconds to import, so only what asks for one of its networks does it.
"""

import difflib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry._check import check_count, check_device, check_kind
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.scattering import Scattering
from retrieval_geometry.features.vggm import VGGM, convert_vgg_m, fit_mean
from retrieval_geometry.features.weights import (
    Weights,
    file_sha256,
    load_into,
    read_state_dict,
    torchvision_weights,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The last feature map of each family; in VGG and AlexNet that is before the last pooling.
DEFAULT_LAYERS = {
    "alexnet": "features.11",
    "convnext": "features",
    "densenet": "features",
    "efficientnet": "features",
    "googlenet": "inception5b",
    "inception": "Mixed_7c",
    "maxvit": "blocks",
    "mnasnet": "layers",
    "mobilenet": "features",
    "regnet": "trunk_output",
    "resnet": "layer4",
    "resnext": "layer4",
    "shufflenet": "conv5",
    "squeezenet": "features",
    "swin": "permute",
    "vgg_m": "conv5",
    "vit": "encoder",
    "wide_resnet": "layer4",
}


class NetworkBackbone(Backbone):
    """Reads one or several feature maps of a network.

    Several maps are brought to the coarsest of their grids by averaging and stand one after the other along
    D. The tokens of a vision transformer make a square map, its class token left out.

    Args:
        trunk: the result of :func:`feature_extractor`.
        mean: of each colour, in [0, 1], taken from the images.
        std: of each colour, in [0, 1], which then divides them.
        settings: the arguments of :class:`Backbone`.

    Raises:
        ValueError: an output that is no feature map, or an input size that the network cannot take.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.trunk = trunk
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.eval()
        try:
            with torch.inference_mode():
                self.dim = self.feature_map(torch.zeros(1, 3, self.input_size, self.input_size)).shape[1]
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{self.name} cannot take images of input_size = {self.input_size}: {reason}"
            ) from None

    def feature_map(self, images: Tensor) -> Tensor:
        """Compute the feature maps of checked images, ``(B, D, rows, columns)``."""
        found = self.trunk((images - self.mean) / self.std)
        maps = [_as_map(output, layer, self.name) for layer, output in found.items()]
        if len(maps) == 1:
            return maps[0]
        rows, columns = (min(output.shape[axis] for output in maps) for axis in (2, 3))
        return torch.cat([functional.adaptive_avg_pool2d(output, (rows, columns)) for output in maps], dim=1)


def load_backbone(
    name: str = "scattering",
    layer: str | Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    input_size: int | None = None,
) -> Backbone:
    """Extractor of local descriptors ``(B, N, D)`` by name, in evaluation mode.

    Source: [geometric] section 2.1 (VGG-M, Chatfield et al. 2014); the scattering is this package's own
    choice. Used in chapters 1 and 2.

    Args:
        name: ``"scattering"`` (needs no weights), ``"vgg_m"`` (the network of [geometric]), or a
            classification network of torchvision such as ``"squeezenet1_1"``.
        layer: the node of the network's graph whose output the descriptors are; the default is the last
        feature
            map. Several layers are averaged to the coarsest of their grids and concatenated.
        weights: a torchvision name (``"IMAGENET1K_V1"``, ``"DEFAULT"``), the path of a weight file (a state
            dict; for VGG-M see :func:`convert_vgg_m`), or ``"random"``, drawn from a fixed seed. There is no
            default: random descriptors should be nobody's surprise. A file may lack weights that the layer
            does not need.
        device: of the network.
        input_size: the side S of the square images; by default 224, for the scattering 96. Before the crop
            the shorter side is 8 / 7 of it (256 for 224); the scattering takes all of it.

    Raises:
        ValueError: an unknown name or layer (near matches are given), no choice of weights, weights of
            another network (missing and unexpected entries are named), or a device that is not there.
        FileNotFoundError: there is no such weight file.

    Example:
        >>> backbone = load_backbone("squeezenet1_1", weights="random")
        >>> backbone(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 169, 512])
    """
    check_device(device, torch.float32)
    check_kind(name, "name", str)
    if input_size is not None:
        check_count(input_size, "input_size")
    if name == "scattering":
        if layer is not None or weights is not None:
            raise ValueError(
                f"the scattering has neither layers nor weights, got layer={layer!r}, weights={weights!r}"
            )
        return Scattering(input_size=input_size or 96).to(device).eval()
    size = input_size or 224
    network = _build(name, size)
    layer = _default_layer(name, network) if layer is None else layer
    layers = [layer] if isinstance(layer, str) else list(layer)
    trunk = feature_extractor(network, layers, name)  # shares the network's parameters
    loaded = _load_weights(network, set(trunk.state_dict()), name, weights, size)
    own = name == "vgg_m"  # brings its own normalisation
    return NetworkBackbone(
        trunk,
        (0.0,) * 3 if own else IMAGENET_MEAN,
        (1.0,) * 3 if own else IMAGENET_STD,
        name=name,
        layer="+".join(layers),
        input_size=size,
        resize_size=round(size * 256 / 224),
        weights=loaded.name,
        weights_sha256=loaded.sha256,
    ).to(device)


def feature_extractor(network: nn.Module, layers: Sequence[str], name: str) -> nn.Module:
    """Cut a network down to what some layers need; it then returns a dict of their outputs.

    Raises:
        ValueError: no layers, the same twice, or one that the network has not; near matches are given.
    """
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"layer must name one layer or several different ones, got {list(layers)}")
    network.eval()
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes = get_graph_node_names(network, suppress_diff_warning=True)[1]
    known = {node.rsplit(".", cut)[0] for node in nodes for cut in range(node.count(".") + 1)}
    for layer in layers:
        if layer not in known:
            raise ValueError(f"{name} has no layer {layer!r}{_near(layer, sorted(known))}")
    outputs = {layer: layer for layer in layers}
    return _without_in_place(create_feature_extractor(network, outputs, suppress_diff_warning=True))


def _without_in_place(trunk: Any) -> nn.Module:
    """Make a traced network keep what it has computed: a later layer must not overwrite a wanted output."""
    for module in trunk.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for graph in (trunk.train_graph, trunk.eval_graph):
        for node in graph.nodes:
            if "inplace" in node.kwargs:
                node.kwargs = node.kwargs | {"inplace": False}
    trunk.graph = trunk.eval_graph  # compiles it anew
    return trunk


def _build(name: str, input_size: int) -> nn.Module:
    """Make a network with random weights from a fixed seed."""
    import torchvision
    from torchvision.models import get_model, list_models

    names = list_models(module=torchvision.models)
    if name not in [*names, "vgg_m"]:
        raise ValueError(f"there is no backbone {name!r}{_near(str(name), ['scattering', 'vgg_m', *names])}")
    settings = {}
    if name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalisation, which they undo ours for.
        settings = {"transform_input": True, "init_weights": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VGGM(input_size) if name == "vgg_m" else get_model(name, weights=None, **settings)


def _default_layer(name: str, network: nn.Module) -> str:
    if name.startswith("vgg") and name != "vgg_m":
        return f"features.{len(network.features) - 2}"  # type: ignore[arg-type]
    return next(layer for family, layer in DEFAULT_LAYERS.items() if name.startswith(family))


def _load_weights(
    network: nn.Module, needed: set[str], name: str, weights: str | os.PathLike[str] | None, size: int
) -> Weights:
    """Find the weights and copy them into the network."""
    from torchvision.models import get_model_weights

    known = [] if name == "vgg_m" else list(get_model_weights(name).__members__)
    choices = ", ".join([*known, "the path of a file", "or 'random'"])
    if weights is None:
        raise ValueError(f"weights of {name} must be chosen: {choices}")
    if weights == "random":
        return Weights({}, "random", "")
    loaded = torchvision_weights(name, str(weights)) if known else None
    if loaded is None:
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(weights)!r}; weights of {name} can be: {choices}")
        state = fit_mean(convert_vgg_m(path), size) if name == "vgg_m" else read_state_dict(path)
        loaded = Weights(state, path.name, file_sha256(path))
    load_into(network, needed - {"mean"}, loaded, name)  # VGG-M has a mean of its own
    return loaded


def _as_map(output: Tensor, layer: str, name: str) -> Tensor:
    """Bring an output to ``(B, D, rows, columns)``."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    if len(shape) == 4:
        channels_last = name.startswith("swin") and layer.startswith(("features", "norm"))
        return output.permute(0, 3, 1, 2) if channels_last else output
    if len(shape) == 3:
        for skip in (0, 1):  # a class token, if any, comes first
            side = math.isqrt(shape[1] - skip)
            if side**2 == shape[1] - skip:
                return output[:, skip:].mT.unflatten(2, (side, side))
    raise ValueError(
        f"layer {layer!r} of {name} gives shape {shape}, no feature map (images, channels, rows, columns)"
    )


def _near(wrong: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=5, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(list(known)[:10])}, ..."
