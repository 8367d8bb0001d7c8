"""Weights of networks: from a file or from torchvision, never silently absent or of another network."""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from retrieval_geometry._text import printable

StateDict = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Keys under which checkpoints keep a state dict, the usual first."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DistributedDataParallel, trainers and torch.compile put before the names."""

WEIGHTS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Weights(NamedTuple):
    """A state dict, what provenance calls it, and the sha256 of the file it came from."""

    state: StateDict
    name: str
    sha256: str


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Read a state dict (``.pth``, ``.pt`` or ``.safetensors``) without running any code that is in it.

    What people wrap around one is taken off: a dict that holds it under ``"state_dict"`` or another key, and
    ``module.``, ``model.`` or ``_orig_mod.`` before every name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else, such as a pickled model, or an entry that is no weight
            (float8, sparse, without values, complex, quantised, integers other than counters).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file at {path}")
    try:
        with warnings.catch_warnings():  # torch warns of what is refused below
            warnings.simplefilter("ignore")
            content = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {printable(error)}") from None
    except Exception as error:  # the unpickler of damaged files raises almost anything
        raise ValueError(f"{path} {_refusal(error)}") from None
    state = _unwrapped(content, path)
    for name, value in state.items():
        if fault := _fault(name, value):
            raise ValueError(
                f"{path}: the entry {printable(name)} is {fault}; weights must be dense tensors of float32, "
                "float64, float16 or bfloat16"
            )
    return state


def _load(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(error: Exception) -> str:
    """Why a file was not loaded, without torch's advice to run what is in it."""
    text = str(error)
    kind = re.search(r"GLOBAL ([\w.]+)", text)
    what = f"pickled Python objects ({kind[1]})" if kind else "a TorchScript program"
    if kind or "TorchScript" in text:
        return (
            f"holds {what}, and no state dict alone: to load it would run its code; save the weights with "
            "torch.save(model.state_dict(), path)"
        )
    reason = "" if "weights_only" in text else printable(text.partition("\n")[0])
    return f"is no PyTorch weight file, or a damaged one: {reason or type(error).__name__}"


def _unwrapped(content: Any, path: Path) -> StateDict:
    """The state dict itself, its names as the network has them."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a state dict (names to tensors), but it holds {type(content)}")
    if content and not _is_state(content):
        inside = [key for key, value in content.items() if _is_state(value)]
        chosen = [key for key in WRAPPERS if key in inside] or inside
        if not chosen or (len(chosen) > 1 and chosen[0] not in WRAPPERS):
            parts = [f"{printable(key)} ({type(value).__name__})" for key, value in content.items()]
            raise ValueError(
                f"{path} must hold a state dict (names to tensors), alone or under one key such as "
                f"state_dict, but it holds {_some(parts)}"
            )
        content = content[chosen[0]]
    state: StateDict = {str(name): value for name, value in content.items()}
    while before := [one for one in PREFIXES if state and all(name.startswith(one) for name in state)]:
        state = {name.removeprefix(before[0]): value for name, value in state.items()}
    return state


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(part, Tensor) for name, part in value.items())
    )


def _fault(name: str, value: Tensor) -> str:
    """What an entry is that is no weight; empty for one."""
    if value.is_meta:
        return "a tensor without values (meta)"
    if value.layout != torch.strided:
        return f"sparse ({value.layout})"
    counter = value.dtype == torch.int64 and name.endswith("num_batches_tracked")
    return "" if counter or value.dtype in WEIGHTS else str(value.dtype)


def torchvision_weights(name: str, member: str) -> Weights | None:
    """Fetch torchvision's own weights (from its cache, if they are there); None if it has none of that name.

    Raises:
        FileNotFoundError: they are not in the cache and could not be fetched.
        ValueError: the file in the cache is damaged.
    """
    from torchvision.models import get_model, get_model_weights  # slow to import

    known = get_model_weights(name)
    if member not in known.__members__:
        return None
    entry = known[member]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
    try:
        # By the network and not by the file: old files call some entries by other names.
        state = get_model(name, weights=entry).state_dict()
    except OSError as error:
        raise FileNotFoundError(
            f"the weights {member} of {name} could not be fetched from {entry.url} ({error}); "
            f"fetch them elsewhere and put the file at {cached}, or give its path as weights"
        ) from None
    except Exception as error:  # the unpickler of damaged files raises almost anything
        reason = printable(str(error).partition("\n")[0])
        raise ValueError(f"{cached} is damaged; remove it, to be fetched again: {reason}") from None
    return Weights(state, str(entry), file_sha256(cached))


def load_into(network: nn.Module, needed: set[str], weights: Weights, name: str) -> None:
    """Copy weights into a network; what the wanted layer does not need may be absent from them.

    Args:
        network: gets the weights.
        needed: names of the parameters and buffers on the way to the wanted layer.
        weights: theirs.
        name: of the network, for messages.

    Raises:
        ValueError: a needed parameter is missing, one is unknown to the network or has another shape (so the
            file belongs to another network), or is NaN or infinite.
    """
    own, given = network.state_dict(), weights.state
    needed = needed & own.keys()
    # A counter that no forward pass reads; files from before 2018 lack it.
    missing = sorted(key for key in needed - given.keys() if not key.endswith("num_batches_tracked"))
    unexpected = sorted(given.keys() - own.keys())
    reshaped = [key for key in own if key in given and own[key].shape != given[key].shape]
    if missing or unexpected or reshaped:
        shapes = [f"{key} {tuple(given[key].shape)}, not {tuple(own[key].shape)}" for key in reshaped]
        parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
        found = "; ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in parts if keys)
        raise ValueError(
            f"the weights {weights.name} do not belong to {name}: {found}. Expected is a state dict of "
            f"{len(own)} entries such as {_some(sorted(needed))}. If the file holds the first part of the "
            "network alone, choose a layer of that part"
        )
    damaged = [key for key, value in given.items() if not value.isfinite().all()]
    if damaged:
        raise ValueError(f"the weights {weights.name} hold NaN or infinite values in {_some(damaged)}")
    network.load_state_dict(given, strict=False)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
