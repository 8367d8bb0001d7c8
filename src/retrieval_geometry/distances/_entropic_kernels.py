"""Compiled loops of entropic transport on the CPU: costs, their gradient, and scaling with Newton's method.

One problem after the other, so that all of it stays in the innermost cache; see :mod:`._entropic` for the
method. Problems that these loops do not solve are left to the steps there.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_geometry._compiled import FREE_ORDER, Floats, Integers, compiled

SWEEPS = 10
NEWTON_STEPS = 30


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
    columns, mass, trial = np.empty(m), np.empty(m), np.empty(n)
    step, residual, direction, image = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    weighted = np.empty((n, m))
    for k in range(len(kernel)):
        v[k] = 1.0
        if symmetric:
            _symmetric_sweeps(kernel[k], a[k], tolerance, u[k], v[k], mass)
        error[k] = _sweeps(
            kernel[k], a[k], b[k], 1 if symmetric else SWEEPS, tolerance, u[k], v[k], mass, columns
        )
        if error[k] > tolerance:
            error[k] = _newton(
                kernel[k],
                a[k],
                b[k],
                tolerance,
                u[k],
                v[k],
                mass,
                columns,
                trial,
                step,
                residual,
                direction,
                image,
                weighted,
                error[k],
            )
        for j in range(m):
            if b[k, j] == 0:  # the dual does not see it; the half-step defines it
                v[k, j] = 1 / columns[j]
        for i in range(n):
            for j in range(m):
                kernel[k, i, j] *= u[k, i] * b[k, j] * v[k, j]


@compiled(FREE_ORDER)
def _rows(kernel: Floats, mass: Floats, u: Floats) -> None:
    """The half-step that makes the rows exact: u_i = 1 / sum_j K_ij mass_j."""
    for i in range(kernel.shape[0]):
        total = 0.0
        for j in range(kernel.shape[1]):
            total += kernel[i, j] * mass[j]
        u[i] = 1 / total


@compiled(FREE_ORDER)
def _column_sums(kernel: Floats, a: Floats, u: Floats, columns: Floats) -> None:
    """sum_i K_ij a_i u_i."""
    columns[:] = 0.0
    for i in range(kernel.shape[0]):
        scale = a[i] * u[i]
        for j in range(kernel.shape[1]):
            columns[j] += scale * kernel[i, j]


@compiled(FREE_ORDER)
def _symmetric_sweeps(
    kernel: Floats, a: Floats, tolerance: float, u: Floats, v: Floats, mass: Floats
) -> None:
    """Averaged half-steps of a measure against itself, u <- sqrt(u / (K a u)): a few of them do."""
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
def _sweeps(
    kernel: Floats,
    a: Floats,
    b: Floats,
    count: int,
    tolerance: float,
    u: Floats,
    v: Floats,
    mass: Floats,
    columns: Floats,
) -> float:
    """Sinkhorn's iterations from v on; the rows are exact at the end."""
    error = 0.0
    for sweep in range(count):
        for j in range(len(v)):
            mass[j] = b[j] * v[j]
        _rows(kernel, mass, u)
        _column_sums(kernel, a, u, columns)
        error = 0.0
        for j in range(len(v)):
            error += b[j] * abs(v[j] * columns[j] - 1)
        if error <= tolerance or sweep == count - 1:
            break
        for j in range(len(v)):
            v[j] = 1 / columns[j]
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
def _newton(
    kernel: Floats,
    a: Floats,
    b: Floats,
    tolerance: float,
    u: Floats,
    v: Floats,
    mass: Floats,
    columns: Floats,
    trial: Floats,
    step: Floats,
    residual: Floats,
    direction: Floats,
    image: Floats,
    weighted: Floats,
    error: float,
) -> float:
    """Newton's method on the dual in log v, with u eliminated, as in :func:`._entropic._newton`."""
    n, m = kernel.shape
    for _ in range(NEWTON_STEPS):
        for j in range(m):
            mass[j] = b[j] * v[j]
            step[j] = math.sqrt(1 / (mass[j] * columns[j])) if mass[j] > 0 else 0.0
        for i in range(n):
            scale = math.sqrt(a[i]) * u[i]
            for j in range(m):
                weighted[i, j] = scale * kernel[i, j] * mass[j] * step[j]
        accuracy = min(0.1, error)
        slope, reach = _newton_step(weighted, b, mass, columns, accuracy, step, residual, direction, image)
        value, length = _dual(a, b, u, v), 8 / max(reach, 8.0)
        for _ in range(12):
            for j in range(m):
                mass[j] = b[j] * v[j] * math.exp(length * step[j])
            _rows(kernel, mass, trial)
            grown = _dual(a, b, trial, v)
            for j in range(m):
                grown += b[j] * length * step[j]
            if grown >= value + 1e-4 * length * slope - 1e-14 * abs(value):
                break
            length /= 2
        error = 0.0
        for j in range(m):
            v[j] *= math.exp(length * step[j])
        u[:] = trial
        _column_sums(kernel, a, u, columns)
        for j in range(m):
            error += b[j] * abs(v[j] * columns[j] - 1)
        if not error > tolerance:
            break
    return error


@compiled(FREE_ORDER)
def _newton_step(
    weighted: Floats,
    b: Floats,
    mass: Floats,
    columns: Floats,
    accuracy: float,
    step: Floats,
    residual: Floats,
    direction: Floats,
    image: Floats,
) -> tuple[float, float]:
    """Solve (I - W'W) z = s (b - c) by conjugate gradients; ``step`` holds s before and s z after.

    The system is singular along the roots of the column masses c; the right side, and so all directions, are
    orthogonal to them. It is solved only as exactly as the next step of Newton's method can use.

    Returns:
        The slope of the dual along the step, and the range of the step.
    """
    n, m = weighted.shape
    square = 0.0
    solution = np.zeros(m)
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
