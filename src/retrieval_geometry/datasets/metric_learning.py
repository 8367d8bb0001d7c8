"""The benchmarks of metric learning in their published layouts, with their standard zero-shot splits.

No image is decoded when a set is loaded: that is done, with a clear error, when the image is asked for.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_geometry._check import check_choice, check_path
from retrieval_geometry.datasets._layouts import (
    FIRST_CAR,
    PARTITION_LISTS,
    MetricLearningSplit,
    read_cars,
    read_cub,
    read_grocery,
    read_in_shop,
    read_omniglot,
    read_sop,
    read_tiny_imagenet,
)
from retrieval_geometry.datasets._trees import Tree, find_tree
from retrieval_geometry.datasets.folders import load_image_folder
from retrieval_geometry.datasets.splits import class_split


@dataclass(frozen=True)
class Benchmark:
    """One published set: what it is, on what terms, where to get it, and how its copy is known and read.

    Attributes:
        title: its name in results.
        description: what it holds.
        licence: its terms.
        url: where to get it.
        folders: where it may lie below the data root; the first is recommended.
        archives: patterns of zip archives below the data root.
        markers: a file or folder that the set has and other sets have not; or one of several.
        read: makes the split of its title and files.
    """

    title: str
    description: str
    licence: str
    url: str
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    markers: tuple[str, ...]
    read: Callable[[str, Tree], MetricLearningSplit]

    def find(self, root: str | os.PathLike[str]) -> Tree | None:
        """Find the set under a data root, or at it; None if it is not there."""
        found = (find_tree(Path(root), self.folders, self.archives, marker) for marker in self.markers)
        return next((tree for tree in found if tree is not None), None)


def load_metric_learning(name: str, root: str | os.PathLike[str]) -> MetricLearningSplit:
    """Benchmark of metric learning with its standard split.

    Source: Roth et al. 2020 for birds, cars and products; otherwise the publication of each set. Used in
    chapters 11 and 14.

    - ``"cub"``: CUB-200-2011 (Wah et al. 2011); the first 100 classes and the last 100.
    - ``"cars"``: Cars196 (Krause et al. 2013), by ``cars_annos.mat`` or as 196 class folders; the first 98
      classes and the last 98.
    - ``"sop"``: Stanford Online Products (Song et al. 2016), by ``Ebay_train.txt`` and ``Ebay_test.txt``.
    - ``"inshop"``: In-Shop Clothes Retrieval (Liu et al. 2016), by ``list_eval_partition.txt``: train, query
      and gallery.
    - ``"omniglot"``: Omniglot (Lake et al. 2015); background and evaluation alphabets.
    - ``"grocery"``: Grocery Store (Klasson et al. 2019); all photographs of the fine labels 0 to 39; those of
      ``test`` of the labels 40 to 80 against those of ``train`` and ``val`` of the same.
    - ``"tiny_imagenet"``: Tiny ImageNet, its training images; the first 100 wnids in sorted order and the
      last 100.

    Without a gallery each query is asked among the other queries. Labels are numbers of the classes of the
    whole set, on every side.

    Args:
        name: one of these.
        root: the data root, or the folder or zip archive of the set itself. Archives are read where they are.

    Raises:
        FileNotFoundError: the set is not there (the message says where to get it and where to put it), or a
            list or an image of it is missing.
        ValueError: an unknown name, or a copy in which one side of the split is empty.
    """
    benchmark = BENCHMARKS[check_choice(name, "name", BENCHMARKS)]
    tree = benchmark.find(check_path(root, "root"))
    if tree is None:
        raise FileNotFoundError(
            f"{benchmark.title} is not under {root}. Get it from {benchmark.url} and unpack it there, so "
            f"that {Path(root) / benchmark.folders[0] / benchmark.markers[0]} exists; a zip archive "
            f"{' or '.join(benchmark.archives)} is read as it is"
        )
    split = benchmark.read(benchmark.title, tree)
    for side in ("train", "query", "gallery"):
        images = getattr(split, side)
        if images is not None and len(images) == 0:
            raise ValueError(f"{tree.place} is no complete {benchmark.title}: its {side} set is empty")
    return split


def split_class_folders(
    path: str | os.PathLike[str], train_classes: int | float | Sequence[str] = 0.5, seed: int | None = None
) -> MetricLearningSplit:
    """Images of any tree of class folders, or of a zip archive of one, split by classes.

    Source: this package's own. Used in no chapter.

    Every file is decoded once, as :func:`load_image_folder` does; :func:`class_split` documents the other
    arguments.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: as :func:`load_image_folder` and :func:`class_split`.
    """
    return MetricLearningSplit(*class_split(load_image_folder(path), train_classes, seed))


BENCHMARKS: dict[str, Benchmark] = {
    "cub": Benchmark(
        "CUB-200-2011",
        "11,788 photographs of 200 kinds of birds",
        "for research",
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        ("CUB_200_2011", "cub"),
        ("CUB*.zip", "cub*.zip"),
        ("image_class_labels.txt",),
        read_cub,
    ),
    "cars": Benchmark(
        "Cars196",
        "16,185 photographs of 196 models of cars",
        "for research",
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        ("cars196", "cars", "CARS_196"),
        ("cars*.zip", "CARS*.zip"),
        ("cars_annos.mat", f"train/{FIRST_CAR}", FIRST_CAR),
        read_cars,
    ),
    "sop": Benchmark(
        "Stanford Online Products",
        "120,053 photographs of 22,634 products",
        "for research",
        "https://cvgl.stanford.edu/projects/lifted_struct/",
        ("Stanford_Online_Products", "sop"),
        ("Stanford_Online_Products*.zip", "sop*.zip"),
        ("Ebay_train.txt",),
        read_sop,
    ),
    "inshop": Benchmark(
        "In-Shop Clothes Retrieval",
        "52,712 photographs of 7,982 clothes",
        "for research",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        ("inshop", "In-shop Clothes Retrieval Benchmark", "InShop"),
        ("inshop*.zip", "In-shop*.zip", "In*hop*.zip"),
        PARTITION_LISTS,
        read_in_shop,
    ),
    "omniglot": Benchmark(
        "Omniglot",
        "handwritten characters of 50 alphabets, 20 drawings each",
        "MIT",
        "https://github.com/brendenlake/omniglot",
        ("omniglot", "omniglot-py", "omniglot/python"),
        ("omniglot*.zip",),
        ("images_background", "background"),
        read_omniglot,
    ),
    "grocery": Benchmark(
        "Grocery Store",
        "5,125 photographs of 81 products in shops",
        "MIT",
        "https://github.com/marcusklasson/GroceryStoreDataset",
        ("grocery", "GroceryStoreDataset/dataset", "GroceryStoreDataset", "dataset"),
        ("grocery*.zip", "GroceryStore*.zip"),
        ("classes.csv",),
        read_grocery,
    ),
    "tiny_imagenet": Benchmark(
        "Tiny ImageNet",
        "64 x 64 photographs of 200 of the classes of ImageNet, 500 each to learn from",
        "ImageNet's terms, for research",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ("tiny-imagenet-200", "tiny_imagenet"),
        ("tiny*imagenet*.zip",),
        ("words.txt",),
        read_tiny_imagenet,
    ),
}
"""The benchmarks by the name that :func:`load_metric_learning` takes."""
