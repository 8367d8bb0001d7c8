"""Any image network of timm as a backbone: DINO, DINOv2, CLIP's image tower, ViT, convolutional ones.

Importing timm takes seconds, so only what asks for one of its networks does it. Nothing is fetched unless
weights = "pretrained".
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_geometry._seeded import seeded
from retrieval_geometry._text import printable
from retrieval_geometry.features.network import (
    NetworkBackbone,
    layer_names,
    near,
    weights_of_file,
)
from retrieval_geometry.features.tracing import feature_extractor
from retrieval_geometry.features.weights import StateDict, Weights, load_into

PREFIX = "timm/"
INTERPOLATIONS = ("bilinear", "bicubic")
FEATURES = "features"
CHOICES = "pretrained (fetched from the Hugging Face hub), the path of a file, or 'random'"


def is_timm(name: str) -> bool:
    """Whether timm has a network of that name, with or without a tag of its weights."""
    import timm

    model, _, tag = name.partition(".")
    return timm.is_model(model) and (not tag or timm.is_model_pretrained(name))


def timm_names() -> list[str]:
    """The names of timm's networks, first without, then with the tags of its weights."""
    import timm

    return timm.list_models() + timm.list_pretrained()


def load_timm(
    name: str,
    layer: str | Sequence[str] | None,
    weights: str | os.PathLike[str] | None,
    input_size: int | None,
) -> NetworkBackbone:
    """The backbone, as :func:`load_backbone` describes it; ``name`` without its prefix.

    Raises:
        ValueError: an unknown network or layer, no choice of weights, weights of another network, or a size
            that it cannot take.
        FileNotFoundError: the weight file is not there, or could not be fetched.
    """
    from timm.data.config import resolve_data_config

    if not is_timm(name):
        raise ValueError(f"there is no backbone {PREFIX + name!r}{near(name, timm_names())}")
    if weights is None:
        raise ValueError(f"weights of {PREFIX}{name} must be chosen: {CHOICES}")
    config = resolve_data_config(pretrained_cfg=_config(name).to_dict())
    size = input_size or config["input_size"][-1]
    network = _build(name, size)
    layers = layer_names(FEATURES if layer is None else layer)
    trunk = _Features(network) if layers == [FEATURES] else _traced(network, layers, name)
    needed = {key.removeprefix("network.") for key in trunk.state_dict()}
    loaded = _load_weights(network, needed, name, weights)
    return NetworkBackbone(
        trunk,
        config["mean"],
        config["std"],
        prefix_tokens=getattr(network, "num_prefix_tokens", 0),
        channels_last=layers if getattr(network, "output_fmt", "") == "NHWC" else (),
        name=PREFIX + name,
        layer="+".join(layers),
        input_size=size,
        resize_size=int(size / config["crop_pct"]),
        interpolation=config["interpolation"] if config["interpolation"] in INTERPOLATIONS else "bicubic",
        weights=loaded.name,
        weights_sha256=loaded.sha256,
    )


def _config(name: str) -> Any:
    """What timm knows of the weights: preprocessing, size, where they are; empty where there are none."""
    import timm
    from timm.models import PretrainedCfg

    return timm.get_pretrained_cfg(name) or PretrainedCfg()


class _Features(nn.Module):
    """What a network of timm computes before it pools: its last feature map or tokens, normalised."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {FEATURES: self.network.forward_features(images)}


def _build(name: str, size: int) -> Any:
    """The network with random weights from a fixed seed, for images of that size."""
    import timm

    fixed = _config(name).fixed_input_size  # its position embeddings belong to a size
    sized: dict[str, Any] = {"img_size": size} if fixed else {}
    try:
        with seeded(0):
            network = timm.create_model(name, pretrained=False, num_classes=0, **sized)
    except (AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"{PREFIX}{name} cannot take images of input_size = {size}: {error}") from None
    info = list(getattr(network, "feature_info", None) or [])
    stride = info[-1]["reduction"] if info else 1
    if size < stride or (fixed and size % stride):
        wanted = "a multiple of the patches" if fixed else "at least the stride"
        raise ValueError(f"input_size must be {wanted} of {PREFIX}{name}, {stride} pixels, got {size}")
    return network.eval()


def _traced(network: nn.Module, layers: Sequence[str], name: str) -> nn.Module:
    """The part of a network that some nodes of its graph need; it returns a dict of their outputs."""
    from timm.layers._fx import get_notrace_functions, get_notrace_modules

    tracer = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    try:
        return feature_extractor(network, layers, PREFIX + name, tracer)
    except (RuntimeError, TypeError, torch.fx.proxy.TraceError) as error:
        raise ValueError(
            f"layer {'+'.join(layers)} of {PREFIX}{name} cannot be cut out: {printable(str(error))}; "
            f"leave layer = {FEATURES!r}"
        ) from None


def _load_weights(
    network: nn.Module, needed: set[str], name: str, weights: str | os.PathLike[str]
) -> Weights:
    """Find the weights and copy them into the network."""
    if weights == "random":
        return Weights({}, "random", "")
    loaded = weights_of_file(_fetched(name) if weights == "pretrained" else weights, PREFIX + name, CHOICES)
    load_into(network, needed, loaded._replace(state=_by_timm_names(loaded.state, network)), PREFIX + name)
    return loaded


def _by_timm_names(state: StateDict, network: Any) -> StateDict:
    """Weights as today's timm calls and shapes them, without a classifier.

    Each family of timm knows the names of the original files, and fits position embeddings to the size.
    """
    family = sys.modules[type(network).__module__]
    with suppress(Exception):  # a file of another family: what does not fit is said afterwards
        state = getattr(family, "checkpoint_filter_fn", lambda state, network: state)(state, network)
    classifier = network.default_cfg.get("classifier") or ()
    heads = [classifier] if isinstance(classifier, str) else list(classifier)
    own = network.state_dict()
    return {
        key: value
        for key, value in state.items()
        if key in own or not any(key.startswith(f"{head}.") for head in heads)
    }


def _fetched(name: str) -> str:
    """The weights that timm goes by, from the cache of the hub or fetched there."""
    from huggingface_hub import hf_hub_download

    config = _config(name)
    if not config.hf_hub_id:
        raise ValueError(f"weights = 'pretrained': timm has none of {name} on the hub; {CHOICES} are left")
    try:
        return hf_hub_download(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
    except Exception as error:  # no network, no such file, a proxy: each library has errors of its own
        raise FileNotFoundError(
            f"the weights of {PREFIX}{name} could not be fetched from {config.hf_hub_id} on the Hugging Face "
            f"hub ({printable(str(error).partition(chr(10))[0])}); fetch model.safetensors elsewhere and "
            "give its path as weights"
        ) from None
