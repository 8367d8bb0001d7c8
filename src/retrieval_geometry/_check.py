"""Checks at the door: a wrong input is refused with a message that says what it was and what it should be.

A leaf module: every layer of the package may import it, it imports none of them. Each function returns its
argument (or what was computed on the way), so that a check reads as part of the expression it guards.
"""

import math
import numbers
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._tolerances import COORDINATES

T = TypeVar("T")

SHRINK = "shrink it, for example with fit_gaussian(x, shrinkage=0.1)"


@dataclass(frozen=True)
class ImageName:
    """How messages call an image of a batch, or of a block of it that begins at ``start``.

    Attributes:
        side: the argument that holds the batch, such as "p" or "q", where there are several.
        start: index of the block's first image in the batch.
        kind: what the first axis counts.
    """

    side: str | None = None
    start: int = 0
    kind: str = "image"

    def __call__(self, position: int) -> str:
        where = "" if self.side is None else f" of {self.side}"
        return f"{self.kind} {self.start + position}{where}"


IMAGE = ImageName()


class ImageError(ValueError):
    """An input is refused for one image of a batch.

    Args:
        before: the message up to the name of the image.
        position: of the image in its block.
        after: the rest of the message.
        name: how the image is called.

    Attributes:
        image: its index in the batch.
        side: the argument that held the batch, or None where there is only one.
    """

    def __init__(self, before: str, position: int, after: str, name: ImageName = IMAGE) -> None:
        super().__init__(f"{before}{name(position)}{after}")
        self.image, self.side = name.start + position, name.side
        self._parts = (before, position, after, name)

    def called(self, name: str) -> ValueError:
        """The same error with another name for the image, such as that of its file."""
        return ValueError(f"{self._parts[0]}{name}{self._parts[2]}")

    def __reduce__(self) -> tuple[type, tuple[str, int, str, ImageName]]:
        return type(self), self._parts


def check_floating(tensor: Tensor, name: str) -> Tensor:
    """Refuse anything but a float32 or float64 tensor.

    Raises:
        ValueError: not a tensor, or another dtype.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {tensor.dtype}; convert it with .float()")
    return check_dense(tensor, name)


def check_dense(tensor: Tensor, name: str) -> Tensor:
    """Refuse a sparse tensor, and one of the device "meta", which holds no numbers.

    Raises:
        ValueError: such a tensor.
    """
    if tensor.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got layout {tensor.layout}; use .to_dense()")
    if tensor.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor on the device meta")
    return tensor


def check_generator(generator: torch.Generator | None, name: str = "generator") -> torch.Generator:
    """The source of random numbers; None stands for a fresh one with seed 0.

    Raises:
        ValueError: anything else, such as a seed.
    """
    if generator is None:
        return torch.Generator().manual_seed(0)
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"{name} must be a torch.Generator or None, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(seed) makes one"
        )
    return generator


def check_shape(tensor: Tensor, name: str, axes: tuple[str | int, ...]) -> Tensor:
    """Refuse a tensor whose axes are not ``axes``: a name stands for any length of at least one.

    Raises:
        ValueError: another number of axes, another length than a number in ``axes``, or an empty named axis.
    """
    fits = tensor.ndim == len(axes) and all(
        size == axis if isinstance(axis, int) else size > 0
        for size, axis in zip(tensor.shape, axes, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(axis) for axis in axes)
        raise ValueError(
            f"{name} must have shape ({wanted}) without an empty axis, got {tuple(tensor.shape)}"
        )
    return tensor


def check_finite(tensor: Tensor, name: str, image_name: ImageName = IMAGE) -> Tensor:
    """Refuse NaN and infinity, naming the first image (first axis) that has one.

    Raises:
        ImageError: an entry is NaN or infinite.
    """
    rows = tensor.detach().flatten(1) if tensor.ndim > 1 else tensor.detach().reshape(-1, 1)
    # A sum is finite only if all its terms are; it spares a mask as large as the data.
    for image in (~rows.sum(dim=1).isfinite()).nonzero().flatten().tolist():
        if not rows[image].isfinite().all():
            after = f" has a NaN or infinite value; remove that {image_name.kind} or mend it"
            raise ImageError(f"{name} of ", image, after, image_name)
    return tensor


def check_coordinates(tensor: Tensor, name: str, image_name: ImageName = IMAGE) -> Tensor:
    """Refuse finite coordinates whose squares leave the range of their dtype, see :data:`COORDINATES`.

    Raises:
        ImageError: an image (first axis) has a larger coordinate, or all have smaller ones.
    """
    values = tensor.detach().flatten(1)
    if not values.numel():
        return tensor
    low, high = COORDINATES[tensor.dtype]
    sizes = values.abs().amax(dim=1)
    largest, image = float(sizes.max()), int(sizes.argmax())
    if largest > high:
        after = f" has a coordinate of size {largest:.3g}, above {high:g}, and squares overflow"
    elif 0 < largest < low:
        after = f" has the largest coordinate of all, {largest:.3g}; below {low:g} squares vanish"
    else:
        return tensor
    after += f"; scale {name} and what is measured in its units" + (
        ", or convert it with .double()" if tensor.dtype == torch.float32 else ""
    )
    raise ImageError(f"{name} of ", image, after, image_name)


def is_whole(labels: object) -> bool:
    """Whether this is a tensor of integers, truth values among them, and not of real or complex numbers."""
    return isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())


def as_whole(values: object, name: str, wanted: str, truth_values: bool = True) -> Tensor:
    """Whole numbers from a tensor, an array or a list, of any integer type, as int64.

    Args:
        values: the numbers.
        name: of the argument.
        wanted: what it must be, in words.
        truth_values: whether True and False count as 1 and 0.

    Raises:
        ValueError: real or complex numbers, names, ragged lists, or numbers beyond int64.
    """
    remedy = ""
    if isinstance(values, Tensor):
        found, kind = check_dense(values, name), f"{values.dtype} of shape {tuple(values.shape)}"
    else:
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError):  # a ragged list
            array = np.asarray(None)
        if isinstance(values, list | tuple) and not array.size:
            array = array.astype(np.int64)
        kind = type(values).__name__
        kind += "" if array.dtype == object else f" of {array.dtype} and shape {array.shape}"
        own = array.astype(array.dtype.newbyteorder("="))  # a copy, in the order of this machine's bytes
        found = torch.from_numpy(own) if array.dtype.kind in "biu" else torch.empty(0)
        if array.dtype.kind in "US":
            remedy = "; number names by np.unique(names, return_inverse=True)[1]"
    too_large = found.dtype == torch.uint64 and bool((found.to(torch.int64) < 0).any())
    if not is_whole(found) or too_large or (found.dtype == torch.bool and not truth_values):
        raise ValueError(f"{name} must be {wanted}, got {kind}{remedy}")
    return found.to(torch.int64)


def check_labels(labels: object, n: int | None = None, name: str = "labels") -> Tensor:
    """Labels ``(n,)`` as int64, on their device, from whatever :func:`as_whole` takes.

    Raises:
        ValueError: no whole numbers, not one axis, or another number than n where that is given.
    """
    wanted = "a list of whole numbers" if n is None else f"{n} whole numbers, one for each image"
    found = as_whole(labels, name, wanted)
    if found.ndim != 1 or (n is not None and len(found) != n):
        raise ValueError(f"{name} must be {wanted}, got shape {tuple(found.shape)}")
    return found


def check_device(device: str | torch.device, precision: torch.dtype = torch.float64) -> torch.device:
    """The device of that name.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: in which it must compute; the distances need double precision.

    Raises:
        ValueError: no such device, none of its kind on this machine, or one that holds no numbers (meta).
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found, dtype=precision)
        usable = found.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ImportError):
        usable = False
    if not usable:
        kinds = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"device {str(device)!r} is not usable here; there is: {kinds}")
    return found


