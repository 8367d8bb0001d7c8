"""Data sets, features and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from retrieval_geometry import datasets, features, training
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import EmbeddingNetwork, GlyphCNN, Scattering
from retrieval_geometry.losses import baseline_loss
from retrieval_geometry.training import Augmentation, TrainingConfig

from .law import Entry
from .makers import always, images, labels, network, normal, one_of, single

NOWHERE = Path("no/such/folder")
ROOT = {"root": always(NOWHERE)}


def image_set(**parts: Any) -> Any:
    """A set from its parts, of which one image is read."""
    found = ImageSet(sha256="0", **parts)
    return found.labels, found.subset([0, 2]).load(1)


def embedded(images: Any, **settings: Any) -> Any:
    """A network made with drawn settings and called on drawn pixels."""
    return EmbeddingNetwork(GlyphCNN(), **settings)(images)


def batches(t: int, **settings: Any) -> Any:
    """Batch t of drawn settings."""
    return datasets.MPerClassBatches(**settings).batch(t)


def trained(images: Any, batch_size: int, weights: Any) -> Any:
    """Two steps, the network copied before."""
    config = TrainingConfig(steps=2, batch_size=batch_size, per_class=2, accelerator="cpu")
    fresh = features.load_embedding_network(dim=4)
    return training.train(fresh, baseline_loss("triplet"), images, config, weights=weights).losses


ENTRIES: dict[str, Entry] = {
    "datasets.ImageSet": Entry(
        image_set,
        {
            "name": always("toy"),
            "labels": labels(6),
            "classes": always(("a", "b", "c")),
            "ids": always(tuple("uvwxyz")),
            "read": always(lambda name: torch.zeros(3, 4, 4, dtype=torch.uint8)),
        },
        words=("indices",),
    ),
    "datasets.MPerClassBatches": Entry(
        batches,
        {
            "labels": labels(12),
            "batch_size": always(4),
            "per_class": always(2),
            "seed": always(0),
            "weights": lambda seed: single(12)(seed) + 0.1,
            "t": always(3),
        },
        unbounded=("per_class",),
    ),
    "datasets.class_split": Entry(
        datasets.class_split,
        {"images": images, "train_classes": one_of(1, 0.5, ["a"]), "seed": one_of(None, 0)},
        words=("labels",),
    ),
    "datasets.random_views": Entry(
        datasets.random_views,
        {"images": images, "n_views": always(2), "smallest": always(0.5), "seed": always(0)},
        unbounded=("n_views",),
    ),
    "datasets.with_turned_classes": Entry(datasets.with_turned_classes, {"images": images}),
    "datasets.first_per_class": Entry(
        datasets.first_per_class, {"labels": labels(12), "per_class": always(1)}
    ),
    "datasets.query_database_split": Entry(
        datasets.query_database_split, {"labels": labels(12), "per_class": always(1), "seed": always(0)}
    ),
    "datasets.glyphs": Entry(
        datasets.glyphs,
        {"size": always(32), "n_maps": always(1), "seed": always(0)},
        unbounded=("n_maps", "size"),
        only_spoilt=True,
    ),
    "datasets.handwritten_digits": Entry(datasets.handwritten_digits),
    "datasets.photo_textures": Entry(
        datasets.photo_textures, {"patch": always(96), "most": always(24)}, only_spoilt=True
    ),
    "datasets.available_datasets": Entry(datasets.available_datasets, {"data_root": always(NOWHERE)}),
    "datasets.load_dtd": Entry(
        datasets.load_dtd, {**ROOT, "split": one_of(None, "train1", ["test1"])}, refused=True
    ),
    "datasets.load_image_folder": Entry(datasets.load_image_folder, {"path": always(NOWHERE)}, refused=True),
    "datasets.load_metric_learning": Entry(
        datasets.load_metric_learning, {"name": one_of("cub", "cars", "omniglot"), **ROOT}, refused=True
    ),
    "datasets.split_class_folders": Entry(
        datasets.split_class_folders,
        {"path": always(NOWHERE), "train_classes": one_of(1, 0.5, ["a"]), "seed": one_of(None, 0)},
        refused=True,
    ),
    "features.Backbone": Entry(
        lambda image, **settings: features.Backbone(layer="x", **settings).prepare(image),
        {
            "name": always("b"),
            "input_size": always(16),
            "resize_size": always(18),
            "image": lambda seed: images(seed).load(0),
        },
        unbounded=("input_size", "resize_size"),
    ),
    "features.Scattering": Entry(
        lambda images, **settings: Scattering(**settings)(images),
        {
            "images": single(2, 3, 16, 16),
            "scales": always(2),
            "orientations": always(2),
            "input_size": always(16),
            "log_scale": one_of(None, 0.01),
        },
        unbounded=("input_size", "orientations"),
    ),
    "features.GlyphCNN": Entry(
        lambda images, batch_norm: GlyphCNN(batch_norm)(images),
        {"images": single(2, 3, 32, 32), "batch_norm": one_of(False, True)},
    ),
    "features.VGGM": Entry(
        features.VGGM, {"input_size": always(224)}, unbounded=("input_size",), only_spoilt=True
    ),
    "features.EmbeddingNetwork": Entry(
        embedded,
        {
            "images": single(2, 3, 32, 32),
            "dim": always(4),
            "output": one_of("vector", "map"),
            "normalize": one_of(True, False),
            "freeze_trunk": one_of(False, True),
            "seed": always(0),
        },
        unbounded=("dim",),
    ),
    "features.SiftBagOfWords": Entry(
        lambda images, **settings: (
            features.SiftBagOfWords(progress=False, **settings).fit(images).transform(images)
        ),
        {
            "images": images,
            "n_words": always(3),
            "norm": one_of("l2", "l1"),
            "max_descriptors": always(500),
            "seed": always(0),
        },
        words=("word", "words"),
    ),
    "features.convert_vgg_m": Entry(features.convert_vgg_m, {"path": always(NOWHERE)}, refused=True),
    "features.extract_descriptors": Entry(
        lambda **given: features.extract_descriptors(progress=False, **given),
        {
            "images": images,
            "backbone": lambda seed: network().trunk,
            "batch_size": always(5),
            "cache": one_of(None),
        },
        words=("image", "0/0"),
    ),
    "features.l2_normalize": Entry(features.l2_normalize, {"descriptors": normal(4, 3)}),
    "features.load_backbone": Entry(
        features.load_backbone,
        {
            "name": one_of("scattering", "efficientnet_lite0", "timm/resnet18", "squeezenet1_1"),
            "layer": one_of(None, "log", "stage2", ["stem", "stage1"]),
            "weights": one_of(None, "no.pth", "random"),
            "device": always("cpu"),
            "input_size": always(32),
        },
        words=("backbone", "layer"),
        unbounded=("input_size",),
    ),
    "features.pool_descriptors": Entry(
        features.pool_descriptors,
        {"descriptors": normal(2, 4, 3), "kind": one_of("average", "gem"), "p": always(3.0)},
    ),
    "features.load_embedding_network": Entry(
        features.load_embedding_network,
        {
            "trunk": always("glyph_cnn"),
            "dim": always(4),
            "layer": one_of(None, "x"),
            "weights": one_of(None, "no.pth"),
            "input_size": one_of(None, 32),
            "seed": always(0),
        },
        words=("name", "output", "backbone", "layer"),
        unbounded=("input_size", "dim"),
    ),
    "training.Augmentation": Entry(
        Augmentation,
        {
            "shift": always(2),
            "flip": one_of(True, False),
            "rotation": one_of(0.0, 15.0),
            "shear": one_of(0.0, 15.0),
            "scale": one_of(0.0, 0.2),
        },
    ),
    "training.TrainingConfig": Entry(
        TrainingConfig,
        {
            "steps": always(3),
            "batch_size": always(4),
            "per_class": always(2),
            "lr": always(1e-3),
            "trunk_lr_factor": always(1.0),
            "objective_lr": always(1e-3),
            "lr_drops": always((1, 2)),
            "weight_decay": always(0.0),
            "optimizer": one_of("adam", "sgd"),
            "precision": always("32-true"),
            "augment": always(Augmentation(1)),
            "seed": always(0),
            "checkpoint_every": always(5),
            "validate_every": always(5),
            "patience": always(2),
            "accelerator": always("cpu"),
        },
    ),
    "training.embed": Entry(
        lambda images, batch_size: training.embed(network(), images, batch_size),
        {"images": images, "batch_size": always(5)},
        words=("image", "0/0"),
    ),
    "training.stack_images": Entry(
        lambda images: training.stack_images(images, network()), {"images": images}, words=("image", "0/0")
    ),
    "training.train": Entry(
        trained,
        {"images": images, "batch_size": always(4), "weights": lambda seed: single(12)(seed) + 0.1},
        words=("labels", "per_class", "classes", "image", "0/0", "embeddings"),
    ),
}

EMBEDDING = features.load_embedding_network  # an argument below is called features as well

METHODS: dict[str, Entry] = {
    "datasets.ImageSet.subset": Entry(
        lambda indices: images(0).subset(indices).labels,
        {"indices": one_of([0, 2], torch.tensor([1]))},
        words=("ids",),
    ),
    "features.EmbeddingNetwork.standardize_head": Entry(
        lambda images: features.load_embedding_network(dim=4).standardize_head(images),
        {"images": single(6, 3, 32, 32)},
    ),
    "features.EmbeddingNetwork.set_head_to_axes": Entry(
        lambda features: EMBEDDING(dim=4).set_head_to_axes(features),
        {"features": single(6, 1, 128)},
        words=("vectors",),
    ),
    "features.EmbeddingNetwork.prepare": Entry(
        lambda image, margin: network().prepare(image, margin),
        {"image": lambda seed: images(seed).load(0), "margin": one_of(0, 2)},
        unbounded=("margin",),
    ),
}

NO_CALL = {
    "datasets.PHOTOGRAPHS": "a table",
    "datasets.DatasetStatus": "a record",
    "datasets.MetricLearningSplit": "a record",
    "datasets.Photograph": "a record",
    "datasets.SkippedFile": "a record",
    "training.History": "a record",
    "training.NonFiniteLossError": "an error",
}
