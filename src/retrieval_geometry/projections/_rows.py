"""Embeddings from a tensor, an array or a memory-mapped file, taken block by block."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import ImageName, check_coordinates, check_finite, check_floating
from retrieval_geometry._memory import cuts

BLOCK_BYTES = 2**25
"""Of the embeddings that are worked on at a time: what lies on a disk need not fit in memory."""

FLOATS = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class Rows:
    """Embeddings ``(n, d)``, checked as they are read.

    Args:
        X: a tensor, an array (memory-mapped ones are read block by block) or nested lists; numbers that are
            neither float32 nor float64 become float64, those of half precision float32.
        name: of the argument, for messages.
        at_least: the fewest rows that make sense.
        why: what they are needed for.
        dim: the length that a row must have, if it is known.

    Raises:
        ValueError: another shape or type, or fewer rows.
    """

    def __init__(
        self, X: Any, name: str = "X", at_least: int = 1, why: str = "", dim: int | None = None
    ) -> None:
        self.name, self.is_tensor = name, isinstance(X, Tensor)
        self._data = check_floating(X, name).detach() if self.is_tensor else _as_array(X, name)
        shape = tuple(self._data.shape)
        if len(shape) != 2 or not shape[1]:
            raise ValueError(f"{name} must have shape (n, d), one embedding in each row, got {shape}")
        if shape[0] < at_least:
            raise ValueError(f"{name} must have at least {at_least} row(s){why}, got {shape[0]}")
        if dim is not None and shape[1] != dim:
            raise ValueError(
                f"{name} must have rows of length {dim}, as the projection was fitted to, got {shape[1]}"
            )
        self.n, self.dim = shape
        dtype = self._data.dtype
        self.dtype: torch.dtype = dtype if isinstance(dtype, torch.dtype) else _dtype_of(dtype)
        self.device = self._data.device if isinstance(self._data, Tensor) else torch.device("cpu")

    def __len__(self) -> int:
        return self.n

    def take(self, indices: Tensor) -> Tensor:
        """The rows of those numbers, unchecked."""
        if isinstance(self._data, Tensor):
            return self._data[indices.to(self.device)]
        return self._copied(self._data[indices.cpu().numpy()])

    def blocks(self, doing: str, bytes_each: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """All rows in order, in blocks that are checked; a bar shows up after five seconds, in a terminal.

        Args:
            doing: what the bar says.
            bytes_each: what the work takes for a row, beside the row itself in float64.
        """
        slices = cuts(self.n, 8 * self.dim + bytes_each, BLOCK_BYTES)
        with tqdm(total=self.n, desc=doing, unit="row", delay=5, disable=None, leave=False) as bar:
            for piece in slices:
                block = self._data[piece]
                tensor = block if isinstance(block, Tensor) else self._copied(block)
                called = ImageName(start=piece.start, kind="row")
                check_coordinates(check_finite(tensor, self.name, called), self.name, called)
                yield piece, tensor
                bar.update(len(tensor))

    def mapped(
        self, function: Callable[[Tensor], Tensor], width: int, out: Any = None, bytes_each: int = 0
    ) -> Any:
        """What a function makes of all rows: ``(n, width)``, as tensor or array like the rows, or in ``out``.

        Raises:
            ValueError: ``out`` is no array or tensor of that shape.
        """
        shape = (self.n, width)
        if out is None and self.is_tensor:
            out = torch.empty(shape, dtype=self.dtype, device=self.device)
        elif out is None:
            out = np.empty(shape, dtype=str(self.dtype).removeprefix("torch."))
        elif not isinstance(out, Tensor | np.ndarray) or tuple(out.shape) != shape:
            found = tuple(getattr(out, "shape", ())) or type(out).__name__
            raise ValueError(f"out must be an array or a tensor of shape {shape} to write to, got {found}")
        for piece, block in self.blocks("projecting", 8 * width + bytes_each):
            done = function(block)
            if isinstance(out, Tensor):
                out[piece] = done.to(out.device, out.dtype)
            else:
                out[piece] = done.cpu().numpy()
        return out

    def _copied(self, block: np.ndarray) -> Tensor:
        """In this machine's byte order and writeable, as torch wants it."""
        return torch.from_numpy(np.array(block, dtype=str(self.dtype).removeprefix("torch.")))


def _as_array(X: Any, name: str) -> np.ndarray:
    try:
        array = np.asanyarray(X)  # a memory-mapped array stays one
    except (ValueError, TypeError):  # a ragged list
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or isinstance(array, np.ma.MaskedArray):
        raise ValueError(
            f"{name} must be a tensor or an array of real numbers, one embedding in each row, got "
            f"{type(X).__name__} of {array.dtype}"
        )
    return array


def _dtype_of(dtype: np.dtype) -> torch.dtype:
    if dtype.kind == "f" and dtype.itemsize == 2:
        return torch.float32
    return FLOATS.get(dtype.newbyteorder("="), torch.float64)
