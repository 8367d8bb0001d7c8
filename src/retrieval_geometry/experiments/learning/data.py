"""Which images, which network and which budget a profile of metric learning uses."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrieval_geometry._folders import cache_dir
from retrieval_geometry.datasets import (
    ImageSet,
    MetricLearningSplit,
    class_split,
    glyphs,
    load_metric_learning,
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
        sides = (self.split.train, self.split.query, self.split.gallery)
        return {
            # Some ids beside the digest: it is that of the whole set, which subsets share.
            "images": [None if side is None else [side.sha256, len(side), *side.ids[::97]] for side in sides],
            # The name of a file of weights, not its folder: it is the same elsewhere.
            "trunk": {key: Path(str(value)).name for key, value in self.trunk.items()},
            "dim": self.dim,
            "config": vars(self.config) | {"augment": vars(self.config.augment)},
        }

    def for_validation(self) -> "LearningSetting":
        """The same with part of the training classes as test classes: where hyper-parameters are chosen."""
        # Always seed 0: values that are tuned with different seeds are tuned on the same classes.
        train, query = class_split(self.split.train, VALIDATION, seed=0)
        return replace(self, split=MetricLearningSplit(train, query), seeds=1)


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
    full = load_metric_learning("omniglot", context.data_root)
    # Half the drawers of the test alphabets: as many classes in half the time.
    split = replace(full, query=full.query.subset(range(0, len(full.query), 2)))
    return LearningSetting(
        name="Omniglot",
        licence=BENCHMARKS["omniglot"].licence,
        protocol=f"trained on {_classes(split.train)} characters of the background alphabets, tested on "
        f"{_classes(split.query)} of the evaluation alphabets, each image against all other test images",
        split=_held(split, "glyph_cnn"),
        trunk={"trunk": "glyph_cnn_bn"},
        dim=64,
        config=TrainingConfig(steps=300, batch_size=80, per_class=4, lr=1e-3, accelerator=context.device),
        grouped_by="alphabets",
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
