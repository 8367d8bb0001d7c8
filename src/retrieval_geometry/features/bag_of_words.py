"""The baseline of [geometric]: a histogram of visual words, counted over SIFT keypoints."""

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import check_choice, check_count, check_kind, check_shape
from retrieval_geometry.datasets import ImageSet

if TYPE_CHECKING:
    from sklearn.cluster import MiniBatchKMeans


class SiftBagOfWords:
    """Histograms of visual words: counts of ``n_words`` typical SIFT descriptors in an image.

    Source: [geometric] section 3 (the baseline); Sivic and Zisserman 2003, Lowe 2004. Used in chapter 4.

    The words are the centres of a mini-batch k-means over the descriptors of the images given to :meth:`fit`.
    SIFT works on the grey image at its own size. It finds no keypoint in a flat image, whose histogram is
    therefore zero: equal to that of other flat images, equally far from all others.

    Args:
        n_words: size of the vocabulary.
        norm: length of a histogram that is set to one: ``"l2"`` or ``"l1"`` (a relative frequency).
        max_descriptors: at most about so many enter the k-means, drawn evenly from the images.
        seed: of the draw and of the k-means.
        progress: show a bar, in a terminal.

    Raises:
        ValueError: a size below one or an unknown norm.

    Example:
        >>> from retrieval_geometry.datasets import photo_textures
        >>> images = photo_textures().subset(range(48))
        >>> SiftBagOfWords(20, progress=False).fit(images).transform(images).shape
        torch.Size([48, 20])
    """

    def __init__(
        self,
        n_words: int = 500,
        norm: str = "l2",
        max_descriptors: int = 200_000,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.n_words = check_count(n_words, "n_words")
        self.norm = check_choice(norm, "norm", ("l1", "l2"))
        self.max_descriptors = check_count(max_descriptors, "max_descriptors")
        self.seed, self.progress = check_count(seed, "seed", at_least=0, at_most=2**32 - 1), progress
        self._clusters: MiniBatchKMeans | None = None

    @property
    def words(self) -> Tensor:
        """The vocabulary, ``(n_words, 128)``.

        Raises:
            ValueError: :meth:`fit` has not been called.
        """
        return torch.from_numpy(self._fitted().cluster_centers_)

    def fit(self, images: ImageSet) -> "SiftBagOfWords":
        """Find the words.

        Raises:
            ValueError: fewer descriptors than words in all the images.
        """
        from sklearn.cluster import MiniBatchKMeans  # slow to import

        check_kind(images, "images", ImageSet)
        generator = np.random.default_rng(self.seed)
        share = math.ceil(self.max_descriptors / max(len(images), 1))
        drawn = []
        for i in self._positions(images, "vocabulary"):
            found = sift_descriptors(images.load(i))
            drawn.append(generator.permutation(found)[:share])
        samples = np.concatenate([*drawn, np.empty((0, 128), np.float32)])
        if len(samples) < self.n_words:
            raise ValueError(
                f"n_words = {self.n_words} needs as many SIFT descriptors, but the {len(images)} images of "
                f"{images.name} have {len(samples)}; ask for fewer words or give more images"
            )
        self._clusters = MiniBatchKMeans(
            self.n_words, random_state=self.seed, batch_size=4096, n_init=3, reassignment_ratio=0.01
        ).fit(samples)
        return self

    def transform(self, images: ImageSet) -> Tensor:
        """Count the words: ``(n, n_words)`` float32, each row of norm one, or zero without a keypoint.

        Raises:
            ValueError: :meth:`fit` has not been called.
        """
        clusters = self._fitted()
        check_kind(images, "images", ImageSet)
        histograms = torch.zeros(len(images), self.n_words)
        for i in self._positions(images, "histograms"):
            found = sift_descriptors(images.load(i))
            if len(found):
                counts = np.bincount(clusters.predict(found), minlength=self.n_words)
                histograms[i] = torch.from_numpy(counts)
        length = histograms.norm(p=int(self.norm[1]), dim=1, keepdim=True)
        return histograms / length.clamp(min=1)

    def _positions(self, images: ImageSet, task: str) -> tqdm:
        return tqdm(
            range(len(images)), desc=f"SIFT {task}", unit="image", disable=None if self.progress else True
        )

    def _fitted(self) -> "MiniBatchKMeans":
        if self._clusters is None:
            raise ValueError("there are no words yet: call fit before transform")
        return self._clusters


def sift_descriptors(image: Tensor) -> np.ndarray:
    """Compute the SIFT descriptors of a uint8 RGB image ``(3, H, W)``: ``(keypoints, 128)`` float32.

    Raises:
        ValueError: not a uint8 tensor of shape ``(3, H, W)``.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be uint8 (3, H, W), got {image.dtype} of shape {tuple(image.shape)}")
    check_shape(image, "image", (3, "height", "width"))
    grey = cv2.cvtColor(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY)
    _, found = cv2.SIFT.create().detectAndCompute(grey, None)
    return np.empty((0, 128), np.float32) if found is None else found
