"""Image sets: labelled images, read one at a time, the form of every data set in the package."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from retrieval_geometry._check import as_whole, check_kind


@dataclass(frozen=True)
class SkippedFile:
    """A file among images that could not be used as one. Used in chapter 91."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images that stay on disk until they are asked for. Used in chapter 1.

    Attributes:
        name: of the set, on pages and in results.
        labels: ``(n,)`` int64; ``classes[labels[i]]`` is the class of image i.
        classes: the names of the classes; a subset keeps them all.
        ids: n different names, stable from run to run, such as ``"brick/07"``.
        sha256: of the content (not of the decoded pixels, which may differ by a grey level between versions
            of an image library). A subset keeps it: it is told apart by its ids.
        read: turns an id into a uint8 RGB tensor ``(3, H, W)``.
        skipped: the files that were left out, and why.

    Raises:
        ValueError: labels, ids and classes do not belong together, or two images share an id.
    """

    name: str
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    sha256: str
    read: Callable[[str], Tensor]
    skipped: tuple[SkippedFile, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ids", "classes"):
            check_kind(getattr(self, name), name, tuple)
        if not callable(self.read):
            raise ValueError(f"read must turn an id into an image, got {type(self.read).__name__}")
        wanted = f"{len(self.ids)} int64 numbers, one per id"
        object.__setattr__(self, "labels", as_whole(self.labels, "labels", wanted))
        if self.labels.shape != (len(self.ids),):
            raise ValueError(f"labels must be {wanted}, got shape {tuple(self.labels.shape)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}, the numbers of the classes")
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for i, name in enumerate(self.ids) if name in self.ids[:i])
            raise ValueError(f"ids must differ from each other, but {twice!r} stands there twice")

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Tensor:
        """Read image i: uint8 RGB, ``(3, H, W)``.

        Raises:
            IndexError: there is no image i.
        """
        position = operator.index(i)
        if not -len(self) <= position < len(self):
            raise IndexError(f"image {position} asked for, but {self.name} holds {len(self)}")
        return self.read(self.ids[position])

    def subset(self, indices: Tensor | Sequence[int]) -> "ImageSet":
        """Keep the images at ``indices``, in that order; the classes keep their numbers.

        Raises:
            ValueError: ``indices`` is not a one-dimensional list of integers (a mask is turned into one by
                ``mask.nonzero()[:, 0]``), or names an image twice.
            IndexError: there is no image at one of them.
        """
        wanted = "a list of integers"
        picked = as_whole(indices, "indices", wanted, truth_values=False).cpu()
        if picked.ndim != 1:
            raise ValueError(f"indices must be {wanted}, got shape {tuple(picked.shape)}")
        outside = picked[(picked < -len(self)) | (picked >= len(self))]
        if len(outside):
            raise IndexError(f"image {int(outside[0])} asked for, but {self.name} holds {len(self)}")
        return replace(self, labels=self.labels[picked], ids=tuple(self.ids[i] for i in picked.tolist()))
