"""Networks that are trained to embed images: a trunk, and a linear head on its feature map."""

import math
import os
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_geometry._check import (
    check_choice,
    check_count,
    check_dense,
    check_finite,
    check_floating,
    check_kind,
    check_number,
    check_seed,
    check_shape,
)
from retrieval_geometry._seeded import seeded
from retrieval_geometry._tolerances import CONSTANT
from retrieval_geometry.features._resizing import cut_middle, resize_shorter_side
from retrieval_geometry.features.backbones import load_backbone
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.efficientnet import split_stages
from retrieval_geometry.features.principal import principal_axes

GLYPH_TRUNKS = ("glyph_cnn", "glyph_cnn_bn")


class GlyphCNN(Backbone):
    """A small network for images ``(B, 3, 32, 32)``: five convolutions, 4 x 4 places, 128 channels.

    Source: this package's own. Used in chapter 10.

    It has 0.25 million parameters.

    Args:
        batch_norm: normalise over the batch, which learns faster in few steps. By default groups of channels
            of one image are normalised, so that an embedding does not depend on its batch, nor on the number
            of processes that share it.

    Raises:
        ValueError: on call, images of another shape or dtype, or outside [0, 1].
    """

    dim = 128

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__("glyph_cnn_bn" if batch_norm else "glyph_cnn", "last", 32, resize_size=32)
        sizes = ((3, 16, 2), (16, 32, 2), (32, 64, 1), (64, 128, 2), (128, 128, 1))
        layers = (layer for size in sizes for layer in _convolution(*size, batch_norm))
        # Channels last in memory: faster on a CPU with batch norm, slower with group norm.
        self.memory_format = torch.channels_last if batch_norm else torch.contiguous_format
        self.layers = nn.Sequential(*layers)
        self.layers.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def feature_map(self, images: Tensor) -> Tensor:
        """Compute the feature maps of images in [0, 1], ``(B, 128, rows, columns)``."""
        return self.layers((2 * images - 1).contiguous(memory_format=self.memory_format))


