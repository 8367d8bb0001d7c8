"""Backbones by name: the scattering, EfficientNet-lite0, VGG-M, the networks of torchvision and of timm.

Both libraries take seconds to import, so only what asks for one of their networks does it.
"""

import os
from collections.abc import Sequence

import torch
from torch import nn

from retrieval_geometry._check import check_count, check_device, check_kind
from retrieval_geometry._seeded import seeded
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.efficientnet import NAME as EFFICIENTNET_LITE0
from retrieval_geometry.features.efficientnet import load_efficientnet_lite0
from retrieval_geometry.features.network import NetworkBackbone, layer_names, near, weights_of_file
from retrieval_geometry.features.scattering import Scattering
from retrieval_geometry.features.timm_networks import PREFIX, is_timm, load_timm, timm_names
from retrieval_geometry.features.tracing import feature_extractor
from retrieval_geometry.features.vggm import VGGM, convert_vgg_m, fit_mean
from retrieval_geometry.features.weights import (
    Weights,
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

SWIN_LAST = ("features", "norm")
"""Layers of a Swin transformer whose maps have their channels last."""


def load_backbone(
    name: str = "scattering",
    layer: str | Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    input_size: int | None = None,
) -> Backbone:
    """Extractor of local descriptors ``(B, N, D)`` by name, in evaluation mode.

    Source: [geometric] section 2.1 (VGG-M, Chatfield et al. 2014); EfficientNet-lite0 is Tan and Le 2019
    without squeeze and excitation; the scattering is this package's own choice. Used in chapters 1 and 2.

    Args:
        name: one of

            - ``"scattering"``, which needs no weights;
            - ``"efficientnet_lite0"``, whose weights, trained on ImageNet, are installed with this package;
            - ``"vgg_m"``, the network of [geometric];
            - a classification network of torchvision such as ``"squeezenet1_1"``;
            - a network of timm such as ``"vit_small_patch14_dinov2"`` (DINOv2) or
              ``"vit_base_patch16_clip_224.openai"`` (the image tower of CLIP). ``"timm/resnet50"`` is timm's
              where torchvision has one of that name.
        layer: whose output the descriptors are; the default is the last feature map. Several layers are
            averaged to the coarsest of their grids and concatenated. For EfficientNet-lite0 (at 224 pixels)
            ``"stem"`` (112 x 112 x 32), ``"stage1"`` to ``"stage7"`` (of these ``"stage5"`` is 14 x 14 x 112
            and ``"stage7"`` 7 x 7 x 320, both linear) and ``"head"`` (7 x 7 x 1280, rectified), with
            ``"stem_linear"`` and ``"head_linear"`` before the non-linearity. For the others a node of the
            network's graph, such as ``"layer3"``, or, before its non-linearity, ``"layer3.1.add"``. The
            tokens of a transformer make a square map without class and register tokens.
        weights: the path of a weight file (a state dict, ``.safetensors`` or ``.pth``; for VGG-M see
            :func:`convert_vgg_m`); ``"random"``, drawn from a fixed seed; for torchvision one of its names
            (``"IMAGENET1K_V1"``, ``"DEFAULT"``); for timm ``"pretrained"``. The last two fetch a file where
            it is not in their caches, and nothing else does. EfficientNet-lite0 has ``"package"`` as its
            default; the others have none: random descriptors should be nobody's surprise. A file may lack
            weights that the layer does not need.
        device: of the network.
        input_size: the side S of the square images; by default 224, for the scattering 96, for timm what its
            network was trained on. Before the crop the shorter side is 8 / 7 of it (256 for 224), for timm
            what that network was tested with; the scattering takes all of it.

    Raises:
        ValueError: an unknown name or layer (near matches are given), no choice of weights, weights of
            another network (missing and unexpected entries are named), a size that the network cannot take,
            or a device that is not there.
        FileNotFoundError: there is no such weight file.

    Example:
        >>> load_backbone("efficientnet_lite0", "stage5")(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 196, 112])
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
    if name == EFFICIENTNET_LITE0:
        return load_efficientnet_lite0(layer, weights, input_size).to(device)
    if name.startswith(PREFIX):
        return load_timm(name.removeprefix(PREFIX), layer, weights, input_size).to(device)
    if name != "vgg_m" and name not in (theirs := _torchvision_names()):
        if is_timm(name):
            return load_timm(name, layer, weights, input_size).to(device)
        known = ["scattering", EFFICIENTNET_LITE0, "vgg_m", *theirs, *timm_names()]
        raise ValueError(f"there is no backbone {name!r}{near(name, known)}")
    return _load_torchvision(name, layer, weights, input_size or 224).to(device)


def _torchvision_names() -> list[str]:
    import torchvision
    from torchvision.models import list_models

    return list_models(module=torchvision.models)


def _load_torchvision(
    name: str, layer: str | Sequence[str] | None, weights: str | os.PathLike[str] | None, size: int
) -> NetworkBackbone:
    """VGG-M or a network of torchvision."""
    network = _build(name, size)
    layers = layer_names(_default_layer(name, network) if layer is None else layer)
    trunk = feature_extractor(network, layers, name)  # shares the network's parameters
    loaded = _load_weights(network, set(trunk.state_dict()), name, weights, size)
    own = name == "vgg_m"  # brings its own normalisation
    return NetworkBackbone(
        trunk,
        (0.0,) * 3 if own else IMAGENET_MEAN,
        (1.0,) * 3 if own else IMAGENET_STD,
        channels_last=[one for one in layers if name.startswith("swin") and one.startswith(SWIN_LAST)],
        name=name,
        layer="+".join(layers),
        input_size=size,
        resize_size=round(size * 256 / 224),
        weights=loaded.name,
        weights_sha256=loaded.sha256,
    )


def _build(name: str, input_size: int) -> nn.Module:
    """Make a network with random weights from a fixed seed."""
    from torchvision.models import get_model

    settings = {}
    if name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalisation, which they undo ours for.
        settings = {"transform_input": True, "init_weights": True}
    with seeded(0):
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
        read = (lambda path: fit_mean(convert_vgg_m(path), size)) if name == "vgg_m" else read_state_dict
        loaded = weights_of_file(weights, name, choices, read)
    load_into(network, needed - {"mean"}, loaded, name)  # VGG-M has a mean of its own
    return loaded
