"""Backbones that read feature maps of a network."""

import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry._check import check_path
from retrieval_geometry._files import file_sha256
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.weights import StateDict, Weights, read_state_dict


class NetworkBackbone(Backbone):
    """Reads one or several feature maps of a network.

    Several maps are brought to the coarsest of their grids by averaging and stand one after the other along
    D. The tokens of a vision transformer make a square map, those that stand before it left out.

    Args:
        trunk: turns images into a dict of outputs, by layer.
        mean: of each colour, in [0, 1], taken from the images.
        std: of each colour, in [0, 1], which then divides them.
        prefix_tokens: how many tokens (class, registers) stand before those of the places; None finds out
            whether there is one.
        channels_last: the layers whose maps are ``(B, rows, columns, D)``.
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
        prefix_tokens: int | None = None,
        channels_last: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.trunk = trunk
        self.prefix_tokens, self.channels_last = prefix_tokens, tuple(channels_last)
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
        maps = [self._as_map(output, layer) for layer, output in found.items()]
        if len(maps) == 1:
            return maps[0]
        rows, columns = (min(output.shape[axis] for output in maps) for axis in (2, 3))
        return torch.cat([functional.adaptive_avg_pool2d(output, (rows, columns)) for output in maps], dim=1)

    def _as_map(self, output: Tensor, layer: str) -> Tensor:
        """Bring an output to ``(B, D, rows, columns)``."""
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        if len(shape) == 4:
            return output.permute(0, 3, 1, 2) if layer in self.channels_last else output
        if len(shape) == 3:
            for skip in (0, 1) if self.prefix_tokens is None else (self.prefix_tokens,):
                side = math.isqrt(max(shape[1] - skip, 0))
                if side > 0 and side**2 == shape[1] - skip:
                    return output[:, skip:].mT.unflatten(2, (side, side))
        raise ValueError(
            f"layer {layer!r} of {self.name} gives shape {shape}, no feature map "
            "(images, channels, rows, columns)"
        )


def layer_names(layer: str | Sequence[str]) -> list[str]:
    """The layers that a caller named, in a list.

    Raises:
        ValueError: none, or the same twice.
    """
    layers = [layer] if isinstance(layer, str) else list(layer)
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"layer must name one layer or several different ones, got {layers}")
    return layers


def check_layers(layers: Sequence[str], known: Sequence[str], name: str) -> None:
    """Refuse a layer that the network ``name`` has not; near matches are given."""
    for layer in layers:
        if layer not in known:
            raise ValueError(f"{name} has no layer {layer!r}{near(layer, known)}")


def weights_of_file(
    path: object, name: str, choices: str, read: Callable[[Path], StateDict] = read_state_dict
) -> Weights:
    """The state dict of a file, for the network ``name``, whose weights could be ``choices``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weight file, or a damaged one.
    """
    file = check_path(path, "weights")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; weights of {name} can be: {choices}")
    return Weights(read(file), file.name, file_sha256(file))


def near(wrong: str, known: Sequence[str]) -> str:
    """What might have been meant, to end a message with."""
    found = difflib.get_close_matches(str(wrong), known, n=5, cutoff=0.5)
    return (
        f"; did you mean {', '.join(found)}?" if found else f"; there are {', '.join(list(known)[:10])}, ..."
    )
