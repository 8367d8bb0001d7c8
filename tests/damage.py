"""What happens to files: flipped bits, missing ends, other content; and disks that are full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def damages(content: bytes, number: int = 60, seed: int = 0) -> Iterator[bytes]:
    """Yield that many damaged copies of a file, in turn each kind of damage, at drawn places."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < number:
        at, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
        drawn = rng.bytes(length)
        flipped = bytes([content[at] ^ (1 << int(rng.integers(8)))])
        kinds = (
            content[:at] + flipped + content[at + 1 :],
            content[:at],
            b"" if made < 6 else content[:at] + flipped + content[at + 1 :],
            content[:at] + drawn + content[at + length :],
            content[:at] + content[at + length :],
            content[:at] + b"\0" * (len(content) - at),
            content + drawn,
        )
        damaged = kinds[made % len(kinds)]
        if damaged != content:
            made += 1
            yield damaged


@contextmanager
def full_disk(room: int = 100) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the system refuses it to whatever library writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
