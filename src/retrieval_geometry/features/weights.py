"""Weights of networks: from a file or from torchvision, never silently absent or of another network."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

StateDict = dict[str, Tensor]


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

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from None
    except Exception as error:  # the unpickler of damaged files raises almost anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no PyTorch weight file, or a damaged one: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict (names to tensors), but it holds {type(state)}")
    return dict(state)


def torchvision_weights(name: str, member: str) -> Weights | None:
    """Fetch torchvision's own weights (from its cache, if they are there); None if it has none of that name.

    Raises:
        FileNotFoundError: they are not in the cache and could not be fetched.
        ValueError: the file in the cache is damaged.
    """
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
        reason = str(error).partition("\n")[0]
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
