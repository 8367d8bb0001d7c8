"""A toy set and objectives; as a script, one training run on it, alone or under torchrun."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.losses import ProxyNCALoss
from torch import Tensor, nn

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import EmbeddingNetwork, load_embedding_network
from retrieval_geometry.training import Augmentation, TrainingConfig, train


def toy_images(n_classes: int = 6, per_class: int = 10, seed: int = 0) -> ImageSet:
    """Noisy copies of a random pattern of each class; 32 x 32 pixels."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 200, (n_classes, 3, 8, 8), generator=generator)
    pixels = {}
    for label in range(n_classes):
        large = patterns[label].repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
        for i in range(per_class):
            noise = torch.randint(0, 56, (3, 32, 32), generator=generator)
            pixels[f"{label}/{i}"] = (large + noise).to(torch.uint8)
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    names = tuple(f"class {label}" for label in range(n_classes))
    return ImageSet("toy", labels, names, tuple(pixels), "0", pixels.__getitem__)


class LearntScale(nn.Module):
    """An objective with a parameter and an optimiser of its own, and with draws from torch's global state."""

    pause = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.optimizer = torch.optim.Adam([self.scale], lr=0.05)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        time.sleep(self.pause)
        kept = torch.rand(len(labels), len(labels)) < 0.8
        distances = (embeddings[:, None] - embeddings[None]).square().sum(dim=2)
        same = labels[:, None] == labels[None]
        return (torch.where(same, distances, (self.scale - distances).relu()) * kept).mean()

    def inner_step(self, embeddings: Tensor, labels: Tensor) -> None:
        assert not embeddings.requires_grad
        loss = (self(embeddings, labels) - 0.5).square()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def get_extra_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


SETTINGS: dict[str, Any] = {
    "batch_size": 12,
    "per_class": 3,
    "augment": Augmentation(shift=2, flip=True),
    "accelerator": "cpu",
}


def new_network(**settings: Any) -> EmbeddingNetwork:
    return load_embedding_network(dim=8, **settings)


def new_proxies() -> ProxyNCALoss:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ProxyNCALoss(num_classes=6, embedding_size=8)


def main(task: str, folder: str) -> None:
    network, path = new_network(), Path(folder)
    if task == "shared":  # one of several processes
        objective = new_proxies()
        history = train(network, objective, toy_images(), TrainingConfig(steps=6, **SETTINGS))
        state = {
            "losses": history.losses,
            "network": network.state_dict(),
            "proxies": objective.proxies.detach(),
        }
        rank = torch.distributed.get_rank()
        torch.save(state, path / f"{rank}.pt")
        torch.distributed.destroy_process_group()
    else:  # slowly, to be killed
        config = TrainingConfig(steps=40, checkpoint_every=3, **SETTINGS)
        LearntScale.pause = 0.05
        train(network, LearntScale(), toy_images(), config, checkpoint=path / "run.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
