"""Which images, which network and which budget a profile of metric learning uses."""

from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from retrieval_geometry._folders import cache_dir
from retrieval_geometry.datasets import (
    ImageSet,
    MetricLearningSplit,
    class_split,
    glyphs,
    load_metric_learning,
    with_turned_classes,
)
from retrieval_geometry.datasets.metric_learning import BENCHMARKS
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.data import find_weights
from retrieval_geometry.features import load_embedding_network
from retrieval_geometry.reporting.measured import Groups
from retrieval_geometry.training import Augmentation, TrainingConfig, stack_images

GLYPH_LICENCE = "typefaces: Bitstream Vera licence (DejaVu), STIX fonts user licence"
VALIDATION = 0.75
"""Share of the training classes that models are trained on while hyper-parameters are chosen."""

VALIDATION_ALPHABETS = 6
"""Of Omniglot's alphabets to learn from, every so many, by name, is held out for validation."""

VALIDATION_PRODUCTS = 4
"""Of the products to learn from, every so many, by label, is held out for validation."""


@dataclass(frozen=True, eq=False)
class LearningSetting:
    """Common conditions of all methods of a comparison: images, network, budget.

    Args:
        name: of the data set, in words.
        licence: of the images.
        protocol: the split in words.
        split: images to learn from, and other classes to test with.
        trunk: what :func:`load_embedding_network` is told of the trunk.
        dim: length of an embedding, and of a local feature where an image is a set of them.
        config: steps, batches and rates.
        seeds: how many models of each method are trained.
        grouped_by: what queries that are not independent have in common: their class, or their alphabet.
        asked: queries that are ranked by transport distances: each is compared with every other test image.
        validation: classes held out of those to learn from. Hyper-parameters are chosen on them, and a model
            is kept as it was when its R@1 on them was best. Without them a quarter of the training classes
            serves for the choice, and a model is kept as it is at the end.
        validation_gallery: images of the same classes that those of ``validation`` are asked against; without
            them each is asked against the others.
        tuned_with: the budget of the choice, if it is another one.
        tried: numbers of the candidates of each hyper-parameter that are tried first; one beyond is tried
            where the best is at their edge.
        further: how many values beyond the candidates may be tried, where the best is at their edge.
        rates: learning rates that are tried with the best of them, besides that of the budget.
        views: of each image to learn from, random crops and the image itself (:func:`random_views`).
        on_axes: whether the head begins as the principal axes of its input, and not at random.
        cache: folder of embeddings, and of models that are trained.
    """

    name: str
    licence: str
    protocol: str
    split: MetricLearningSplit
    trunk: dict[str, Any]
    dim: int
    config: TrainingConfig
    seeds: int = 3
    grouped_by: str = "classes"
    asked: int = 150
    validation: ImageSet | None = None
    validation_gallery: ImageSet | None = None
    tuned_with: TrainingConfig | None = None
    tried: tuple[int, ...] = (0, 1, 2, 3, 4)
    further: int = 0
    rates: tuple[float, ...] = ()
    views: int = 1
    on_axes: bool = False
    cache: Path = field(default_factory=cache_dir)

    @property
    def descriptors(self) -> Path:
        """Where embeddings are kept between runs."""
        return self.cache / "descriptors"

    @property
    def groups(self) -> Groups:
        """The classes of the queries; of characters the alphabets, the first part of their names."""
        query = self.split.query
        names = [query.classes[label] for label in query.labels.tolist()]
        if self.grouped_by == "alphabets":
            names = [name.partition("/")[0] for name in names]
        place = {name: i for i, name in enumerate(sorted(set(names)))}
        members = tuple(place[name] for name in names)
        return Groups(self.grouped_by, tuple(members.count(i) for i in range(len(place))), members)

    @property
    def identity(self) -> dict[str, Any]:
        """All that a trained model depends on but its method and seed."""
        sides = [self.split.train, self.split.query, self.split.gallery, self.validation]
        # Named only where they are not as usual: models of other settings keep their names.
        unusual = {"views": self.views, "on_axes": self.on_axes} if self.views > 1 or self.on_axes else {}
        if self.validation_gallery is not None:
            sides.append(self.validation_gallery)
        return {
            **unusual,
            # Some ids beside the digest: it is that of the whole set, which subsets share.
            "images": [None if side is None else [side.sha256, len(side), *side.ids[::97]] for side in sides],
            # The name of a file of weights, not its folder: it is the same elsewhere.
            "trunk": {key: Path(str(value)).name for key, value in self.trunk.items()},
            "dim": self.dim,
            "config": vars(self.config) | {"augment": vars(self.config.augment)},
        }

    def for_validation(self) -> "LearningSetting":
        """The same with part of the training classes as test classes: where hyper-parameters are chosen."""
        train, query, gallery = self.split.train, self.validation, self.validation_gallery
        if query is None:
            # Always seed 0: values that are tuned with different seeds are tuned on the same classes.
            train, query = class_split(train, VALIDATION, seed=0)
        config = self.tuned_with or self.config
        split = MetricLearningSplit(train, query, gallery)
        return replace(self, split=split, config=config, validation=None, validation_gallery=None, seeds=1)

    def for_share(self, share: float) -> "LearningSetting":
        """The same for a share of the steps, with the learning rate dropped after the same share of them."""
        steps, *drops = (max(1, round(share * step)) for step in (self.config.steps, *self.config.lr_drops))
        return replace(self, config=replace(self.config, steps=steps, lr_drops=tuple(drops)))

    def at_rate(self, rate: float | None) -> "LearningSetting":
        """The same at another learning rate; None leaves it."""
        return self if rate is None else replace(self, config=replace(self.config, lr=rate))


