"""Small data for the chapters that train a network live."""

from dataclasses import replace

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.training import stack_images


def held(images: ImageSet, network: EmbeddingNetwork) -> ImageSet:
    """The same images as the network takes them, prepared once and kept in memory."""
    stack = stack_images(images, network)
    place = {name: i for i, name in enumerate(images.ids)}
    return replace(images, read=lambda name: stack[place[name]])
