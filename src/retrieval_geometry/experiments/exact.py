"""Every distance of the registry to 60 digits, from its definition, one pair at a time.

The references of the page on numerics and of its tests: no formula here is the one by which the package
computes. Inputs are the very numbers that the package gets: every float is a rational number, and mpmath
takes it as that.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import permutations, product
from typing import Any

import mpmath
from mpmath import mp, mpf
from torch import Tensor

from retrieval_geometry.image_models import Gaussian, GaussianMixture

DIGITS = 60
"""Enough for conditions of 1e12, squared, and scales of 1e-8 to 1e8."""

Matrix = Any


def exact(name: str, p: Any, q: Any) -> Any:
    """The distance called ``name`` of the first image of p from the first of q, as an mpmath number.

    Args:
        name: a key of :data:`~retrieval_geometry.distances.DISTANCES`.
        p: Gaussians, mixtures or descriptors ``(1, n, d)``, of the type that the distance compares.
        q: of the type of p.

    Raises:
        ValueError: a covariance that has no inverse, to 60 digits.
    """
    with mp.workdps(DIGITS):
        if isinstance(p, Gaussian):
            return GAUSSIAN[name](_normal(p), _normal(q))
        if isinstance(p, GaussianMixture):
            return MIXTURE[name](*(_components(m) for m in (p, q)))
        return _sinkhorn(*(_matrix(points[0]) for points in (p, q)))


def _matrix(values: Tensor) -> Matrix:
    return mpmath.matrix(values.detach().double().tolist())


class _Normal:
    """Mean, covariance and its spectrum; a factor that a Gaussian carries counts, its product is rounded."""

    def __init__(self, g: Gaussian) -> None:
        self.mean = _matrix(g.mean[0].unsqueeze(1))
        if g.factor is None:
            # The package takes the symmetric part as well.
            cov = g.cov[0].double()
            self.cov = _matrix((cov + cov.mT) / 2)
        else:
            factor = _matrix(g.factor[0])
            self.cov = factor * factor.T

    # Once for all functions of it: at 60 digits an eigenproblem takes milliseconds.
    @cached_property
    def spectrum(self) -> tuple[Any, Matrix]:
        return mp.eigsy(self.cov)

    def function(self, function: Callable[[Any], Any]) -> Matrix:
        """A function of the covariance, by its eigenvalues."""
        values, vectors = self.spectrum
        return vectors * mp.diag([function(value) for value in values]) * vectors.T

    @cached_property
    def log_det(self) -> Any:
        return mp.fsum(map(_log, self.spectrum[0]))


@lru_cache(maxsize=4)
def _normal(g: Gaussian) -> _Normal:
    return _Normal(g)


def _root(value: Any) -> Any:
    return mp.sqrt(value) if value > 0 else mpf(0)


def _log(value: Any) -> Any:
    if value <= 0:
        raise ValueError("the covariance has no logarithm: an eigenvalue is not positive")
    return mp.log(value)


def _square(vector: Matrix) -> Any:
    return mp.fsum(x * x for x in vector)


def _kl(p: _Normal, q: _Normal) -> Any:
    inverse = q.function(lambda value: mp.exp(-_log(value)))
    # [geometric] eq. 7, inverse and all: 60 digits forgive what float64 would not.
    ratio, gap = inverse * p.cov, q.mean - p.mean
    trace = mp.fsum(ratio[i, i] for i in range(len(gap)))
    return (q.log_det - p.log_det - len(gap) + trace + (gap.T * inverse * gap)[0]) / 2


@lru_cache(maxsize=4)
def _wasserstein2_squared(p: _Normal, q: _Normal) -> Any:
    # Eq. 13 with its square roots, where the package takes a nuclear norm.
    root = p.function(_root)
    cross = mp.eigsy(root * q.cov * root, eigvals_only=True)
    trace = mp.fsum(p.cov[i, i] + q.cov[i, i] for i in range(len(p.mean)))
    return _square(p.mean - q.mean) + trace - 2 * mp.fsum(map(_root, cross))


@lru_cache(maxsize=4)
def _relative_logs(p: _Normal, q: _Normal) -> list[Any]:
    """Logarithms of the eigenvalues of the one covariance in units of the other."""
    # Eq. 14 by the symmetric root, where the package has a Cholesky factor.
    whitener = p.function(lambda value: mp.exp(-_log(value) / 2))
    return [_log(value) for value in mp.eigsy(whitener * q.cov * whitener, eigvals_only=True)]


def _cosine(p: _Normal, q: _Normal) -> Any:
    inner = mp.fsum(x * y for x, y in zip(p.mean, q.mean, strict=True))
    return 1 - inner / mp.sqrt(_square(p.mean) * _square(q.mean))


GAUSSIAN: dict[str, Callable[[_Normal, _Normal], Any]] = {
    "kl": _kl,
    "symmetric_kl": lambda p, q: (_kl(p, q) + _kl(q, p)) / 2,
    "wasserstein2": lambda p, q: mp.sqrt(_wasserstein2_squared(p, q)),
    "wasserstein2_squared": _wasserstein2_squared,
    "affine_invariant": lambda p, q: mp.sqrt(_square(_relative_logs(p, q))),
    # log((1 + l) / 2) - log(l) / 2 = log cosh(log(l) / 2).
    "stein": lambda p, q: mp.fsum(mp.log(mp.cosh(x / 2)) for x in _relative_logs(p, q)),
    "log_euclidean": lambda p, q: mp.sqrt(_square(p.function(_log) - q.function(_log))),
    "euclidean_mean": lambda p, q: mp.sqrt(_square(p.mean - q.mean)),
    "cosine_mean": _cosine,
}
"""On pairs of normal distributions."""


def _components(m: GaussianMixture) -> list[tuple[Any, list[Any], list[Any]]]:
    """Weight, mean and variances of each component; the weights are divided by their sum."""
    weights = [mpf(w) for w in m.weights[0].double().tolist()]
    parts = zip(weights, m.means[0].double().tolist(), m.variances[0].double().tolist(), strict=True)
    total = mp.fsum(weights)
    return [(w / total, [*map(mpf, mean)], [*map(mpf, variance)]) for w, mean, variance in parts]


def _component_kl(a: Any, b: Any) -> Any:
    terms = zip(a[1], a[2], b[1], b[2], strict=True)
    return mp.fsum(v / w - 1 - mp.log(v / w) + (m - n) ** 2 / w for m, v, n, w in terms) / 2


def _variational_kl(p: Any, q: Any) -> Any:
    def likeness(a: Any, others: Any) -> Any:
        return mp.log(mp.fsum(b[0] * mp.exp(-_component_kl(a, b)) for b in others))

    return mp.fsum(a[0] * (likeness(a, p) - likeness(a, q)) for a in p)


def _mixture_wasserstein(p: Any, q: Any) -> Any:
    """Between two components each, a plan has one free number, and the cost is linear in it."""

    def cost(a: Any, b: Any) -> Any:
        terms = zip(a[1], a[2], b[1], b[2], strict=True)
        return mp.fsum((m - n) ** 2 + (mp.sqrt(v) - mp.sqrt(w)) ** 2 for m, v, n, w in terms)

    (a, b), (c, d) = p, q
    # A linear cost is least at an end of the interval of that number.
    ends = max(mpf(0), a[0] - d[0]), min(a[0], c[0])
    costs = [cost(a, c), cost(a, d), cost(b, c), cost(b, d)]
    plans = [(t, a[0] - t, c[0] - t, d[0] - a[0] + t) for t in ends]
    return min(mp.fsum(x * y for x, y in zip(plan, costs, strict=True)) for plan in plans)


MIXTURE: dict[str, Callable[[Any, Any], Any]] = {
    "variational_kl": _variational_kl,
    "symmetric_variational_kl": lambda p, q: (_variational_kl(p, q) + _variational_kl(q, p)) / 2,
    "mixture_wasserstein2_squared": _mixture_wasserstein,
}
"""On pairs of lists of components; the last on two components each."""


def _sinkhorn(x: Matrix, y: Matrix, epsilon: float = 0.05) -> Any:
    """The divergence of uniform measures of equally many points, for the power 1."""
    return _transport(x, y, epsilon) - (_transport(x, x, epsilon) + _transport(y, y, epsilon)) / 2


def _transport(x: Matrix, y: Matrix, epsilon: float) -> Any:
    n, epsilon = x.rows, mpf(epsilon)
    cost = [[mp.sqrt(_square(x[i, :] - y[j, :])) for j in range(n)] for i in range(n)]
    totals = sorted(mp.fsum(cost[i][j] for i, j in enumerate(order)) for order in permutations(range(n)))
    if totals[1] - totals[0] > 200 * epsilon:
        # The plan is the best permutation, and its divergence from the product of the masses is log n.
        return totals[0] / n + epsilon * mp.log(n)
    return _dual_value(cost, n, epsilon)


def _dual_value(cost: list[list[Any]], n: int, epsilon: Any) -> Any:
    """Sinkhorn's iterations, then Newton's steps on the logarithms of the potentials, over epsilon."""
    kernel = [[mp.exp(-c / epsilon) / n for c in row] for row in cost]
    # Sinkhorn first: Newton's method converges only near the solution.
    u, v = [mpf(1)] * n, [mpf(1)] * n
    for _ in range(300):
        u = [1 / mp.fsum(k * b for k, b in zip(row, v, strict=True)) for row in kernel]
        v = [1 / mp.fsum(kernel[i][j] * u[i] for i in range(n)) for j in range(n)]
    for _ in range(30):
        plan = mpmath.matrix(n, n)
        # At rest the plan has the masses 1 / n of its rows and columns; here times n.
        for i, j in product(range(n), range(n)):
            plan[i, j] = u[i] * kernel[i][j] * v[j]
        rows = [mp.fsum(plan[i, j] for j in range(n)) for i in range(n)]
        columns = [mp.fsum(plan[i, j] for i in range(n)) for j in range(n)]
        missing = [1 - mass for mass in rows + columns]
        # Newton's method doubles the digits at each step: few are needed after the first twenty.
        if max(map(abs, missing)) < mpf(10) ** -40:
            return epsilon * (mp.fsum(map(mp.log, u)) + mp.fsum(map(mp.log, v))) / n
        step = _newton_step(plan, rows + columns, missing)
        u = [value * mp.exp(change) for value, change in zip(u, step[:n], strict=True)]
        v = [value * mp.exp(change) for value, change in zip(v, step[n:], strict=True)]
    raise ValueError("the potentials of the transport did not settle")


def _newton_step(plan: Matrix, masses: list[Any], missing: list[Any]) -> list[Any]:
    """A constant may move from the one potential to the other: the last one stays."""
    n = plan.rows
    system = mp.diag(masses)
    for i, j in product(range(n), range(n)):
        system[i, n + j] = system[n + j, i] = plan[i, j]
    free = 2 * n - 1
    return [*mp.lu_solve(system[:free, :free], mpmath.matrix(missing[:free])), mpf(0)]
