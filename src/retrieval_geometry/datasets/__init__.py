"""Labelled images: bundled with the dependencies, in a user's folder, or a public benchmark."""

from retrieval_geometry.datasets._layouts import MetricLearningSplit
from retrieval_geometry.datasets.benchmarks import DatasetStatus, available_datasets, load_dtd
from retrieval_geometry.datasets.bundled import PHOTOGRAPHS, Photograph, photo_textures
from retrieval_geometry.datasets.folders import load_image_folder
from retrieval_geometry.datasets.glyphs import glyphs, handwritten_digits
from retrieval_geometry.datasets.image_set import ImageSet, SkippedFile
from retrieval_geometry.datasets.metric_learning import load_metric_learning, split_class_folders
from retrieval_geometry.datasets.samplers import MPerClassBatches
from retrieval_geometry.datasets.splits import (
    class_split,
    first_per_class,
    query_database_split,
    with_turned_classes,
)
from retrieval_geometry.datasets.views import random_views

__all__ = [
    "PHOTOGRAPHS",
    "DatasetStatus",
    "ImageSet",
    "MPerClassBatches",
    "MetricLearningSplit",
    "Photograph",
    "SkippedFile",
    "available_datasets",
    "class_split",
    "first_per_class",
    "glyphs",
    "handwritten_digits",
    "load_dtd",
    "load_image_folder",
    "load_metric_learning",
    "photo_textures",
    "query_database_split",
    "random_views",
    "split_class_folders",
    "with_turned_classes",
]
