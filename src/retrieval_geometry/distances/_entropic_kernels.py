r"""Compiled loops of entropic transport on the CPU: costs, their gradient, and scaling with Newton's method.

One problem after the other, so that all of it stays in the innermost cache; see :mod:`._entropic` for the
method. Problems that these loops do not solve are left to the steps there. Of the kernel
:math:`K = e^{-C / \varepsilon}` the plan is :math:`a_i b_j u_i K_{ij} v_j`; with ``*`` and ``/`` by entries::

    Sinkhorn's iterations (Peyre and Cuturi 2019, eq. 4.15), until the columns are near or ten are done:
    1   u <- 1 / K (b * v)                      the rows have their masses
    2   c <- K' (a * u)                         the masses of the columns are b * v * c
    3   v <- 1 / c                              the columns have theirs
    Newton's method in log v (Brauer et al. 2017), u by line 1; Nocedal and Wright 2006, algorithm 7.1:
    4   W <- diag(a)^(1/2) diag(u) K diag(b * v) diag(s),   s = (b * v * c)^(-1/2)
    5   z <- (I - W'W)^-1 s * (b - b * v * c)   conjugate gradients, algorithm 5.2
    6   t <- 1, or 8 over the range of s * z; halved until the dual grows enough, algorithm 3.1
    7   v <- v * exp(t s * z);  lines 1 and 2;  again from line 4 until the columns have their masses
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval_geometry._compiled import FREE_ORDER, Floats, Integers, compiled

SWEEPS = 10
NEWTON_STEPS = 30
HALVINGS = 12


class Problem(NamedTuple):
    """One problem and its solution."""

    kernel: Floats
    """``(n, m)``, K."""
    a: Floats
    """``(n,)``, the masses of the rows."""
    b: Floats
    """``(m,)``, the masses of the columns."""
    u: Floats
    """``(n,)``."""
    v: Floats
    """``(m,)``."""
    tolerance: float
    """Of the masses of the columns, in L1."""


class Workspace(NamedTuple):
    """What all problems use one after the other."""

    mass: Floats
    """``(m,)``, b * v."""
    columns: Floats
    """``(m,)``, c."""
    trial: Floats
    """``(n,)``, u while t is tried."""
    step: Floats
    """``(m,)``, s, then s * z."""
    solution: Floats
    """``(m,)``, z."""
    residual: Floats
    """``(m,)``."""
    direction: Floats
    """``(m,)``."""
    image: Floats
    """``(m,)``, of the direction."""
    weighted: Floats
    """``(n, m)``, W."""


@compiled(FREE_ORDER)
def point_costs(
    x: NDArray[Any],
    y: NDArray[Any],
    left: Integers,
    right: Integers,
    squared: bool,
    symmetric: bool,
    out: Floats,
) -> None:
    """Distances ``out (B, n, m)`` of the points of x[left[k]] and y[right[k]], or their squares.

    From the differences of coordinates: near points are as exact as far ones.
    """
    n, m, d = x.shape[1], y.shape[1], x.shape[2]
    flipped, total = np.empty((d, m), y.dtype), np.empty(m, y.dtype)
    for k in range(len(left)):
        p, q, cost = x[left[k]], y[right[k]], out[k]
        for t in range(d):
            for j in range(m):
                flipped[t, j] = q[j, t]
        for i in range(n):
            first = i if symmetric else 0
            columns, sums, row = flipped[:, first:], total[first:], cost[i, first:]
            sums[:] = 0
            whole = d - d % 4  # four coordinates at a time, so that the sums are stored less often
            for t in range(0, whole, 4):
                a, b, c, e = p[i, t], p[i, t + 1], p[i, t + 2], p[i, t + 3]
                for j in range(len(sums)):
                    sums[j] += (
                        (a - columns[t, j]) ** 2
                        + (b - columns[t + 1, j]) ** 2
                        + (c - columns[t + 2, j]) ** 2
                        + (e - columns[t + 3, j]) ** 2
                    )
            for t in range(whole, d):
                for j in range(len(sums)):
                    sums[j] += (p[i, t] - columns[t, j]) ** 2
            for j in range(len(sums)):
                row[j] = sums[j] if squared else math.sqrt(sums[j])
        if symmetric:
            for i in range(n):
                for j in range(i):
                    cost[i, j] = cost[j, i]


@compiled(FREE_ORDER)
def add_pulls(
    x: NDArray[Any],
    y: NDArray[Any],
    left: Integers,
    right: Integers,
    weights: NDArray[Any],
    grad: Floats,
    grad_x: NDArray[Any],
) -> None:
    """Add grad[k] sum_j weights[k, i, j] (x_i - y_j), for the pair of sets k, to the gradient of x_i.

    From the differences of coordinates: weights are large between near points, and would magnify rounding.
    """
    n, m, d = x.shape[1], y.shape[1], x.shape[2]
    pull = np.empty(d, x.dtype)
    for k in range(len(left)):
        p, q, w, target = x[left[k]], y[right[k]], weights[k], grad_x[left[k]]
        for i in range(n):
            pull[:] = 0
            whole = m - m % 4
            for j in range(0, whole, 4):
                a, b, c, e = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
                for t in range(d):
                    z = p[i, t]
                    pull[t] += (
                        a * (z - q[j, t])
                        + b * (z - q[j + 1, t])
                        + c * (z - q[j + 2, t])
                        + e * (z - q[j + 3, t])
                    )
            for j in range(whole, m):
                for t in range(d):
                    pull[t] += w[i, j] * (p[i, t] - q[j, t])
            for t in range(d):
                target[i, t] += grad[k] * pull[t]


@compiled(FREE_ORDER)
def solve_plans(
    kernel: Floats,
    a: Floats,
    b: Floats,
    symmetric: bool,
    tolerance: float,
    u: Floats,
    v: Floats,
    error: Floats,
) -> None:
    """Scalings u ``(B, n)``, v ``(B, m)`` of kernels ``(B, n, m)``, which become plans over their row masses.

    ``error (B,)`` is the L1 distance of the column masses from b; NaN where the numbers left their range.
    """
    n, m = kernel.shape[1], kernel.shape[2]
    work = Workspace(
        np.empty(m),
        np.empty(m),
        np.empty(n),
        np.empty(m),
        np.empty(m),
        np.empty(m),
        np.empty(m),
        np.empty(m),
        np.empty((n, m)),
    )
    for k in range(len(kernel)):
        problem = Problem(kernel[k], a[k], b[k], u[k], v[k], tolerance)
        v[k] = 1.0
        if symmetric:
            _symmetric_sweeps(problem, work)
        error[k] = _sweeps(problem, work, 1 if symmetric else SWEEPS)
        if error[k] > tolerance:
            error[k] = _newton(problem, work, error[k])
        for j in range(m):
            if b[k, j] == 0:  # the dual does not see it; the half-step defines it
                v[k, j] = 1 / work.columns[j]
        for i in range(n):
            for j in range(m):
                kernel[k, i, j] *= u[k, i] * b[k, j] * v[k, j]


@compiled(FREE_ORDER)
def _rows(kernel: Floats, mass: Floats, u: Floats) -> None:
    """Line 1: u_i = 1 / sum_j K_ij mass_j."""
    for i in range(kernel.shape[0]):
        total = 0.0
        for j in range(kernel.shape[1]):
            total += kernel[i, j] * mass[j]
        u[i] = 1 / total


@compiled(FREE_ORDER)
def _column_sums(kernel: Floats, a: Floats, u: Floats, columns: Floats) -> None:
    """Line 2: c_j = sum_i K_ij a_i u_i."""
    columns[:] = 0.0
    for i in range(kernel.shape[0]):
        scale = a[i] * u[i]
        for j in range(kernel.shape[1]):
            columns[j] += scale * kernel[i, j]


@compiled(FREE_ORDER)
def _column_error(b: Floats, v: Floats, columns: Floats) -> float:
    """L1 distance of the column masses from b."""
    error = 0.0
    for j in range(len(columns)):
        error += b[j] * abs(v[j] * columns[j] - 1)
    return error


@compiled(FREE_ORDER)
def _symmetric_sweeps(problem: Problem, work: Workspace) -> None:
    """Averaged half-steps of a measure against itself, v <- sqrt(v / K (a v)) (Feydy et al. 2019)."""
    kernel, a, _, u, v, tolerance = problem
    mass = work.mass
    for _ in range(SWEEPS):
        for j in range(len(v)):
            mass[j] = a[j] * v[j]
        _rows(kernel, mass, u)
        change = 0.0
        for j in range(len(v)):
            change += a[j] * abs(u[j] / v[j] - 1)
            v[j] = math.sqrt(u[j] * v[j])
        if change <= tolerance / 4:
            return


@compiled(FREE_ORDER)
def _sweeps(problem: Problem, work: Workspace, count: int) -> float:
    """Lines 1 to 3 from v on; the rows are exact at the end."""
    kernel, a, b, u, v, tolerance = problem
    mass, columns, error = work.mass, work.columns, 0.0
    for sweep in range(count):
        for j in range(len(v)):
            mass[j] = b[j] * v[j]
        _rows(kernel, mass, u)  # line 1
        _column_sums(kernel, a, u, columns)  # line 2
        error = _column_error(b, v, columns)
        if error <= tolerance or sweep == count - 1:
            break
        for j in range(len(v)):
            v[j] = 1 / columns[j]  # line 3
    return error


@compiled(FREE_ORDER)
def _dual(a: Floats, b: Floats, u: Floats, v: Floats) -> float:
    """The dual value over epsilon; points without mass do not count."""
    value = 0.0
    for i in range(len(a)):
        if a[i] > 0:
            value += a[i] * math.log(u[i])
    for j in range(len(b)):
        if b[j] > 0:
            value += b[j] * math.log(v[j])
    return value


@compiled(FREE_ORDER)
def _newton(problem: Problem, work: Workspace, error: float) -> float:
    """Lines 4 to 7, as :func:`._entropic._newton` for all problems at once."""
    kernel, a, b, u, v, tolerance = problem
    m = len(b)
    for _ in range(NEWTON_STEPS):
        _weigh(problem, work)  # line 4
        slope, reach = _newton_step(b, work, min(0.1, error))  # line 5
        length = _line_search(problem, work, slope, reach)  # line 6
        for j in range(m):  # line 7
            v[j] *= math.exp(length * work.step[j])
        u[:] = work.trial
        _column_sums(kernel, a, u, work.columns)
        error = _column_error(b, v, work.columns)
        if not error > tolerance:
            break
    return error


@compiled(FREE_ORDER)
def _weigh(problem: Problem, work: Workspace) -> None:
    """Line 4: W, and the scale s of the system as ``step``."""
    kernel, a, b, u, v, _ = problem
    mass, step = work.mass, work.step
    for j in range(len(b)):
        mass[j] = b[j] * v[j]
        step[j] = math.sqrt(1 / (mass[j] * work.columns[j])) if mass[j] > 0 else 0.0
    for i in range(len(a)):
        scale = math.sqrt(a[i]) * u[i]
        for j in range(len(b)):
            work.weighted[i, j] = scale * kernel[i, j] * mass[j] * step[j]


@compiled(FREE_ORDER)
def _line_search(problem: Problem, work: Workspace, slope: float, reach: float) -> float:
    """Line 6: the length of the step; ``trial`` is its u."""
    kernel, a, b, u, v, _ = problem
    value, length = _dual(a, b, u, v), 8 / max(reach, 8.0)
    for _ in range(HALVINGS):
        for j in range(len(b)):
            work.mass[j] = b[j] * v[j] * math.exp(length * work.step[j])
        _rows(kernel, work.mass, work.trial)
        grown = _dual(a, b, work.trial, v)
        for j in range(len(b)):
            grown += b[j] * length * work.step[j]
        if grown >= value + 1e-4 * length * slope - 1e-14 * abs(value):
            return length
        length /= 2
    return length


@compiled(FREE_ORDER)
def _newton_step(b: Floats, work: Workspace, accuracy: float) -> tuple[float, float]:
    """Line 5; ``step`` holds s before and s z after.

    The system is singular along the roots of the column masses; the right side, and so all directions, are
    orthogonal to them. It is solved only as exactly as the next step of Newton's method can use.

    Returns:
        The slope of the dual along the step, and the range of the step.
    """
    mass, columns, _, step, solution, residual, direction, image, weighted = work
    n, m = weighted.shape
    square = 0.0
    solution[:] = 0.0
    for j in range(m):
        residual[j] = step[j] * (b[j] - mass[j] * columns[j])
        direction[j] = residual[j]
        square += residual[j] * residual[j]
    goal = accuracy * accuracy * square
    for _ in range(2 * m):
        if square <= goal:
            break
        image[:] = direction
        for i in range(n):
            along = 0.0
            for j in range(m):
                along += weighted[i, j] * direction[j]
            for j in range(m):
                image[j] -= along * weighted[i, j]
        curvature = 0.0
        for j in range(m):
            curvature += direction[j] * image[j]
        if not curvature > 0:
            break
        length, last = square / curvature, square
        square = 0.0
        for j in range(m):
            solution[j] += length * direction[j]
            residual[j] -= length * image[j]
            square += residual[j] * residual[j]
        for j in range(m):
            direction[j] = residual[j] + square / last * direction[j]
    slope, low, high = 0.0, 0.0, 0.0
    for j in range(m):
        step[j] *= solution[j]
        slope += (b[j] - mass[j] * columns[j]) * step[j]
        low, high = min(low, step[j]), max(high, step[j])
    return slope, high - low
