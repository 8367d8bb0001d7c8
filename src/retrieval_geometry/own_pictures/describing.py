"""Features of one picture at a time, by a network that is loaded when the first picture asks for it."""

from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from retrieval_geometry.own_pictures.request import Request

if TYPE_CHECKING:
    from retrieval_geometry.features import Backbone


class Describer:
    """Pooled features or local descriptors of pictures, until it is left as a context.

    Each picture goes through the network alone and on one thread, so that its features depend on nothing
    else; several pictures may be described at a time, on threads of their own.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loading = Lock()
        self._threads = 0

    def __enter__(self) -> "Describer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)

    @staticmethod
    def check(request: Request) -> None:
        """Refuse a device or a distance that is not there, before anything else is done.

        Raises:
            ValueError: it is not.
        """
        from retrieval_geometry._check import check_choice, check_device
        from retrieval_geometry.distances import DISTANCES

        check_device(request.device)
        if not request.is_pooled:
            check_choice(request.distance, "distance", [name for name in DISTANCES if name != "sinkhorn"])

    def __call__(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """Features of a picture ``(H, W, 3)``: ``(D,)`` pooled, or ``(N, D)``, float32.

        Raises:
            ValueError: they are not finite; an unknown network, layer or device; weights of another network.
            FileNotFoundError: there is no such weight file.
        """
        with self._loading:
            network = self._network
        import torch

        from retrieval_geometry.features import pool_descriptors

        image = network.prepare(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        with torch.inference_mode():
            found = network(image[None].to(network.device, network.dtype)).float().cpu()
        if not bool(found.isfinite().all()):
            raise ValueError(
                f"{network.name} gives {name} a NaN or infinite value; check its weights, or take the "
                "picture out of the folder"
            )
        return (pool_descriptors(found)[0] if self._request.is_pooled else found[0]).numpy()

    @cached_property
    def _network(self) -> "Backbone":
        import torch

        from retrieval_geometry._check import check_device
        from retrieval_geometry.features import load_backbone

        self._threads = self._threads or torch.get_num_threads()
        torch.set_num_threads(1)
        asked = self._request
        return load_backbone(
            asked.backbone, layer=asked.layer, weights=asked.weights, device=check_device(asked.device)
        )
