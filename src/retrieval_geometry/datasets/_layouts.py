"""Layouts of the benchmarks of metric learning on disk, and their published splits."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch

from retrieval_geometry._text import printable
from retrieval_geometry.datasets._lists import Row, by_key, read_rows
from retrieval_geometry.datasets._matlab import load_matlab
from retrieval_geometry.datasets._trees import Tree
from retrieval_geometry.datasets.image_set import ImageSet
from retrieval_geometry.datasets.splits import class_split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FIRST_CAR = "AM General Hummer SUV 2000"
PARTITION_LISTS = tuple(f"{folder}list_eval_partition.txt" for folder in ("Eval/", "Anno/", ""))


@dataclass(frozen=True, eq=False)
class MetricLearningSplit:
    """Images to learn from, and images of other classes to test with. Used in chapter 10.

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
    labels = by_key(read_rows(tree, "image_class_labels.txt", "image_id class_id"))
    files = by_key(read_rows(tree, "images.txt", "image_id image_name"))
    # Two lists of the same images: a download that broke off is missing lines of one.
    for one, other, name in ((files, labels, "image_class_labels.txt"), (labels, files, "images.txt")):
        for number in one.keys() - other.keys():
            raise one[number].fault(f"image_id {number} is not in {name}")
    labelled = [(f"images/{row.words[1]}", labels[number].number(1)) for number, row in files.items()]
    names = {label: PurePosixPath(file).parts[1] for file, label in labelled}
    images = _numbered(title, tree, labelled, names)
    return _by_class(images, [name for label, name in names.items() if label <= 100])


def read_cars(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Cars196: the first 98 classes, and the last 98."""
    # Mirrors ship folders by class instead of the original annotations.
    if "cars_annos.mat" not in tree.files:
        files = sorted(file for file in tree.files if file.lower().endswith(IMAGE_SUFFIXES) and "/" in file)
        return _by_sorted_folders(title, tree, files, [file.split("/")[-2] for file in files], 196)
    labelled, names = _annotated(tree, "cars_annos.mat")
    images = _numbered(title, tree, labelled, names)
    return _by_class(images, [name for label, name in names.items() if label <= 98])


def _annotated(tree: Tree, file: str) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """Files with the numbers of their classes, and the names of the classes, from a MATLAB file."""
    content = tree.read(file)
    try:
        found = load_matlab(content)
        rows = found["annotations"][["relative_im_path", "class"]].tolist()
        labelled = [(str(image), int(label)) for image, label in rows]
        names = {label: str(name) for label, name in enumerate(found["class_names"].tolist(), start=1)}
    except Exception as error:  # the reader of damaged files raises almost anything
        reason = printable(str(error).partition("\n")[0])
        raise ValueError(
            f"{tree.place}: {file} holds no annotations of Cars196 ({type(error).__name__}: {reason[:80]}); "
            "fetch it again"
        ) from None
    for image, label in labelled:
        if label not in names:
            raise ValueError(
                f"{tree.place}: {file}: class {label} of {image} is none of its {len(names)} class_names"
            )
    return labelled, names


def read_sop(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Stanford Online Products by its two lists."""
    wanted = "image_id class_id super_class_id path"
    sides = [read_rows(tree, f"Ebay_{side}.txt", wanted, titles=1) for side in ("train", "test")]
    labelled = [(row.words[3], row.number(1)) for rows in sides for row in rows]
    images = _numbered(title, tree, labelled, {label: f"{label:05d}" for _, label in labelled})
    indices = torch.arange(len(images)).split([len(rows) for rows in sides])
    return MetricLearningSplit(*(images.subset(side) for side in indices))


def read_in_shop(title: str, tree: Tree) -> MetricLearningSplit:
    """Read In-Shop by its list of train, query and gallery."""
    place = next((file for file in PARTITION_LISTS if file in tree.files), PARTITION_LISTS[0])
    rows = read_rows(tree, place, "image_name item_id evaluation_status", titles=2)
    # The list begins with the number of its rows: a file cut short is found by it.
    announced = Row(tuple(tree.lines(place)[0][1]), "number_of_images", f"{tree.place}: {place}, line 1")
    if announced.number(0) != len(rows):
        raise announced.fault(f"{len(rows)} images follow")
    parts = ("train", "query", "gallery")
    for row in rows:
        if row.words[2] not in parts:
            raise row.fault(f"evaluation_status is none of {', '.join(parts)}")
    # Some archives put the images one folder deeper.
    above = next((folder for folder in ("", "Img/") if folder + rows[0].words[0] in tree.files), "")
    names = sorted({row.words[1] for row in rows})
    numbers = {name: label for label, name in enumerate(names)}
    labelled = [(above + row.words[0], numbers[row.words[1]]) for row in rows]
    images = _numbered(title, tree, labelled, dict(enumerate(names)))
    sides = [[i for i, row in enumerate(rows) if row.words[2] == side] for side in parts]
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
        (side, row.words[0].rstrip(","), row.number(1))
        for side in ("train", "val", "test")
        for row in read_rows(tree, f"{side}.txt", "path, fine_id, coarse_id")
    ]
    names = {label: PurePosixPath(file).parent.name for _, file, label in rows}
    images = _numbered(title, tree, [(file, label) for _, file, label in rows], names)
    sides = [
        [i for i, (list_, _, label) in enumerate(rows) if (label <= 39) == learnt and list_ in lists]
        for learnt, lists in ((True, ("train", "val", "test")), (False, ("test",)), (False, ("train", "val")))
    ]
    return MetricLearningSplit(*(images.subset(side) for side in sides))


def read_tiny_imagenet(title: str, tree: Tree) -> MetricLearningSplit:
    """Read Tiny ImageNet's training images: the first 100 wnids in sorted order, and the last 100."""
    # Its test images have no labels, and those for validation are of the same classes.
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
    # In the order of the published numbers, from 0: splits by half then are the published ones.
    numbers = {number: label for label, number in enumerate(sorted(names))}
    labels = [numbers[number] for _, number in labelled]
    return tree.image_set(
        title, [file for file, _ in labelled], labels, [names[number] for number in numbers]
    )


def _named(title: str, tree: Tree, files: list[str], owners: list[str]) -> ImageSet:
    """Make a set of files with the names of their classes."""
    numbers = {name: label for label, name in enumerate(sorted(set(owners)))}
    return tree.image_set(title, files, [numbers[owner] for owner in owners], list(numbers))
