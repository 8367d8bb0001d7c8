"""Labelled images: bundled with the dependencies, in a user's folder, or a public benchmark."""

from retrieval_geometry.datasets.bundled import PHOTOGRAPHS, Photograph, photo_textures
from retrieval_geometry.datasets.image_set import ImageSet, SkippedFile

__all__ = ["PHOTOGRAPHS", "ImageSet", "Photograph", "SkippedFile", "photo_textures"]