def check_path(path: object, name: str) -> Path:
    """Refuse what is no path, such as None.

    Raises:
        ValueError: neither a text nor a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{name} must be a path, got {type(path).__name__}")
    return Path(path)


def check_same_kind(tensors: Iterable[Tensor], names: str) -> None:
    """Refuse tensors of several dtypes or on several devices.

    Raises:
        ValueError: the dtypes or the devices differ.
    """
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
    if len(kinds) > 1:
        found = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"{names} must share one dtype and one device, got {found}; convert one with .to")


def check_number(
    value: float, name: str, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> float:
    """Refuse what is not a finite number inside the range.

    Raises:
        ValueError: not a number, not finite, outside the range, or a whole number beyond 64 bits.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    is_number = is_number and (isinstance(value, float) or abs(value) < 2**63)
    if not (is_number and value > above and at_least <= value <= at_most):
        limits = {"above": above, "at least": at_least, "at most": at_most}
        wanted = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit))
        raise ValueError(f"{name} must be a finite number {wanted}".rstrip() + f", got {value!r}")
    return value


def check_count(value: int, name: str, at_least: int = 1, at_most: int | None = None) -> int:
    """Refuse what is not a whole number inside the range.

    Raises:
        ValueError: not a whole number, or outside the range.
    """
    is_count = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_count or value < at_least or (at_most is not None and value > at_most):
        wanted = f"at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{name} must be a whole number {wanted}, got {value!r}")
    return int(value)


def check_seed(seed: int, name: str = "seed") -> int:
    """Refuse what is not a seed: a whole number from 0 that fits 63 bits.

    Raises:
        ValueError: anything else.
    """
    return check_count(seed, name, at_least=0, at_most=2**63 - 1)


def check_kind(value: T, name: str, kind: type) -> T:
    """Refuse what is not of the class.

    Raises:
        ValueError: of another class.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of the class {kind.__name__}, got {type(value).__name__}")
    return value


def check_flag(value: bool, name: str) -> bool:
    """Refuse what is neither True nor False.

    Raises:
        ValueError: anything else, such as a word, which would count as true.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(value: str, name: str, choices: Iterable[str]) -> str:
    """Refuse a name that is not one of the choices, listing them.

    Raises:
        ValueError: an unknown name.
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value
