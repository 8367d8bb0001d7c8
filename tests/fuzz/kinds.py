"""Ways to spoil a good argument, by the type of the argument."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry.datasets import ImageSet

Kind = Callable[[Any], Any]

ANYTHING: dict[str, Kind] = {
    "None": lambda x: None,
    "a word": lambda x: "no such thing",
    "an empty list": lambda x: [],
    "an object": lambda x: object(),
    "a dict": lambda x: {"a": 1},
}


def _put(tensor: Tensor, value: float) -> Tensor:
    """The tensor with one entry, not the first, set to a value."""
    changed = tensor.detach().clone()
    if changed.numel():
        changed.view(-1)[changed.numel() // 2] = value
    return changed


def _scaled(exponent: int) -> Kind:
    def scale(tensor: Tensor) -> Tensor:
        wide = tensor.detach().double() * 10.0 ** (exponent / 2) * 10.0 ** (exponent / 2)
        return wide.to(tensor.dtype)

    return scale


def _strided(tensor: Tensor) -> Tensor:
    """The same numbers with another number between each two of them."""
    wide = torch.stack([tensor, tensor], dim=-1)
    return wide[..., 0]


FLOATS: dict[str, Kind] = {
    "NaN": lambda x: _put(x, math.nan),
    "infinity": lambda x: _put(x, math.inf),
    "minus infinity": lambda x: _put(x, -math.inf),
    "an outlier": lambda x: _put(x, 1e30),
    "zeros": torch.zeros_like,
    "ones": torch.ones_like,
    "negative": lambda x: -x,
    "a gradient": lambda x: x.detach().clone().requires_grad_(),
    "other float": lambda x: x.double() if x.dtype == torch.float32 else x.float(),
    "complex": lambda x: x.to(torch.complex64),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    **{f"times 1e{e}": _scaled(e) for e in (-300, -160, -60, -20, -6, 6, 20, 60, 160, 300)},
}
TENSORS: dict[str, Kind] = {
    "a list": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().numpy(),
    "boolean": lambda x: x > 0,
    "int64": lambda x: x.long(),
    "int32": lambda x: x.int(),
    "uint8": lambda x: x.to(torch.uint8),
    "no first axis": lambda x: x[0] if x.ndim and len(x) else x,
    "one more axis": lambda x: x[None],
    "no dimensions": lambda x: torch.tensor(1, dtype=x.dtype),
    "first axis empty": lambda x: x[:0],
    "last axis empty": lambda x: x[..., :0],
    "middle axis empty": lambda x: x[:, :0] if x.ndim > 1 else x[:0],
    "first axis of one": lambda x: x[:1],
    "last axis of one": lambda x: x[..., :1],
    "one entry less": lambda x: x[..., :-1],
    "twice as many": lambda x: torch.cat([x, x]) if x.ndim else x,
    "all alike": lambda x: x[:1].expand_as(x).clone() if x.ndim else x,
    "not contiguous": _strided,
    "transposed": lambda x: x.transpose(0, -1) if x.ndim else x,
    "on meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
}
WHOLE: dict[str, Kind] = {
    "negative labels": lambda x: x - 3,
    "huge labels": lambda x: x + 2**62,
    "float labels": lambda x: x.double(),
    "NaN labels": lambda x: _put(x.float(), math.nan),
    "half labels": lambda x: x.half(),
    "int16 labels": lambda x: x.to(torch.int16),
    "uint16 labels": lambda x: x.to(torch.uint16),
    "all different": lambda x: torch.arange(x.numel()).view(x.shape),
}
NUMBERS: dict[str, Kind] = {
    "0": lambda x: 0,
    "-1": lambda x: -1,
    "1": lambda x: 1,
    "2.5": lambda x: 2.5,
    "True": lambda x: True,
    "nan": lambda x: math.nan,
    "inf": lambda x: math.inf,
    "-inf": lambda x: -math.inf,
    "1e-300": lambda x: 1e-300,
    "1e300": lambda x: 1e300,
    "tiny": lambda x: 1e-9,
    "a numeral": lambda x: "3",
    "a tensor": lambda x: torch.tensor(x),
    "a numpy number": lambda x: np.array(x)[()],
    "a complex number": lambda x: 1j,
}
HUGE: dict[str, Kind] = {"2**40": lambda x: 2**40, "2**70": lambda x: 2**70}
WORDS: dict[str, Kind] = {
    "empty": lambda x: "",
    "upper case": lambda x: str(x).upper(),
    "control characters": lambda x: "\x1b[31m\n\x00",
    "not ASCII": lambda x: "né名",
    "bytes": lambda x: b"wasserstein2",
    "a number": lambda x: 3,
}
LISTS: dict[str, Kind] = {
    "with None": lambda x: [*x, None],
    "with a word": lambda x: [*x, "word"],
    "with nan": lambda x: [*x, math.nan],
    "twice": lambda x: [*x, *x],
    "negative": lambda x: [-1],
    "nested": lambda x: [list(x)],
    "a number": lambda x: 3,
    "a set": lambda x: set(x),
}
IMAGES: dict[str, Kind] = {
    "no images": lambda x: x.subset([]),
    "one image": lambda x: x.subset([0]),
    "one class": lambda x: x.subset((x.labels == 0).nonzero()[:, 0]),
    "unreadable": lambda x: dataclasses.replace(x, read=_unreadable),
    "grey": lambda x: dataclasses.replace(x, read=lambda i: x.read(i)[:1]),
    "floating": lambda x: dataclasses.replace(x, read=lambda i: x.read(i) / 255),
    "of one pixel": lambda x: dataclasses.replace(x, read=lambda i: x.read(i)[:, :1, :1]),
    "without a row": lambda x: dataclasses.replace(x, read=lambda i: x.read(i)[:, :0]),
    "black": lambda x: dataclasses.replace(x, read=lambda i: torch.zeros_like(x.read(i))),
    "a tensor": lambda x: torch.stack([x.load(i) for i in range(len(x))]),
}
PATHS: dict[str, Kind] = {
    "nothing there": lambda x: Path(x) / "nothing" / "there",
    "a folder": lambda x: Path(x).parent,
    "a NUL": lambda x: "a\0b",
    "an endless name": lambda x: "x" * 5000,
    "a word": lambda x: str(x),
    "bytes": lambda x: bytes(Path(x)),
}


def _unreadable(name: str) -> Tensor:
    raise OSError(f"{name} cannot be read")


def kinds_of(good: Any, bounded: bool = True, itself: bool = False) -> dict[str, Kind]:
    """The ways to spoil an argument.

    Args:
        good: a good value of it.
        bounded: whether there is a bound, so that huge counts may be asked for.
        itself: it is what a method is called on, and is of its class for certain.
    """
    if itself:
        return _field_kinds(good)
    if dataclasses.is_dataclass(good) and not isinstance(good, (type, ImageSet)):
        return {**ANYTHING, **_field_kinds(good)}
    if isinstance(good, Tensor):
        return {**ANYTHING, **TENSORS, **(FLOATS if good.is_floating_point() else WHOLE)}
    if isinstance(good, bool):
        return {**ANYTHING, "1": lambda x: 1, "a word": lambda x: "False"}
    if isinstance(good, (int, float)):
        return {**ANYTHING, **NUMBERS, **(HUGE if bounded else {})}
    if isinstance(good, Path):
        return {**ANYTHING, **PATHS}
    if isinstance(good, str):
        return {**ANYTHING, **WORDS}
    if isinstance(good, (list, tuple)):
        return {**ANYTHING, **LISTS}
    return {**ANYTHING, **(IMAGES if isinstance(good, ImageSet) else {})}


def _field_kinds(good: Any) -> dict[str, Kind]:
    """Each field of a dataclass spoilt in each way."""
    found: dict[str, Kind] = {}
    for field in dataclasses.fields(good):
        value = getattr(good, field.name)
        if not isinstance(value, (Tensor, int, float, str, tuple, np.ndarray)):
            continue
        value = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
        for name, kind in kinds_of(value).items():
            found[f"{field.name}: {name}"] = _field_kind(field.name, kind)
    return found


def _field_kind(name: str, kind: Kind) -> Kind:
    def spoil(good: Any) -> Any:
        value = getattr(good, name)
        if isinstance(value, np.ndarray):
            spoilt = kind(torch.as_tensor(value))
            spoilt = spoilt.detach().numpy() if type(spoilt) is Tensor and not spoilt.is_meta else spoilt
        else:
            spoilt = kind(value)
        return dataclasses.replace(good, **{name: spoilt})

    return spoil
