"""Data for live training."""

import torch
from torch import Tensor

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import load_embedding_network
from retrieval_geometry.reporting.learning_toys import held


def test_held_images_are_prepared_once_and_keep_their_names() -> None:
    asked = []

    def read(name: str) -> Tensor:
        asked.append(name)
        return torch.full((3, 40, 40), int(name), dtype=torch.uint8)

    images = ImageSet("toys", torch.tensor([0, 0, 1]), ("a", "b"), ("10", "20", "30"), "0" * 64, read)
    network = load_embedding_network("glyph_cnn", dim=4)
    kept = held(images, network)
    assert sorted(asked) == ["10", "20", "30"]
    turned = kept.subset([2, 0])
    assert [turned.load(i).unique().tolist() for i in (0, 1)] == [[30], [10]]
    assert turned.load(0).shape[1:] == (network.input_size, network.input_size)
    assert len(asked) == 3