def learning_setting(context: RunContext) -> LearningSetting:
    """The setting of the comparison of losses.

    ``quick``: glyphs, a small network from scratch; ``real``: Omniglot likewise; ``paper``: CUB-200-2011 and
    a ResNet-50 trained on ImageNet.

    Raises:
        FileNotFoundError: data or weights are missing; the message says where to get and to put them.
    """
    return {"quick": _glyphs, "real": _omniglot, "paper": _cub}[context.profile](context)


def _glyphs(context: RunContext) -> LearningSetting:
    train, test = class_split(glyphs(n_maps=1, cache=context.cache / "glyphs"), 0.6, seed=0)
    test = test.subset(range(0, len(test), 2))  # half the typefaces: as many classes in half the time
    return LearningSetting(
        name="glyphs",
        licence=GLYPH_LICENCE,
        protocol=f"trained on {_classes(train)} characters, tested on {_classes(test)} others, each image "
        "against all other test images",
        split=_held(MetricLearningSplit(train, test), "glyph_cnn"),
        trunk={"trunk": "glyph_cnn_bn"},
        dim=32,
        config=TrainingConfig(steps=120, batch_size=64, per_class=4, lr=1e-3, accelerator=context.device),
        cache=context.cache,
    )


def _omniglot(context: RunContext) -> LearningSetting:
    """Omniglot the other way round: its evaluation alphabets have more characters to learn from."""
    full = load_metric_learning("omniglot", context.data_root)
    split = _held(MetricLearningSplit(full.query, full.train), "glyph_cnn")
    alphabets = [split.train.classes[label].partition("/")[0] for label in split.train.labels.tolist()]
    held_out = sorted(set(alphabets))[::VALIDATION_ALPHABETS]
    learnt, validation = (
        split.train.subset([i for i, name in enumerate(alphabets) if (name in held_out) is wanted])
        for wanted in (False, True)
    )
    validation = validation.subset(range(0, len(validation), 2))  # half the drawings: seen often
    config = TrainingConfig(
        steps=1_400,
        batch_size=120,
        per_class=4,
        lr=3e-3,
        lr_drops=(950, 1_250),
        augment=Augmentation(shift=2, rotation=15, shear=15, scale=0.2),
        validate_every=100,
        accelerator=context.device,
    )
    return LearningSetting(
        name="Omniglot",
        licence=BENCHMARKS["omniglot"].licence,
        protocol=f"trained on {_classes(learnt)} characters of the evaluation alphabets, each turned three "
        f"times as classes of their own, with random affine maps; the {_classes(validation)} characters of "
        f"{len(held_out)} other evaluation alphabets for validation; tested on the {_classes(split.query)} "
        "characters of the background alphabets at hand, each image against all other test images",
        split=MetricLearningSplit(with_turned_classes(learnt), split.query),
        trunk={"trunk": "glyph_cnn_bn"},
        dim=64,
        config=config,
        grouped_by="alphabets",
        asked=len(split.query),
        validation=validation,
        tuned_with=replace(config, steps=150, lr_drops=(110, 135)),
        tried=(1, 2, 3),
        further=4,
        rates=(1e-3, 1e-2),
        cache=context.cache,
    )


def products(context: RunContext) -> LearningSetting:
    """Photographs of products: a MobileNetV2 trained on ImageNet, its head alone is learnt.

    Raises:
        FileNotFoundError: data or weights are missing; the message says where to put them.
    """
    root = Path(context.data_root)
    split = load_metric_learning("grocery", root)
    weights = find_weights(root, "mobilenet_v2*.pth", "any MobileNetV2 state dict of torchvision's layout")
    protocol = (
        f"trained on {_classes(split.train)} products, tested on {_classes(split.query)} others, "
        "photographs of the test set against those of the training and validation sets"
    )
    trunk = {"trunk": "mobilenet_v2", "weights": str(weights), "input_size": 128}
    return _head_alone("Grocery Store", "grocery", protocol, split, trunk, context)


