"""Random draws that leave the random state of the caller alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws on the CPU from this seed; afterwards from where it was."""
    # No GPU: its state is not drawn from here, and to save it would start the driver.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
