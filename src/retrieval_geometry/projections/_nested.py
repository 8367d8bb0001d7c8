"""The nested loss and its gradient, tile after tile: each size adds the products of its own columns."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrieval_geometry._memory import how_many
from retrieval_geometry._tolerances import ZERO_LENGTH

TILE_BYTES = 2**20
"""Of a tile of the Gram matrix: smaller ones make products slow, larger ones leave a processor's cache."""

HELD_BYTES = 2**28
"""Of a tile's gradients of all sizes."""


class Task(NamedTuple):
    """What is computed: sizes, temperature, direction, and rows of a tile (None: by memory)."""

    sizes: tuple[int, ...]
    temperature: float
    reverse: bool
    tile: int | None


def scaled(x: Tensor, name: str, sizes: tuple[int, ...]) -> Tensor:
    """Rows of length one; no cosine notices, and squares of what is very large or small stay numbers.

    Raises:
        ValueError: a prefix is zero, or vanishes beside the whole row.
    """
    unit = x / x.detach().abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    unit = unit / unit.detach().norm(dim=1, keepdim=True).clamp(min=ZERO_LENGTH)
    lengths = prefix_squares(unit.detach(), sizes)
    bad = (lengths < ZERO_LENGTH**2).nonzero()
    if len(bad):
        row, size = bad[0].tolist()
        raise ValueError(
            f"{name} of row {row} has no direction in its first {sizes[size]} coordinates; remove that row"
        )
    return unit


def prefix_squares(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Squared lengths of the prefixes ``(n, K)``."""
    parts = [x[:, a:b].square().sum(dim=1) for a, b in zip((0, *sizes), sizes, strict=False)]
    return torch.stack(parts, dim=1).cumsum(dim=1)


class NestedDivergence(torch.autograd.Function):
    """The loss of rows ``(n, d)`` of length one against a teacher ``(n, D)`` of length one."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, task: Task) -> Tensor:
        work = _Work(student.detach(), teacher, task, gradient=ctx.needs_input_grad[0])
        total = work.run()
        ctx.save_for_backward(*([] if work.gradient is None else [work.gradient]))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None


class _Work:
    """All tiles of one loss.

    For the size m: G is the Gram matrix of the first m columns, u = 1 / sqrt(diag G), logits
    L = G u u^T / t. With A = dKL/dL the gradient for the m columns S is (B + B^T - diag r) S, where
    B = A u u^T / t, and r_i = u_i^2 times the row sum and the column sum of B * G.
    """

    def __init__(self, student: Tensor, teacher: Tensor, task: Task, gradient: bool) -> None:
        self.x, self.teacher, self.task = student, teacher, task
        sizes = task.sizes
        self.columns = [slice(a, b) for a, b in zip((0, *sizes), sizes, strict=False)]
        self.scales = prefix_squares(student, sizes).rsqrt().T.contiguous()  # (K, n)
        self.gradient = torch.zeros_like(student) if gradient else None
        # Row sums and column sums of B * G, by size: the diagonal of the gradient.
        self.sums = torch.zeros_like(self.scales)

    def run(self) -> Tensor:
        n = len(self.x)
        total = torch.zeros((), dtype=self.x.dtype, device=self.x.device)
        tile = self.task.tile or self._tile_rows(n)
        for start in range(0, n, tile):
            total += self._tile(slice(start, min(start + tile, n)))
        if self.gradient is not None:
            # Of the largest size first: a column takes part in its own size and in all larger ones.
            weights = (self.sums * self.scales.square()).flip(0).cumsum(dim=0).flip(0)
            for k, columns in enumerate(self.columns):
                self.gradient[:, columns] -= weights[k][:, None] * self.x[:, columns]
        return total

    def _tile_rows(self, n: int) -> int:
        """Rows of a tile: as many as fit a processor's cache, but enough for fast products."""
        each = n * self.x.element_size()
        held = how_many(each * (len(self.columns) + 4), HELD_BYTES)
        return min(n, held if self.x.is_cuda else min(held, max(64, how_many(each, TILE_BYTES))))

    def _tile(self, rows: slice) -> Tensor:
        x, t, n = self.x, self.task.temperature, len(self.x)
        own = x[rows]
        diagonal = (torch.arange(len(own), device=x.device), torch.arange(n, device=x.device)[rows])
        target = self._target(rows, diagonal)
        gram = x.new_zeros(len(own), n)
        logits, spare = torch.empty_like(gram), torch.empty_like(gram)
        kept = x.new_empty((len(self.columns), len(own), n)) if self.gradient is not None else None
        total = x.new_zeros(())
        for k, columns in enumerate(self.columns):
            gram.addmm_(own[:, columns], x[:, columns].mT)
            left = (self.scales[k, rows] / t)[:, None]
            torch.mul(gram, self.scales[k], out=logits)
            logits.mul_(left)
            total += self._divergence(logits, spare, target, diagonal)
            if kept is None:
                continue
            # A is in `logits` now; B = A u u^T / t.
            b = torch.mul(logits, self.scales[k], out=kept[k]).mul_(left)
            torch.mul(b, gram, out=spare)
            self.sums[k] += spare.sum(dim=0)
            self.sums[k, rows] += spare.sum(dim=1)
        if kept is not None:
            self._collect(kept, rows)
        return total

    def _divergence(
        self, logits: Tensor, p: Tensor, target: Tensor, diagonal: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Sum over the rows of a tile; leaves in ``logits`` its derivative by the logits."""
        logits[diagonal] = -torch.inf
        top = logits.amax(dim=1, keepdim=True)
        torch.exp(logits.sub_(top), out=p)
        mass = p.sum(dim=1, keepdim=True)
        p.div_(mass)
        logits[diagonal] = 0  # there p is 0, and so is what follows
        logits.sub_(mass.log())
        if self.task.reverse:  # KL(q || p): the derivative is p - q
            q = target.exp()
            q[diagonal] = 0
            value = (q * (target - logits)).sum()
            torch.sub(p, q, out=logits)
            return value
        # KL(p || q): the derivative is p (log p - log q - KL).
        torch.mul(p, logits.sub_(target), out=logits)
        rows = logits.sum(dim=1, keepdim=True)
        logits.addcmul_(p, rows, value=-1)
        return rows.sum()

    def _target(self, rows: slice, diagonal: tuple[Tensor, Tensor]) -> Tensor:
        """Logarithms of the teacher's distributions, 0 on the diagonal."""
        logits = self.teacher[rows] @ self.teacher.mT / self.task.temperature
        logits[diagonal] = -torch.inf
        found = logits.log_softmax(dim=1)
        found[diagonal] = 0
        return found

    def _collect(self, kept: Tensor, rows: slice) -> None:
        """Put a tile's part of the gradient together, from the largest size down."""
        assert self.gradient is not None
        own, total = self.x[rows], torch.zeros_like(kept[0])
        for b, columns in zip(reversed(kept.unbind()), reversed(self.columns), strict=True):
            total += b
            self.gradient[rows, columns] += total @ self.x[:, columns]
            self.gradient[:, columns] += total.mT @ own[:, columns]
