"""Distillation of similarities into short vectors: (SS)2D for all sizes at once, SSD for each alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_flag, check_number
from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.projections._rows import Rows
from retrieval_geometry.projections._trained import References, TrainedProjection, seeded_modules
from retrieval_geometry.projections.nested import check_sizes, nested_similarity_loss

BATCH = 1024


class SS2D(TrainedProjection):
    """Single-shot similarity space distillation: a network each prefix of whose output is an embedding.

    It is trained so that in the first m coordinates, for each of the sizes, references are as similar as in
    the teacher: by :func:`nested_similarity_loss`, over the number of rows and of sizes.

    Source: [ae-svc] section 3.2, eqs. 6 and 7, erratum 4.5. Used in no chapter.

    The network maps ``(n, d)`` to ``(n, max(sizes))``. The teacher is the input itself, such as the latent
    vectors of :class:`AESVC` in a pipeline; ``fit(X, teacher)`` takes another one, so that the network maps
    raw embeddings to what was learnt from better ones. The paper says nothing of the network; here it is that
    of an encoder, and linear with ``depth=1``.

    Args:
        sizes: of the embeddings, ascending, at most d.
        temperature: of the softmax over a row of cosines.
        reverse: KL(teacher || student).
        hidden: width of the inner layers; by default half of input and output size together.
        depth: layers.
        activation: ``"relu"`` or ``"identity"``.
        standardize: bring each coordinate of the input to mean 0 and variance 1 first.
        batch_size: references whose similarities are compared, by default 1,024.
        lr: learning rate of Adam.
        epochs: passes over the references, at most.
        patience: epochs without a new lowest held-out value after which training ends.
        held_out: share of the references that is held out.
        device: where it is trained; by default where the references are.
        threads: of the CPU.
        random_state: seed of weights, batches and the held-out share.

    Attributes:
        sizes_: the sizes.
        history_: ``train`` and ``held_out``, the loss in each epoch.

    Raises:
        ValueError: on ``fit``, sizes that are out of range, unsorted or repeated, fewer than four references,
            a teacher of another number of rows, NaN or infinity, settings out of range, or a loss that is no
            longer finite.

    Example:
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> model = SS2D([2, 4], epochs=2).fit(x)
        >>> model.transform(x).shape, model.transform(x, size=2).shape
        (torch.Size([64, 4]), torch.Size([64, 2]))
    """

    stored = (*TrainedProjection.stored, "sizes_")
    sizes_: tuple[int, ...]

    def __init__(
        self,
        sizes: Sequence[int],
        temperature: float = 0.05,
        reverse: bool = False,
        hidden: int | None = None,
        depth: int = 3,
        activation: str = "relu",
        standardize: bool = False,
        batch_size: int | None = None,
        lr: float = 1e-3,
        epochs: int = 200,
        patience: int = 20,
        held_out: float = 0.1,
        device: str | None = None,
        threads: int | None = 1,
        random_state: int = 0,
    ) -> None:
        self.sizes = sizes
        self.temperature = temperature
        self.reverse = reverse
        self.hidden = hidden
        self.depth = depth
        self.activation = activation
        self.standardize = standardize
        self.batch_size = batch_size
        self.lr = lr
        self.epochs = epochs
        self.patience = patience
        self.held_out = held_out
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on references ``(n, d)``; ``y`` are the teacher's embeddings, by default ``X``."""
        sizes = check_sizes(self.sizes)
        check_number(self.temperature, "temperature", at_least=1e-3, at_most=1e6)
        check_flag(self.reverse, "reverse")
        references = References(X, self)
        check_sizes(sizes, references.rows.dim)
        teacher = references.rows if y is None else Rows(y, "y (the teacher)")
        _check_teacher(teacher, references.rows.n)
        references.set_batch(self.batch_size, BATCH)
        encoder = seeded_modules(self, lambda: self._layers(references.rows.dim, sizes[-1]), references)

        def loss(indices: Tensor) -> Tensor:
            target = teacher.take(indices).to(references.device, references.rows.dtype)
            found = encoder(references.take(indices))
            total = nested_similarity_loss(found, target, sizes, self.temperature, self.reverse)
            return total / (len(sizes) * len(indices))

        def held_out() -> Tensor:
            parts = _even_parts(references.held, references.batch)
            return torch.stack([loss(part) * len(part) for part in parts]).sum() / len(references.held)

        def terms(batches: list[Tensor]) -> Iterator[tuple[Tensor, bool]]:
            return ((loss(indices), True) for indices in batches)

        with cpu_threads(self.threads):
            history = self._train(encoder, references, terms, held_out)
        self._hold(references, encoder)
        self.sizes_, self.history_ = sizes, history
        return self

    def transform(self, X: Any, out: Any = None, size: int | None = None) -> Any:
        """Project embeddings ``(n, d)`` to the largest of the sizes, or cut them to another.

        Args:
            X: as of any projection.
            out: ``(n, size)``, to write to.
            size: one of the sizes.

        Raises:
            ValueError: as of any projection, or a size that was not trained.
        """
        rows = self._opened(X)
        width = check_trained(size, self.sizes_)
        return rows.mapped(lambda block: self._project(block)[:, :width], width, out)

    def _rebuild(self) -> None:
        self.encoder_ = self._layers(self.n_features_in_, self.sizes_[-1])

    def _width(self) -> int:
        return self.sizes_[-1]