class EmbeddingNetwork(nn.Module):
    """Embedding network: a trunk, a linear map of its features to ``dim`` numbers, and length one if asked.

    Source: Roth et al. 2020 (the vector); the map of local features is this package's own reading of
    [wasserstein-dml]. Used in chapter 10.

    Images are ``(B, 3 or 1, H, W)``, uint8 or floating point in [0, 1]. The result is

    - ``(B, dim)`` for ``output="vector"``: the mean over the feature map, mapped ([rankmi], [edms]);
    - ``(B, n, dim)`` for ``output="map"``: each of the n places of the map, row by row ([wasserstein-dml]).

    Args:
        backbone: the trunk, as :func:`load_backbone` makes it, or :class:`GlyphCNN`.
        dim: length of an embedding.
        output: ``"vector"`` or ``"map"``.
        normalize: scale each embedding (of a map, each local feature) to length one.
        freeze_trunk: leave the trunk as it is and train the head alone.
        tail: the last stages of a network, between a frozen trunk and the head, trained as well: maps
            ``(B, channels, rows, columns)`` to others.
        freeze_batch_norm: keep batch norm in evaluation mode when training, as pre-trained weights ask for
            (where it has been folded into the convolutions its statistics are not those of any data).
        seed: of the weights of the head.

    Raises:
        ValueError: an unknown output, ``dim`` below 1, or a tail behind a trunk that is trained.

    Example:
        >>> network = EmbeddingNetwork(GlyphCNN(), dim=8, output="map")
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 16, 8])
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int,
        output: str = "vector",
        normalize: bool = True,
        freeze_trunk: bool = False,
        freeze_batch_norm: bool = True,
        seed: int = 0,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if tail is not None and not freeze_trunk:
            raise ValueError(
                "tail stands behind a frozen trunk: give freeze_trunk=True, or the whole as backbone"
            )
        self.output = check_choice(output, "output", ("vector", "map"))
        self.dim = check_count(dim, "dim")
        self.normalize, self.freeze_trunk, self.freeze_batch_norm = normalize, freeze_trunk, freeze_batch_norm
        self.trunk = _Averaged(backbone) if output == "vector" and tail is None else backbone
        self.trunk.requires_grad_(not freeze_trunk)
        self.tail = tail
        with seeded(check_seed(seed)):
            self.head = nn.Linear(backbone.dim if tail is None else _channels_behind(tail, backbone), dim)
        self.to(backbone.device)
        self.train()

    @property
    def input_size(self) -> int:
        """The side of the square images that the trunk was made for."""
        return self.trunk.input_size

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.head.weight.device

    @property
    def identity(self) -> dict[str, Any]:
        """Settings of the network, without its weights: for provenance and to tell checkpoints apart."""
        names = ("dim", "output", "normalize", "freeze_trunk", "freeze_batch_norm")
        own = {name: getattr(self, name) for name in names}
        if self.tail is not None:
            own["tail"] = [name for name, _ in self.tail.named_children()]
        return {**self.trunk.identity, **own}

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch of images.

        Raises:
            ValueError: another shape or dtype, or values outside [0, 1].
        """
        return self.project(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Compute what the trunk gives: ``(B, n, channels)``, n = 1 where its map is averaged."""
        scaled, dtype = _scaled(images), self.head.weight.dtype
        if images.dtype == torch.uint8:
            scaled = scaled.to(dtype)
        elif images.dtype != dtype:
            raise ValueError(f"images are {images.dtype}, but the network is {dtype}; convert one with .to")
        # A frozen trunk keeps no activations: memory for the head alone.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_trunk):
            return self.trunk.feature_map(scaled).flatten(2).mT

    def project(self, features: Tensor) -> Tensor:
        """Turn features ``(B, n, channels)``, those of :meth:`features`, into embeddings."""
        mapped = self.head(self._behind_tail(features))
        embedded = mapped.squeeze(1) if self.output == "vector" else mapped
        return functional.normalize(embedded, dim=-1) if self.normalize else embedded

    def _behind_tail(self, features: Tensor) -> Tensor:
        """The input of the head ``(B, n, channels)``."""
        if self.tail is None:
            return features
        side = math.isqrt(features.shape[1])  # square images have square maps
        deep = self.tail(features.mT.unflatten(2, (side, side))).flatten(2).mT
        return deep.mean(dim=1, keepdim=True) if self.output == "vector" else deep

    @torch.no_grad()
    def standardize_head(self, images: Tensor) -> None:
        """Set the head so that over these images each number of an embedding has mean 0 and variance 1.

        Before it is scaled to length one, that is. Features behind a rectifier are all positive, and the
        embeddings of an untrained network all point one way: losses of cosines then hardly have a gradient.
        A start that depends on the data (Krähenbühl et al. 2016) spreads them. A number that does not vary
        over these images beyond rounding is centred and not scaled.

        Args:
            images: as for :meth:`forward`; a few hundred will do.

        Raises:
            ValueError: fewer than two images.
        """
        if len(_scaled(images)) < 2:
            raise ValueError(f"images must be at least two to have a variance, got {len(images)}")
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm) and module.training]
        usual = [norm.momentum for norm in norms]
        for norm in norms:  # batch norm shall remember all of these images, not a tenth of them
            norm.momentum = 1.0
        features = self._behind_tail(self.features(images)).flatten(0, 1)
        mapped = self.head(features)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        deviation = mapped.std(dim=0)
        terms = features.abs().amax(dim=0) @ self.head.weight.abs().mT + self.head.bias.abs()
        deviation[deviation <= CONSTANT * terms] = 1
        self.head.weight /= deviation.unsqueeze(1)
        self.head.bias.sub_(mapped.mean(dim=0)).div_(deviation)

    @torch.no_grad()
    def set_head_to_axes(self, features: Tensor) -> None:
        """Set the head to the principal axes of its own input: embeddings begin as those of PCA.

        The untrained network then ranks images as the centred features of the whole trunk do, cut to ``dim``
        numbers. All axes are scaled alike, so that a number of an embedding has a variance of 1 on average.

        Args:
            features: ``(n, places, channels)``, as :meth:`features` gives them. Of several places the axes
                are those of their mean.

        Raises:
            ValueError: another shape or dtype, NaN or infinity, or features that vary in fewer than ``dim``
                directions.
        """
        check_floating(features, "features")
        check_shape(features, "features", ("images", "places", self.trunk.dim))
        check_finite(features, "features")
        behind = torch.cat([self._behind_tail(part).mean(dim=1) for part in features.split(256)])
        axes = principal_axes(behind, self.dim)
        weight = axes.axes / axes.variances.mean().sqrt()
        self.head.weight.copy_(weight)
        self.head.bias.copy_(-(weight @ axes.mean))

    def prepare(self, image: Tensor, margin: int = 0) -> Tensor:
        """Bring an image of any size to uint8 ``(3, S + 2 margin, S + 2 margin)``, S the input size.

        The shorter side is resized to the trunk's ``resize_size`` and the middle cut out; an image of S x S
        stays as it is. Where the image does not reach into the margin its edge is repeated. The middle S x S
        pixels are those of ``backbone.prepare``.

        Raises:
            ValueError: not a uint8 tensor ``(3, H, W)``.
        """
        if check_dense(check_kind(image, "image", Tensor), "image").dtype != torch.uint8:
            raise ValueError(f"image must be uint8, got {image.dtype}")
        check_shape(image, "image", (3, "height", "width"))
        check_count(margin, "margin", at_least=0)
        size = self.input_size
        if image.shape[1:] != (size, size):
            # Through float, as the backbone does: resizing in uint8 rounds on the way.
            resized = resize_shorter_side(image.float(), self.trunk.resize_size, self.trunk.interpolation)
            image = resized.round().clamp(0, 255).to(torch.uint8)
        side = size + 2 * margin
        image = cut_middle(image, *(min(side, length) for length in image.shape[1:]))
        top, left = ((side - length) // 2 for length in image.shape[1:])
        borders = [left, side - image.shape[2] - left, top, side - image.shape[1] - top]
        return functional.pad(image, borders, mode="replicate") if any(borders) else image

    def parameter_groups(self, lr: float, trunk_factor: float = 1.0) -> list[dict[str, Any]]:
        """Group the parameters that are trained, for an optimiser.

        Args:
            lr: learning rate of the head.
            trunk_factor: that of the trunk, or of the tail, over it; [rankmi] takes 0.01 for pre-trained
                filters.

        Raises:
            ValueError: a rate or a factor that is not positive.
        """
        check_number(lr, "lr", above=0)
        check_number(trunk_factor, "trunk_factor", above=0)
        trained = chain(self.trunk.parameters(), [] if self.tail is None else self.tail.parameters())
        trunk = [parameter for parameter in trained if parameter.requires_grad]
        groups = [{"params": list(self.head.parameters()), "lr": lr}]
        return groups + ([{"params": trunk, "lr": lr * trunk_factor}] if trunk else [])

    def train(self, mode: bool = True) -> "EmbeddingNetwork":
        """Set the mode of training; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.freeze_trunk:
            self.trunk.eval()
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def load_embedding_network(
    trunk: str = "glyph_cnn",
    dim: int = 128,
    layer: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    input_size: int | None = None,
    seed: int = 0,
    train_from: str | None = None,
    **settings: Any,
) -> EmbeddingNetwork:
    """Network for metric learning by the name of its trunk.

    Source: this package's own. Used in chapter 10.

    Args:
        trunk: ``"glyph_cnn"`` or, with batch norm, ``"glyph_cnn_bn"`` (trained from nothing), or a network of
            :func:`load_backbone`: ``"efficientnet_lite0"``, ``"resnet18"``, ``"squeezenet1_1"``, ...
        dim: length of an embedding.
        layer: where the trunk ends, as in :func:`load_backbone`; by default its last feature map.
        weights: of that network, as in :func:`load_backbone`.
        input_size: the side of its images, by default that of the trunk; the small network has 32.
        seed: of the head and of the small network.
        train_from: the first stage that is trained, of a frozen ``"efficientnet_lite0"`` such as
            ``"stage7"``: it and those behind it become the tail.
        settings: further arguments of :class:`EmbeddingNetwork`.

    Raises:
        ValueError: as :func:`load_backbone`, a layer, weights or a size for the small network, or a stage of
            a network that has no such stage.
        FileNotFoundError: there is no such weight file.

    Example:
        >>> load_embedding_network("squeezenet1_1", 64, weights="random")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 64])
    """
    if trunk not in GLYPH_TRUNKS:
        backbone = load_backbone(trunk, layer, weights, input_size=input_size)
        if train_from is None:
            return EmbeddingNetwork(backbone, dim, seed=seed, **settings)
        front, tail = split_stages(backbone, train_from)
        return EmbeddingNetwork(front, dim, seed=seed, tail=tail, **settings)
    if not (layer is weights is train_from is None) or input_size not in (None, 32):
        raise ValueError(
            f"{trunk} is trained whole, has one layer and images of 32 x 32, got layer={layer!r}, "
            f"weights={weights!r}, input_size={input_size!r}, train_from={train_from!r}"
        )
    with seeded(check_seed(seed)):
        backbone = GlyphCNN(batch_norm=trunk.endswith("_bn"))
        return EmbeddingNetwork(backbone, dim, seed=seed, **{"freeze_batch_norm": False, **settings})


class _Averaged(Backbone):
    """A trunk whose feature map is averaged over its places."""

    def __init__(self, backbone: Backbone) -> None:
        settings = {**backbone.identity, "layer": f"{backbone.layer}, averaged"}
        super().__init__(**settings)  # type: ignore[arg-type]
        self.dim = backbone.dim
        self.backbone = backbone

    def feature_map(self, images: Tensor) -> Tensor:
        """Compute the means, ``(B, channels, 1, 1)``."""
        return self.backbone.feature_map(images).mean(dim=(2, 3), keepdim=True)


def _channels_behind(tail: nn.Module, backbone: Backbone) -> int:
    """How many channels a tail gives, found out by one image."""
    size = backbone.input_size
    was_training = tail.training
    tail.eval()  # batch norm shall not learn from an image that is none
    with torch.inference_mode():
        found = tail(backbone.feature_map(torch.zeros(1, 3, size, size, device=backbone.device)))
    tail.train(was_training)
    return found.shape[1]


def _convolution(inputs: int, outputs: int, stride: int, batch_norm: bool) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    norm = nn.BatchNorm2d(outputs) if batch_norm else nn.GroupNorm(8, outputs)
    return convolution, norm, nn.ReLU()


def _scaled(images: Tensor) -> Tensor:
    """Check a batch and bring it to floating-point RGB in [0, 1]."""
    check_dense(check_kind(images, "images", Tensor), "images")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must have shape (batch, 3 or 1, height, width), got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    elif images.dtype in (torch.float32, torch.float64):
        low, high = (float(bound) for bound in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images must lie in [0, 1], got {low:g} to {high:g}; give uint8 or divide by 255"
            )
    else:
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}")
    return images.expand(-1, 3, -1, -1)
