"""Labelled images: bundled with the dependencies, in a user's folder, or a public benchmark."""

from retrieval_geometry.datasets.benchmarks import DatasetStatus, available_datasets, load_dtd
from retrieval_geometry.datasets.bundled import PHOTOGRAPHS, Photograph, photo_textures
from retrieval_geometry.datasets.folders import load_image_folder
from retrieval_geometry.datasets.image_set import ImageSet, SkippedFile
from retrieval_geometry.datasets.splits import first_per_class, query_database_split

__all__ = [
    "PHOTOGRAPHS",
    "DatasetStatus",
    "ImageSet",
    "Photograph",
    "SkippedFile",
    "available_datasets",
    "first_per_class",
    "load_dtd",
    "load_image_folder",
    "photo_textures",
    "query_database_split",
]
