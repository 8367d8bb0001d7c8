"""Proxies that are found anew each epoch, on all images to learn from."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry._check import check_count, check_flag, check_kind, check_labels, check_number
from retrieval_geometry.losses._batch import check_directions
from retrieval_geometry.losses._vectors import check_vectors
from retrieval_geometry.losses.proxies import ProxyNPairLoss, hard_proxies


class RenewedProxies(nn.Module):
    """A proxy loss whose proxies are renewed each epoch: embeddings of images, or hard proxies from there.

    Source: [edms] section 4.2. Used in chapter 20.

    :func:`~retrieval_geometry.training.train` calls :meth:`renew` with the embeddings of all training images
    before the first step and every ``renew_every`` steps. The images stay the same, their embeddings move.

    Args:
        loss: with as many proxies as there are meta-classes; their values at first do not matter.
        images: ``(K,)`` numbers of the images that proxies begin with, one of each meta-class, as
            :func:`random_proxies` gives.
        renew_every: steps of an epoch.
        hard: descend from there (:func:`hard_proxies`).
        steps: of the descent.
        lr: of the descent.

    Raises:
        ValueError: another number of images than of proxies, or a setting out of range.
    """

    def __init__(
        self,
        loss: ProxyNPairLoss,
        images: Tensor,
        renew_every: int,
        hard: bool = True,
        steps: int = 100,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.loss = check_kind(loss, "loss", ProxyNPairLoss)
        n_meta = len(loss.proxies)
        self.register_buffer("images", check_labels(images, None, "images").clone())
        if len(self.images) != n_meta:
            raise ValueError(f"images must be one for each of {n_meta} proxies, got {len(self.images)}")
        if int(self.images.min()) < 0:
            raise ValueError(f"images must be numbers from 0, got {self.images.tolist()}")
        self.renew_every = check_count(renew_every, "renew_every")
        self.hard = check_flag(hard, "hard")
        self.steps = check_count(steps, "steps")
        self.lr = check_number(lr, "lr", above=0)

    images: Tensor

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        return self.loss(embeddings, labels)

    @torch.no_grad()
    def renew(self, embeddings: Tensor, labels: Tensor) -> None:
        """Find the proxies of the next epoch from the embeddings ``(M, d)`` and meta-classes of all images.

        Raises:
            ValueError: embeddings that are no finite ``(M, d)``, of another d than the proxies, or zero,
                meta-classes that are not one for each, or a proxy's image that is not among them or stands
                for another meta-class.
        """
        check_vectors(embeddings, "embeddings")
        labels = check_labels(labels, len(embeddings)).to(embeddings.device)
        if embeddings.shape[1] != self.loss.proxies.shape[1]:
            wanted = f"as many dimensions as the proxies, {self.loss.proxies.shape[1]}"
            raise ValueError(f"embeddings must have {wanted}, got {embeddings.shape[1]}")
        if int(self.images.max()) >= len(embeddings):
            raise ValueError(
                f"images of the proxies must be among the {len(embeddings)} that are embedded, got number "
                f"{int(self.images.max())}"
            )
        own = labels[self.images]
        if not torch.equal(own, torch.arange(len(own), device=own.device)):
            raise ValueError(
                f"images of the proxies must be one of each meta-class in order, got {own.tolist()}"
            )
        x = functional.normalize(check_directions(embeddings), dim=1)
        proxies = x[self.images]
        if self.hard:
            proxies = hard_proxies(x, labels, proxies, self.steps, self.lr)
        self.loss.proxies.copy_(proxies)
