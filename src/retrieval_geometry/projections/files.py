"""Files of fitted projections: numbers and plain values, no code."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from retrieval_geometry._check import check_kind, check_path
from retrieval_geometry._sealed import Kind, parse_json
from retrieval_geometry.projections._base import Projection
from retrieval_geometry.projections.autoencoder import AESVC
from retrieval_geometry.projections.controls import AllButTheTop, RandomRotation, Truncation
from retrieval_geometry.projections.distillation import SS2D, SSD
from retrieval_geometry.projections.quantization import ProductQuantization
from retrieval_geometry.projections.variational import VAE
from retrieval_geometry.projections.whitening import PCAWhitening

PROJECTION = Kind("file of a projection", 1, "fit the projection again and save it")

CLASSES: dict[str, type[Projection]] = {
    kind.__name__: kind
    for kind in (
        AESVC,
        AllButTheTop,
        PCAWhitening,
        ProductQuantization,
        RandomRotation,
        SS2D,
        SSD,
        Truncation,
        VAE,
    )
}


def save_projection(path: str | os.PathLike[str], projection: Projection) -> None:
    """Write a fitted projection to a file, whole or not at all.

    Source: this package's own. Used in no chapter.

    The file holds settings and fitted values as JSON and safetensors, and ends in a digest of both. A
    projection that was trained elsewhere is read back to the CPU.

    Args:
        path: of the file.
        projection: one of this package, fitted; of a pipeline, save each step.

    Raises:
        ValueError: it is no projection of this package, is not fitted, or has settings that are no plain
            values.
        OSError: the file cannot be written.
    """
    place = check_path(path, "path")
    check_kind(projection, "projection", Projection)
    PROJECTION.write(place, _packed(projection))


def load_projection(path: str | os.PathLike[str]) -> Projection:
    """Read what :func:`save_projection` wrote; no code in it is run.

    Source: this package's own. Used in no chapter.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another version, or no projection, with the remedy.

    Example:
        >>> import tempfile
        >>> x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_projection(f"{folder}/whitening", PCAWhitening().fit(x))
        ...     found = load_projection(f"{folder}/whitening")
        >>> torch.equal(found.transform(x), PCAWhitening().fit_transform(x))
        True
    """
    place = check_path(path, "path")
    content = PROJECTION.read(place)
    try:
        return _unpacked(content)
    # Sealed, so whole; but another program may seal files as well.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        message = f"{PROJECTION.name} {Path(place)} cannot be read; {PROJECTION.remedy} ({reason})"
        raise ValueError(message) from None


def _packed(projection: Projection) -> bytes:
    name = type(projection).__name__
    if CLASSES.get(name) is not type(projection):
        raise ValueError(f"projection must be one of {', '.join(CLASSES)}, got {name}")
    projection._check_fitted()
    values: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    inner: list[bytes] = []
    for attribute in projection.stored:
        value = getattr(projection, attribute)
        if isinstance(value, Tensor):
            tensors[attribute] = value
        elif isinstance(value, nn.Module):
            tensors |= {f"{attribute}.{key}": part for key, part in value.state_dict().items()}
        elif isinstance(value, list) and value and isinstance(value[0], Projection):
            inner = [_packed(one) for one in value]
            values[attribute] = [len(one) for one in inner]
        else:
            values[attribute] = value
    about = {"class": name, "settings": projection.get_params(deep=False), "values": values}
    try:
        head = json.dumps(about, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"projection has settings that are no plain values: {about['settings']}; give numbers and words"
        ) from None
    # A copy: views of one storage would be refused.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    return b"".join((head.encode(), b"\n", *inner)) if inner else head.encode() + b"\n" + save(own)


def _unpacked(content: bytes) -> Projection:
    head, _, rest = content.partition(b"\n")
    about = parse_json(head.decode())
    kind = CLASSES[about["class"]]
    projection = kind(**{name: _tupled(value) for name, value in about["settings"].items()})
    for attribute, value in about["values"].items():
        if attribute not in kind.stored:
            raise ValueError(f"it has {attribute}, which no {about['class']} has")
        setattr(projection, attribute, _tupled(value) if attribute == "sizes_" else value)
    if "models_" in kind.stored:
        projection.models_ = _inner(rest, about["values"]["models_"])
        return projection
    tensors = load(rest)
    projection._rebuild()
    for attribute in kind.stored:
        part = getattr(projection, attribute, None)
        if isinstance(part, nn.Module):
            prefix = f"{attribute}."
            own = {key: value for key, value in tensors.items() if key.startswith(prefix)}
            part.to(getattr(torch, about["values"]["dtype_"]))
            part.load_state_dict({key.removeprefix(prefix): value for key, value in own.items()})
            part.eval().requires_grad_(False)
        elif attribute in tensors:
            setattr(projection, attribute, tensors[attribute])
        elif attribute not in about["values"]:
            raise ValueError(f"it lacks {attribute}")
    return projection


def _inner(content: bytes, lengths: list[int]) -> list[Projection]:
    found, start = [], 0
    for length in lengths:
        found.append(_unpacked(content[start : start + length]))
        start += length
    return found


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
