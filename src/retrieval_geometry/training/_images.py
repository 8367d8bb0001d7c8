"""Prepared images of a set: held in memory when they are few, read ahead by threads otherwise."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features.ensemble import Embedder

HELD_BYTES = 2**31
"""Images that take more bytes than this are not held in memory."""

AHEAD = 2  # batches that are read before they are asked for


class PreparedImages:
    """The images of a set as a network takes them, uint8 ``(3, S + 2 margin, S + 2 margin)`` each."""

    def __init__(self, images: ImageSet, network: Embedder, margin: int = 0) -> None:
        self._images, self._network, self._margin = images, network, margin
        self._held: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """The memory that all of them take."""
        return len(self._images) * 3 * (self._network.input_size + 2 * self._margin) ** 2

    def hold(self) -> Tensor:
        """Read all images into one tensor, and keep it."""
        if self._held is None:
            chunks = torch.arange(len(self._images)).split(256)
            self._held = torch.cat(list(self.batches(chunks)))
        return self._held

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Give the images at the indices, batch after batch, reading ahead."""
        if self._held is not None:
            for batch in indices:
                yield self._held[batch]
            return
        queue: deque[list[Future[Tensor]]] = deque()
        workers = min(16, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:  # decoders work outside the lock
            try:
                for batch in indices:
                    shares = batch.tensor_split(min(workers, len(batch)))
                    queue.append([pool.submit(self._read, share) for share in shares])
                    # Later batches decode while this one is used.
                    if len(queue) > AHEAD:
                        yield torch.cat([future.result() for future in queue.popleft()])
                while queue:
                    yield torch.cat([future.result() for future in queue.popleft()])
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, indices: Tensor) -> Tensor:
        images = map(self._images.load, indices.tolist())
        return torch.stack([self._network.prepare(image, self._margin) for image in images])
