"""VGG-M, the network of [geometric]: five convolutions, the last of them 13 x 13 x 512."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_geometry._check import check_count, check_path
from retrieval_geometry.datasets._matlab import load_matlab
from retrieval_geometry.features.weights import StateDict, read_state_dict

# Names of the five convolutions in the port, and ours.
PORTED = ("features.0", "features.4", "features.8", "features.10", "features.12")
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")

# Of the ImageNet training images, blue, green, red; the mean image of the authors averages to about this.
MEAN_BGR = (103.939, 116.779, 123.68)


class VGGM(nn.Module):
    """The convolutions of CNN-M with their last ReLU: ``(B, 3, S, S)`` -> ``(B, 512, 13, 13)``.

    Source: Chatfield et al. 2014, table 1; the network of [geometric]. Used in chapter 4.

    ======== ====== ======== ====== ===== =============== ============
    layer    size   channels stride pad   then            map at 224
    ======== ====== ======== ====== ===== =============== ============
    conv1    7 x 7  96       2      0     LRN, pool 3 / 2 109 -> 54
    conv2    5 x 5  256      2      1     LRN, pool 3 / 2 26 -> 13
    conv3..5 3 x 3  512      1      1                     13
    ======== ====== ======== ====== ===== =============== ============

    Pooling keeps the incomplete window at the border (Caffe rounds up): 26 become 13. The
    network was trained on 224 x 224 crops of images whose shorter side is 256, in blue-green-red order, 0 to
    255, less the mean image; ``forward`` takes RGB in [0, 1] and does that. A crop of 221, which one widely
    used port takes, gives the same 13 x 13. [geometric] does not say whether its descriptors come before or
    after the last ReLU: layer ``"conv5"`` is before it, ``"relu5"`` after.

    Args:
        input_size: the side of the crops.

    Raises:
        ValueError: an input size below 1.
    """

    mean: Tensor

    def __init__(self, input_size: int = 224) -> None:
        super().__init__()
        check_count(input_size, "input_size")
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None].repeat(1, input_size, input_size))
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        self.relu1 = nn.ReLU()
        self.norm1 = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.norm2 = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv3 = nn.Conv2d(256, 512, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(512, 512, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(512, 512, 3, padding=1)
        self.relu5 = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images ``(B, 3, S, S)`` in [0, 1] to the last feature map ``(B, 512, 13, 13)``."""
        x = 255 * images.flip(1) - self.mean
        x = self.pool1(self.norm1(self.relu1(self.conv1(x))))
        x = self.pool2(self.norm2(self.relu2(self.conv2(x))))
        x = self.relu4(self.conv4(self.relu3(self.conv3(x))))
        return self.relu5(self.conv5(x))


def convert_vgg_m(path: str | os.PathLike[str]) -> StateDict:
    """State dict of :class:`VGGM` from a public weight file of VGG-M.

    Source: this package's own reader of the weights of Chatfield et al. 2014. Used in chapter 4.

    Two formats are known: MatConvNet's ``imagenet-vgg-m.mat`` (filters ``height x width x in x out`` for RGB,
    and the mean image), and the ``.pth`` port of the Caffe file (``features.0.weight``, ..., for
    blue-green-red). Fully connected layers are left behind. A state dict of VGGM is returned as it is.

    Returns:
        ``conv1.weight`` to ``conv5.bias``, for blue-green-red, and ``mean`` ``(3, h, w)`` if the file has it
        (see :func:`fit_mean`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is neither.
    """
    if check_path(path, "path").suffix == ".mat":
        return _from_matconvnet(Path(path))
    state = read_state_dict(path)
    if "conv1.weight" in state:
        return state
    ported = dict(zip(PORTED, CONVOLUTIONS, strict=True))
    kinds = ("weight", "bias")
    missing = [f"{old}.{kind}" for old in ported for kind in kinds if f"{old}.{kind}" not in state]
    if missing:
        raise ValueError(
            f"{path} holds no VGG-M: of its {len(state)} entries none is {', '.join(missing[:3])}"
            + (", ..." if len(missing) > 3 else "")
        )
    return {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in ported.items() for kind in kinds}


def fit_mean(state: StateDict, input_size: int) -> StateDict:
    """Make the mean image of converted weights fit crops of another size: its mean colour stands for it."""
    if "mean" not in state or state["mean"].shape[1:] == (input_size, input_size):
        return state
    colour = state["mean"].mean(dim=(1, 2), keepdim=True)
    return state | {"mean": colour.repeat(1, input_size, input_size)}


def _from_matconvnet(path: Path) -> StateDict:
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file at {path}")
    try:
        content = load_matlab(path, as_records=False)
        layers = {layer.name: layer for layer in np.atleast_1d(content["layers"])}
        state = {}
        for name in CONVOLUTIONS:
            filters, bias = _filters_and_bias(layers[name])
            state[f"{name}.weight"] = _tensor(filters.transpose(3, 2, 0, 1))
            state[f"{name}.bias"] = _tensor(bias)
        state["conv1.weight"] = state["conv1.weight"].flip(1)  # from red, green, blue
        mean = _average_image(content)
    except Exception as error:  # the reader of damaged files raises almost anything
        raise ValueError(f"{path} holds no VGG-M in the format of MatConvNet: {error!r}") from None
    if mean is not None:
        image = mean if mean.ndim == 3 else mean.reshape(1, 1, 3)
        state["mean"] = _tensor(image.transpose(2, 0, 1)[::-1])
    return state


def _filters_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Newer files keep both in a cell ``weights``, older ones in two fields."""
    if hasattr(layer, "weights"):
        filters, bias = layer.weights
        return filters, bias
    return layer.filters, layer.biases


def _average_image(content: dict[str, Any]) -> np.ndarray | None:
    """Find the mean of the training images, ``(h, w, 3)`` or ``(3,)``, where newer or older files keep it."""
    holder = getattr(content.get("meta"), "normalization", content.get("normalization"))
    return getattr(holder, "averageImage", None)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