def finetuned(context: RunContext) -> LearningSetting:
    """Photographs of products: the last stages of an EfficientNet-lite0, trained on ImageNet, are trained on.

    What comes out of the stages before is computed once, for each image and one random crop of it.

    Raises:
        FileNotFoundError: the data are missing; the message says where to put them.
    """
    split = load_metric_learning("grocery", Path(context.data_root))
    learnt, query, gallery = _validation_products(split.train)
    config = TrainingConfig(
        steps=100,
        batch_size=80,
        per_class=4,
        lr=3e-4,
        lr_drops=(75,),
        validate_every=25,
        accelerator=context.device,
    )
    return LearningSetting(
        name="Grocery Store",
        licence=BENCHMARKS["grocery"].licence,
        protocol=f"trained on {_classes(learnt)} products, {_classes(query)} others for validation; tested "
        f"on {_classes(split.query)} further ones, photographs of the test set against those of the training "
        "and validation sets",
        split=MetricLearningSplit(learnt, split.query, split.gallery),
        trunk={
            "trunk": "efficientnet_lite0",
            "input_size": 128,
            "train_from": "stage7",
            "freeze_trunk": True,
        },
        dim=512,
        config=config,
        validation=query,
        validation_gallery=gallery,
        tuned_with=replace(config, steps=40, lr_drops=(30,)),
        tried=(1, 2, 3),
        further=2,
        rates=(1e-4, 1e-3),
        views=2,
        on_axes=True,
        cache=context.cache,
    )


def _validation_products(train: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Products to learn from, and others: their photographs of the test list, and of the other lists."""
    held_out = torch.isin(train.labels, train.labels.unique()[VALIDATION_PRODUCTS - 1 :: VALIDATION_PRODUCTS])
    # Photographs of one list come in bursts: as in the test, another list is asked.
    asked = torch.tensor(["test" in PurePosixPath(name).parts[:-1] for name in train.ids])
    sides = (~held_out, held_out & asked, held_out & ~asked)
    learnt, query, gallery = (train.subset(side.nonzero()[:, 0]) for side in sides)
    return learnt, query, gallery


def photographs(context: RunContext) -> LearningSetting:
    """Small photographs of all kinds: the head alone of a ResNet-18, cut behind its third stage, is learnt.

    The trunk was trained on ImageNet, which holds these photographs: it has seen the test classes.

    Raises:
        FileNotFoundError: data or weights are missing; the message says where to put them.
    """
    root = Path(context.data_root)
    split = load_metric_learning("tiny_imagenet", root)
    weights = find_weights(root, "resnet18*.pth", "any ResNet-18 state dict of torchvision's layout")
    protocol = (
        f"trained on {_classes(split.train)} classes, tested on {_classes(split.query)} others, each image "
        "against all other test images; the trunk has seen all classes, with their names, in ImageNet"
    )
    trunk = {"trunk": "resnet18", "layer": "layer3", "weights": str(weights), "input_size": 64}
    return _head_alone("Tiny ImageNet", "tiny_imagenet", protocol, split, trunk, context)


def _head_alone(
    name: str, key: str, protocol: str, split: MetricLearningSplit, trunk: dict[str, Any], context: RunContext
) -> LearningSetting:
    return LearningSetting(
        name=name,
        licence=BENCHMARKS[key].licence,
        protocol=protocol,
        split=split,
        trunk={**trunk, "freeze_trunk": True},
        dim=128,
        config=TrainingConfig(steps=400, batch_size=80, per_class=4, lr=3e-3, accelerator=context.device),
        cache=context.cache,
    )


def _cub(context: RunContext) -> LearningSetting:
    root = Path(context.data_root)
    weights = find_weights(root, "resnet50*.pth", "torchvision's resnet50 weights trained on ImageNet")
    return LearningSetting(
        name="CUB-200-2011",
        licence=BENCHMARKS["cub"].licence,
        protocol="trained on the first 100 species, tested on the other 100, each image against all others",
        split=load_metric_learning("cub", root),
        trunk={"trunk": "resnet50", "weights": str(weights)},
        dim=128,
        config=TrainingConfig(
            steps=7_500,
            batch_size=112,
            per_class=2,
            lr=1e-3,
            trunk_lr_factor=0.01,
            weight_decay=1e-4,
            augment=Augmentation(shift=16, flip=True),
            accelerator=context.device,
        ),
        seeds=5,
        cache=context.cache,
    )


def _held(split: MetricLearningSplit, trunk: str) -> MetricLearningSplit:
    """The same images as the trunk takes them, read once and kept in memory: many models are trained."""
    network = load_embedding_network(trunk)

    def hold(images: ImageSet) -> ImageSet:
        stack = stack_images(images, network)
        # By name, so that subsets made later still find their images.
        place = {name: i for i, name in enumerate(images.ids)}
        return replace(images, read=lambda name: stack[place[name]])

    gallery = None if split.gallery is None else hold(split.gallery)
    return MetricLearningSplit(hold(split.train), hold(split.query), gallery)


def _classes(images: ImageSet) -> int:
    return len(images.labels.unique())
