"""Entropic transport costs between point sets, for lists of pairs of sets, with their gradients."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._memory import how_many
from retrieval_geometry._tolerances import COST_SPAN, EQUAL_POINTS, LARGE_EPSILON, MARGINALS
from retrieval_geometry.distances._entropic import optimal_potentials
from retrieval_geometry.distances._gaussians import safe_sqrt

COST_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Bytes of one cost matrix in a chunk of problems: a CPU's cache, or a share of a GPU's memory."""


class PointTransport(torch.autograd.Function):
    """Costs ``(B,)`` in float64 of the sets ``x[left]``, ``y[right]`` with masses ``a[left]``, ``b[right]``.

    By the envelope theorem the gradient is that of the cost of the optimal plan, held fixed, for the points,
    and the optimal potentials for the masses: nothing is differentiated through the iterations.

    Raises:
        ValueError: the costs of a pair span more than 1e12 times epsilon; the sets are named.

    Args of ``apply``:
        x: ``(P, n, d)``; y: ``(Q, m, d)``; a: ``(P, n)`` and b: ``(Q, m)`` in float64.
        left, right: ``(B,)`` indices.
        p: 1 or 2; epsilon: above 0.
        symmetric: each set is compared with itself; then ``y`` and ``b`` get no gradient of their own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        a: Tensor,
        b: Tensor,
        left: Tensor,
        right: Tensor,
        p: int,
        epsilon: float,
        symmetric: bool,
    ) -> Tensor:
        n_pairs, n, m = len(left), x.shape[1], y.shape[1]
        f, g, values = a.new_empty(n_pairs, n), a.new_empty(n_pairs, m), a.new_empty(n_pairs)
        points_move = any(ctx.needs_input_grad[:2])
        weights = x.new_empty(n_pairs, n, m) if points_move else x.new_empty(0)
        # The error of a value is of second order in that of the columns: float64 keeps all its digits.
        tolerance = MARGINALS[x.dtype]

        def solve(part: slice) -> None:
            cost = pair_costs(x, y, left[part], right[part], p, symmetric)
            span = _checked_span(cost, epsilon, left[part], right[part])
            row_masses, column_masses = a[left[part]], b[right[part]]
            f[part], g[part], plan = optimal_potentials(
                cost, row_masses, column_masses, epsilon, tolerance, symmetric
            )
            # At the optimum the primal value is <a, f> + <b, g>.
            dual = (row_masses * f[part]).sum(dim=1) + (column_masses * g[part]).sum(dim=1)
            values[part] = _bounded(dual, cost, row_masses, column_masses, epsilon, span)
            if points_move:
                plan.mul_(row_masses.unsqueeze(2))
                # d |x - y|^p: 2 (x - y) for p = 2, (x - y) / |x - y| for p = 1, and 0 where x is y.
                weights[part] = 2 * plan if p == 2 else torch.where(cost > 0, plan / cost, 0.0)

        in_chunks(solve, n_pairs, 8 * n * m, x.device)
        ctx.save_for_backward(x, y, left, right, f, g, weights)
        ctx.symmetric = symmetric
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, left, right, f, g, weights = ctx.saved_tensors
        to_x, to_y, to_a, to_b = ctx.needs_input_grad[:4]
        grad_x = torch.zeros_like(x) if to_x else None
        grad_y = torch.zeros_like(y) if to_y and not ctx.symmetric else None
        if grad_x is not None:
            _add_pulls(x, y, left, right, weights, grad, grad_x)
        if grad_y is not None:
            _add_pulls(y, x, right, left, weights.mT, grad, grad_y)
        if ctx.symmetric and grad_x is not None:
            grad_x = 2 * grad_x  # x stands on both sides of a symmetric cost
        grad = grad.unsqueeze(1)
        # Envelope theorem: the potentials are the gradient for the masses.
        grad_a = f.new_zeros(len(x), f.shape[1]).index_add_(0, left, grad * f) if to_a else None
        grad_b = g.new_zeros(len(y), g.shape[1]).index_add_(0, right, grad * g) if to_b else None
        return grad_x, grad_y, grad_a, grad_b, None, None, None, None, None


def _checked_span(cost: Tensor, epsilon: float, left: Tensor, right: Tensor) -> Tensor:
    """The ranges ``(B,)`` of the costs of each pair of sets."""
    least, most = cost.flatten(1).aminmax(dim=1)
    span = most - least
    wrong = ~(span <= COST_SPAN * epsilon)
    if wrong.any():
        pair = int(wrong.nonzero()[0])
        raise ValueError(
            f"epsilon must be at least {1 / COST_SPAN:g} of the range of the costs, got {epsilon:g} for "
            f"costs that span {float(span[pair]):.3g} between set {int(left[pair])} of x and set "
            f"{int(right[pair])} of y; raise epsilon, or bring the points to a smaller scale"
        )
    return span


def _bounded(dual: Tensor, cost: Tensor, a: Tensor, b: Tensor, epsilon: float, span: Tensor) -> Tensor:
    r"""The values ``(B,)``, inside their bounds where epsilon is so large that it magnifies rounding.

    .. math:: \langle ab^\top, C \rangle - \frac{(\max C - \min C)^2}{8 \varepsilon}
              \le \mathrm{OT}_\varepsilon \le \langle ab^\top, C \rangle

    The product of the masses is a plan; without marginals the minimum is a cumulant of the costs, and
    Hoeffding's lemma bounds it.
    """
    large = epsilon > LARGE_EPSILON * span
    if not large.any():
        return dual
    mean = torch.einsum("bi,bij,bj->b", a, cost, b)
    return torch.where(large, torch.clamp(dual, mean - span * (span / epsilon) / 8, mean), dual)


def _add_pulls(
    x: Tensor, y: Tensor, left: Tensor, right: Tensor, weights: Tensor, grad: Tensor, grad_x: Tensor
) -> None:
    """Add sum_j w_ij (x_i - y_j) of each pair of sets, times its ``grad``, to the gradient of each x_i."""
    if x.device.type != "cpu":  # GPU: products of matrices instead of a loop
        add_pulls_by_products(x, y, left, right, weights, grad, grad_x)
        return
    from retrieval_geometry.distances._entropic_kernels import add_pulls  # numba is slow to import

    add_pulls(
        *(t.detach().contiguous().numpy() for t in (x, y, left, right)),
        weights.numpy(),
        *(t.contiguous().numpy() for t in (grad, grad_x)),
    )


def add_pulls_by_products(
    x: Tensor, y: Tensor, left: Tensor, right: Tensor, weights: Tensor, grad: Tensor, grad_x: Tensor
) -> None:
    """Do the same for many pairs at once, on any device."""
    chunk = chunk_size(8 * weights.shape[1] * weights.shape[2], x.device)
    for start in range(0, len(left), chunk):
        part = slice(start, start + chunk)
        own, other = x[left[part]], y[right[part]]
        centre = other.mean(dim=1, keepdim=True)  # small sets far from the origin lose no digits
        own, other = own - centre, other - centre
        w = weights[part] * grad[part].to(x.dtype).view(-1, 1, 1)
        grad_x.index_add_(0, left[part], torch.baddbmm(w.sum(dim=2, keepdim=True) * own, w, other, alpha=-1))


def pair_costs(x: Tensor, y: Tensor, left: Tensor, right: Tensor, p: int, symmetric: bool) -> Tensor:
    """Distances to the power p ``(B, n, m)`` in float64 of the points of each pair of sets; no gradient."""
    if x.device.type != "cpu":  # GPU: products of matrices instead of a loop
        return pair_costs_by_products(x, y, left, right, p)
    from retrieval_geometry.distances._entropic_kernels import point_costs

    cost = torch.empty(len(left), x.shape[1], y.shape[1], dtype=torch.float64)
    arrays = (t.detach().contiguous().numpy() for t in (x, y, left, right))
    point_costs(*arrays, p == 2, symmetric, cost.numpy())
    return cost


def pair_costs_by_products(x: Tensor, y: Tensor, left: Tensor, right: Tensor, p: int) -> Tensor:
    """Compute the same costs for many pairs at once, on any device."""
    own, other = x[left].double(), y[right].double()
    centre = own.mean(dim=1, keepdim=True)
    own, other = own - centre, other - centre
    # |x|^2 + |y|^2 - 2 x y about the mean of the set: the terms are no larger than the set is wide.
    size = own.square().sum(dim=2).unsqueeze(2) + other.square().sum(dim=2).unsqueeze(1)
    square = torch.baddbmm(size, own, other.mT, alpha=-2)
    # What is left of equal points is rounding, and its root would be a distance of 1e-8.
    square = torch.where(square > EQUAL_POINTS * size, square, 0.0)
    return square if p == 2 else safe_sqrt(square)


def chunk_size(bytes_each: int, device: torch.device) -> int:
    """Number of problems of so many bytes that are solved at once."""
    return how_many(bytes_each, COST_BYTES.get(device.type, 2**28))


def in_chunks(work: Callable[[slice], None], count: int, bytes_each: int, device: torch.device) -> None:
    """Do ``work`` for all of ``count`` problems, in chunks; on a CPU several side by side."""
    size = chunk_size(bytes_each, device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads > 1 and count > 1:
        size = min(size, -(-count // threads))
    parts = [slice(start, start + size) for start in range(0, count, size)]
    if threads == 1 or len(parts) < 2:
        for part in parts:
            work(part)
        return
    grad = torch.is_grad_enabled()

    def work_alike(part: slice) -> None:
        # A new thread records gradients, whatever the one that started it does.
        with torch.set_grad_enabled(grad):
            work(part)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work_alike, parts))
