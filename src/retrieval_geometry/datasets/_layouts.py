"""How the benchmarks of metric learning lie on disk, and which of their images are for what."""

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

import torch

from retrieval_geometry.datasets._trees import Tree
from retrieval_geometry.datasets.image_set import ImageSet
from retrieval_geometry.datasets.splits import class_split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FIRST_CAR = "AM General Hummer SUV 2000"
PARTITION_LISTS = tuple(f"{folder}list_eval_partition.txt" for folder in ("Eval/", "Anno/", ""))


@dataclass(frozen=True, eq=False)
class MetricLearningSplit:
    """Images to learn from, and images of other classes to test with.

    Attributes:
        train: images to learn from.
        query: images that ask.
        gallery: images that are searched; None where each query is asked among the other queries.
    """

    train: ImageSet
    query: ImageSet
    gallery: ImageSet | None = None


def read_cub(title: str, tree: Tree) -> MetricLearningSplit:
    """Read CUB-200-2011: the first 100 classes, and the last 100."""
    classes_of = {number: int(label) for number, label in tree.lines("image_class_labels.txt")}
    files = {number: f"images/{file}" for number, file in tree.lines("images.txt")}
    labelled = [(file, classes_of[number]) for number, file in files.items()]
    names = {label: PurePosixPath(file).parts[1] for file, label in labelled}
    images = _numbered(title, tree, labelled, names)
    return _by_class(images, [name for label, name in names.items() if label <= 100])


def read_cars(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Cars196: the first 98 classes, and the last 98."""
    if "cars_annos.mat" not in tree.files:
        files = sorted(file for file in tree.files if file.lower().endswith(IMAGE_SUFFIXES) and "/" in file)
        return _by_sorted_folders(title, tree, files, [file.split("/")[-2] for file in files], 196)
    from scipy.io import loadmat

    content = loadmat(BytesIO(tree.read("cars_annos.mat")), squeeze_me=True)
    rows = content["annotations"][["relative_im_path", "class"]].tolist()
    names = {label: str(name) for label, name in enumerate(content["class_names"].tolist(), start=1)}
    images = _numbered(title, tree, [(str(file), int(label)) for file, label in rows], names)
    return _by_class(images, [name for label, name in names.items() if label <= 98])


def read_sop(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Stanford Online Products by its two lists."""
    sides = [tree.lines(f"Ebay_{side}.txt")[1:] for side in ("train", "test")]  # behind a line of titles
    labelled = [(file, int(label)) for rows in sides for _, label, _, file in rows]
    images = _numbered(title, tree, labelled, {label: f"{label:05d}" for _, label in labelled})
    indices = torch.arange(len(images)).split([len(rows) for rows in sides])
    return MetricLearningSplit(*(images.subset(side) for side in indices))


def read_in_shop(title: str, tree: Tree) -> MetricLearningSplit:
    """Read In-Shop by its list of train, query and gallery."""
    place = next(file for file in PARTITION_LISTS if file in tree.files)
    rows = tree.lines(place)[2:]  # behind the number of images and a line of titles
    above = next((folder for folder in ("", "Img/") if folder + rows[0][0] in tree.files), "")
    names = sorted({item for _, item, _ in rows})
    numbers = {name: label for label, name in enumerate(names)}
    images = _numbered(
        title, tree, [(above + file, numbers[item]) for file, item, _ in rows], dict(enumerate(names))
    )
    sides = [[i for i, row in enumerate(rows) if row[2] == side] for side in ("train", "query", "gallery")]
    return MetricLearningSplit(*(images.subset(side) for side in sides))


def read_omniglot(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Omniglot: background and evaluation alphabets, a class is a character of an alphabet."""
    files = sorted(file for file in tree.files if file.endswith(".png") and file.count("/") >= 3)
    owners = ["/".join(PurePosixPath(file).parts[-3:-1]) for file in files]  # alphabet/character
    images = _named(title, tree, files, owners)
    background = ["background" in file.partition("/")[0] for file in files]
    sides = [[i for i, side in enumerate(background) if side is wanted] for wanted in (True, False)]
    return MetricLearningSplit(*(images.subset(side) for side in sides))


def read_grocery(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Grocery Store: fine labels 0 to 39; then test against train and val of 40 to 80."""
    rows = [
        (side, file.rstrip(","), int(label.rstrip(",")))
        for side in ("train", "val", "test")
        for file, label, _ in tree.lines(f"{side}.txt")
    ]
    names = {label: PurePosixPath(file).parts[-2] for _, file, label in rows}
    images = _numbered(title, tree, [(file, label) for _, file, label in rows], names)
    sides = [
        [i for i, (list_, _, label) in enumerate(rows) if (label <= 39) == learnt and list_ in lists]
        for learnt, lists in ((True, ("train", "val", "test")), (False, ("test",)), (False, ("train", "val")))
    ]
    return MetricLearningSplit(*(images.subset(side) for side in sides))


def read_tiny_imagenet(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Tiny ImageNet's training images: the first 100 wnids in sorted order, and the last 100."""
    found = [(file, re.match(r"(?:train/)?(n\d{8})/.+\.jpe?g$", file.lower())) for file in sorted(tree.files)]
    owners = {file: match[1] for file, match in found if match}
    return _by_sorted_folders(title, tree, list(owners), list(owners.values()), 200)


def _by_sorted_folders(
    title: str, tree: Tree, files: list[str], owners: list[str], n_classes: int
) -> MetricLearningSplit:
    """Split classes in half, in the sorted order of their names."""
    names = sorted(set(owners))
    if len(names) != n_classes:
        raise ValueError(
            f"{tree.place} holds {len(names)} class folders, but {title} has {n_classes}; fetch it "
            "again, or use split_class_folders for another split"
        )
    return _by_class(_named(title, tree, files, owners), names[: n_classes // 2])


def _by_class(images: ImageSet, train_classes: list[str]) -> MetricLearningSplit:
    return MetricLearningSplit(*class_split(images, train_classes))


def _numbered(title: str, tree: Tree, labelled: list[tuple[str, int]], names: dict[int, str]) -> ImageSet:
    """Make a set of files with the numbers that the publication gives their classes."""
    numbers = {number: label for label, number in enumerate(sorted(names))}
    labels = [numbers[number] for _, number in labelled]
    return tree.image_set(
        title, [file for file, _ in labelled], labels, [names[number] for number in numbers]
    )


def _named(title: str, tree: Tree, files: list[str], owners: list[str]) -> ImageSet:
    """Make a set of files with the names of their classes."""
    numbers = {name: label for label, name in enumerate(sorted(set(owners)))}
    return tree.image_set(title, files, [numbers[owner] for owner in owners], list(numbers))
