"""Checkpoints of a training run, and the random numbers it may draw."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_geometry._sealed import Kind

CHECKPOINT = Kind("checkpoint", 3, "remove it to train anew")
PARTS = {"settings", "run", "history", "best"}


@contextmanager
def isolated_random_state() -> Iterator[None]:
    """Leave the caller's random state of torch and numpy as it was."""
    state = np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def seed_step(seed: int, step: int) -> None:
    """Set the random state that a step starts from: it depends on the seed and the step alone.

    So there is no random state to keep, and all processes draw alike. pytorch-metric-learning draws from
    numpy's global state as well.
    """
    number = int(np.random.SeedSequence((seed, 2, step)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator for the augmentation of a step."""
    number = int(np.random.SeedSequence((seed, 3, step)).generate_state(1)[0])
    return torch.Generator().manual_seed(number)


def digest(parts: Any) -> str:
    """Hash a value with a stable ``repr``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def write_checkpoint(path: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: it cannot be written; the one that was there is as it was.
    """
    content = io.BytesIO()
    torch.save({"settings": dict(settings), **state}, content)
    CHECKPOINT.write(path, content.getvalue())


def read_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint of a run of the same settings, running no code in it; None if there is none.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, no checkpoint, or one of other settings, which are named.
    """
    try:
        content = CHECKPOINT.read(path)
    except FileNotFoundError:
        return None
    try:
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whole, but by another torch, or with more in it than weights
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read; {CHECKPOINT.remedy} ({reason})") from None
    if not isinstance(state, dict) or state.keys() != PARTS or not isinstance(state["settings"], dict):
        raise ValueError(f"checkpoint {path} is no checkpoint of `train`; {CHECKPOINT.remedy}")
    stored = state["settings"]
    differing = _differing(stored, settings)
    if differing:
        found = "; ".join(f"{name} was {stored.get(name)!r}, is {settings.get(name)!r}" for name in differing)
        raise ValueError(
            f"checkpoint {path} belongs to a run of other settings: {found}. Give another path, or remove "
            "the file to train anew"
        )
    return dict(state)


def _differing(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ, without the parts of an object that is another one altogether.

    Other entries of the objective changed before, or came up in training: they are no settings.
    """
    names = [
        name
        for name in {**stored, **settings}
        if stored.get(name) != settings.get(name) and (name in stored or not name.startswith("objective."))
    ]
    return [name for name in names if not any(name.startswith(f"{above}.") for above in names)]
