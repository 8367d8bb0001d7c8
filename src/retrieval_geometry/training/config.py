"""Settings of a training run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count, check_flag, check_number
from retrieval_geometry.training._affine import inverse_maps, warp

OPTIMIZERS = ("adam", "adamw", "sgd")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the images of a batch; by default there are none. Used in chapter 10.

    Attributes:
        shift: largest move of an image in each direction, in pixels. The image itself comes into view where
            it is larger than the network's input, otherwise its edge repeated. 16 pixels at an input size of
            224 are the usual random crop out of 256.
        flip: mirror every second image, at random, left to right.
        rotation: largest turn of an image about its middle, either way, in degrees.
        shear: largest angle by which its upright lines come to lean, either way, in degrees.
        scale: an image grows or shrinks by a factor of up to ``1 + scale``.

    Raises:
        ValueError: a shift below 0 or no whole number, a flip that is no truth value, or a rotation, a shear
            or a scale out of its range.
    """

    shift: int = 0
    flip: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        check_count(self.shift, "shift", at_least=0)
        check_flag(self.flip, "flip")
        check_number(self.rotation, "rotation (degrees)", at_least=0, at_most=180)
        check_number(self.shear, "shear (degrees)", at_least=0, at_most=60)
        check_number(self.scale, "scale", at_least=0, at_most=1)

    def apply(self, images: Tensor, generator: torch.Generator, share: slice, batch_size: int) -> Tensor:
        """Change ``(B, 3, S + 2 shift, S + 2 shift)``, a share of a batch, into ``(B, 3, S, S)``.

        The numbers are drawn for the whole batch: the change of an image does not depend on how the batch is
        shared out.
        """
        # One corner and one coin for every image of the whole batch, then this share of them.
        corners = torch.randint(0, 2 * self.shift + 1, (batch_size, 2), generator=generator)[share]
        mirrored = (torch.rand(batch_size, generator=generator) < 0.5)[share]
        if self.rotation or self.shear or self.scale:
            draws = (2 * torch.rand(batch_size, 3, generator=generator) - 1)[share]
            images = warp(images, inverse_maps(draws, self.rotation, self.shear, self.scale))
        side = images.shape[-1] - 2 * self.shift
        if self.shift:
            places = zip(images, corners.tolist(), strict=True)
            images = torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in places])
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images) if self.flip else images


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Used in chapters 10 and 11.

    Attributes:
        steps: updates of the network.
        batch_size: images in a batch, over all processes together.
        per_class: images of one class in a batch.
        lr: learning rate of the head.
        trunk_lr_factor: learning rate of the trunk over it; 0.01 is usual for pre-trained filters.
        objective_lr: learning rate of the objective's own parameters, such as proxies.
        lr_drops: steps from which on all learning rates are a tenth of those before.
        weight_decay: of the network; the objective's parameters have none.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"`` (with momentum 0.9).
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``; the objective always sees float32.
        augment: random changes of the images.
        seed: of batches, augmentation and whatever the objective draws.
        checkpoint_every: steps between checkpoints, if a checkpoint is asked for.
        validate_every: steps between validations, if there is a function to validate with.
        patience: stop after so many validations in a row without a new best value.
        accelerator: ``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"``, or ``"mps"``,
            which has no double precision: losses that need it fail there.
        threads: of each process on the CPU, while it trains; sums in floating point follow their number, and
            so does the model. One by default: the same model whatever the processor. None: as many as torch
            uses, which is faster for a large network.

    Raises:
        ValueError: a setting out of its range.
    """

    steps: int
    batch_size: int = 96
    per_class: int = 4
    lr: float = 1e-3
    trunk_lr_factor: float = 1.0
    objective_lr: float = 1e-3
    lr_drops: tuple[int, ...] = ()
    weight_decay: float = 0.0
    optimizer: str = "adam"
    precision: str = "32-true"
    augment: Augmentation = Augmentation()
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: int = 200
    patience: int = 5
    accelerator: str = "auto"
    threads: int | None = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "per_class", "checkpoint_every", "validate_every", "patience"):
            check_count(getattr(self, name), name)
        for name in ("lr", "trunk_lr_factor", "objective_lr"):
            check_number(getattr(self, name), name, above=0)
        if self.threads is not None:
            check_count(self.threads, "threads")
        check_number(self.weight_decay, "weight_decay", at_least=0)
        check_count(self.seed, "seed", at_least=0)
        if not isinstance(self.lr_drops, tuple | list):
            raise ValueError(f"lr_drops must be a tuple of steps such as (3000,), got {self.lr_drops!r}")
        for step in self.lr_drops:
            check_count(step, "lr_drops", at_least=1)
        if not isinstance(self.augment, Augmentation):
            raise ValueError(f"augment must be an Augmentation, got {type(self.augment).__name__}")
        check_choice(self.optimizer, "optimizer", OPTIMIZERS)
        check_choice(self.precision, "precision", PRECISIONS)
        check_choice(self.accelerator, "accelerator", ("auto", "cpu", "cuda", "mps"))

    def lr_scale(self, step: int) -> float:
        """The factor of all learning rates at a step.

        Example:
            >>> round(TrainingConfig(steps=9, lr_drops=(3, 6)).lr_scale(4), 6)
            0.1
        """
        return 0.1 ** sum(step >= drop for drop in self.lr_drops)
