"""Training of embedding networks on one or several devices, and embedding of image sets."""

from retrieval_geometry.training.config import Augmentation, TrainingConfig
from retrieval_geometry.training.embedding import embed, stack_images
from retrieval_geometry.training.loop import History, NonFiniteLossError, train

__all__ = [
    "Augmentation",
    "History",
    "NonFiniteLossError",
    "TrainingConfig",
    "embed",
    "stack_images",
    "train",
]