class SSD(SS2D):
    """Similarity space distillation with a model for each size: the bound that (SS)2D is measured against.

    Source: [ae-svc] section 5.1. Used in no chapter.

    ``transform(X, size=m)`` gives ``(n, m)``, the embeddings of the model of that size. Each is an
    :class:`SS2D` of one size, and costs as much as all sizes of that together.

    Args:
        sizes: of the embeddings, ascending, at most d.
        temperature: of the softmax over a row of cosines.
        reverse: KL(teacher || student).
        hidden: width of the inner layers.
        depth: layers.
        activation: ``"relu"`` or ``"identity"``.
        standardize: bring each coordinate of the input to mean 0 and variance 1 first.
        batch_size: references whose similarities are compared.
        lr: learning rate of Adam.
        epochs: passes over the references, at most.
        patience: epochs without a new lowest held-out value after which training ends.
        held_out: share of the references that is held out.
        device: where it is trained.
        threads: of the CPU.
        random_state: seed of weights, batches and the held-out share.

    Attributes:
        models_: the models, by ascending size.
        sizes_: the sizes.

    Raises:
        ValueError: on ``fit``, as :class:`SS2D`.

    Example:
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> SSD([2, 4], epochs=2).fit(x).transform(x, size=2).shape
        torch.Size([64, 2])
    """

    stored = ("n_features_in_", "sizes_", "models_")
    models_: list[SS2D]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train a model of each size, one after the other."""
        sizes = check_sizes(self.sizes)
        settings = {name: value for name, value in self.get_params(deep=False).items() if name != "sizes"}
        check_sizes(sizes, Rows(X).dim)
        models = [SS2D([size], **settings).fit(X, y) for size in sizes]
        self.models_, self.sizes_ = models, sizes
        self.n_features_in_ = models[0].n_features_in_
        return self

    def transform(self, X: Any, out: Any = None, size: int | None = None) -> Any:
        """Project embeddings ``(n, d)`` by the model of a size, the largest by default.

        Raises:
            ValueError: as of any projection, or a size that was not trained.
        """
        self._opened(X)
        width = check_trained(size, self.sizes_)
        return self.models_[self.sizes_.index(width)].transform(X, out)

    def _rebuild(self) -> None:
        pass  # its models are files of their own inside its file


def check_trained(size: int | None, sizes: tuple[int, ...]) -> int:
    """The size that is asked for, by default the largest.

    Raises:
        ValueError: none of the sizes.
    """
    if size is None:
        return sizes[-1]
    if check_count(size, "size") not in sizes:
        raise ValueError(f"size must be one of the trained sizes {list(sizes)}, got {size}")
    return size


def _check_teacher(teacher: Rows, n: int) -> None:
    """Refuse a teacher of other images, or with a vector that has no cosine."""
    if teacher.n != n:
        raise ValueError(f"{teacher.name} must have a row for each of the {n} references, got {teacher.n}")
    for piece, block in teacher.blocks("reading the teacher"):
        empty = (block == 0).all(dim=1).nonzero().flatten().tolist()
        if empty:
            row = piece.start + empty[0]
            raise ValueError(f"{teacher.name} of row {row} is zero and has no direction; remove that row")


def _even_parts(indices: Tensor, most: int) -> tuple[Tensor, ...]:
    """As few parts of about equal size as ``most`` allows, so that none is left with a single row."""
    return indices.tensor_split(-(-len(indices) // max(most, 2)))
