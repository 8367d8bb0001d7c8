"""Transport between sets of descriptors: Sinkhorn divergences with gradients, and exact transport."""

from collections.abc import Callable
from functools import partial

import ot
import torch
from geomloss import SamplesLoss
from torch import Tensor

from benchmarks import reference
from benchmarks.measure import relative_error, side_by_side
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.distances import (
    exact_transport_cost,
    pairwise_sinkhorn_divergence,
    sinkhorn_divergence,
)
from retrieval_geometry.features import l2_normalize

EPSILON = 0.05
CHECKED = 12

Divergence = Callable[[Tensor, Tensor], Tensor]


def point_sets(settings: Settings, n: int, points: int, dim: int) -> Tensor:
    """Unit descriptors ``(n, points, dim)``, as embeddings are compared in training."""
    return l2_normalize(settings.inputs.draw(n, points, dim, "fast"))


def ours(x: Tensor, y: Tensor) -> Tensor:
    """The package's divergence."""
    return sinkhorn_divergence(x, y, p=1, epsilon=EPSILON)


def geomloss(x: Tensor, y: Tensor, scaling: float = 0.5) -> Tensor:
    """GeomLoss; the nearer ``scaling`` is to 1, the longer it iterates, and 0.5 is its default."""
    return SamplesLoss("sinkhorn", p=1, blur=EPSILON, scaling=scaling, backend="tensorized")(x, y)


def pot_batch(x: Tensor, y: Tensor) -> Tensor:
    """The three transport problems by POT's batched solver; the entropies of equal sizes cancel."""

    def cost(a: Tensor, b: Tensor) -> Tensor:
        # A distance of 0 has no gradient; the shift is below the rounding of the values.
        distance = ((a.unsqueeze(2) - b.unsqueeze(1)).square().sum(dim=3) + 1e-12).sqrt()
        return ot.batch.solve_batch(distance, EPSILON, grad="envelope").value

    return cost(x, y) - (cost(x, x) + cost(y, y)) / 2


def sinkhorn_row(settings: Settings, points: int, dim: int) -> Row:
    """Value and gradient of a batch of pairs."""
    n = settings.transport_pairs
    sets = point_sets(settings, 2 * n, points, dim)
    x, y = sets[:n].clone().requires_grad_(), sets[n:]
    sides: dict[str, Divergence] = {
        "retrieval_geometry": ours,
        "GeomLoss, default": geomloss,
        "GeomLoss, scaling 0.98": partial(geomloss, scaling=0.98),
        "POT, ot.batch": pot_batch,
    }

    def work(divergence: Divergence) -> Callable[[], object]:
        return lambda: torch.autograd.grad(divergence(x, y).sum(), x)

    ours(x[:2], y[:2])  # compiles; a warm-up of the whole batch could not tell that from its work
    times = side_by_side({name: work(side) for name, side in sides.items()}, settings.budget)
    checked = slice(0, CHECKED)
    wanted = _value_and_gradient(_reference, x[checked].double(), y[checked].double())
    errors = {
        name: _errors(_value_and_gradient(side, x[checked], y[checked]), wanted)
        for name, side in sides.items()
    }
    entries = [Side(name, times[name], errors[name][0]) for name in sides]
    gradients = ", ".join(f"{name} {error[1]:.1e}" for name, error in errors.items())
    return Row(
        f"sinkhorn_{points}",
        f"Sinkhorn divergence and its gradient, {n} pairs",
        "batch",
        f"n = {points}, d = {dim}, p = 1, epsilon = {EPSILON}, float32",
        entries[0],
        tuple(entries[1:]),
        mark=3,
        note=f"largest error of a point's gradient, as a share of its median length: {gradients}",
    )


def _reference(x: Tensor, y: Tensor) -> Tensor:
    return reference.sinkhorn_divergence(x, y, 1, EPSILON)


def _value_and_gradient(divergence: Divergence, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = divergence(x, y)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def _errors(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> tuple[float, float]:
    (value, gradient), (true_value, true_gradient) = found, wanted
    wrong = torch.linalg.vector_norm(gradient.double() - true_gradient, dim=2).max()
    size = torch.linalg.vector_norm(true_gradient, dim=2).median()
    return relative_error(value, true_value), float(wrong / size)


def sinkhorn_all_pairs_row(settings: Settings) -> Row:
    """Every set against every other of a batch: self terms once a set, each pair once."""
    n, points, dim = settings.transport_batch, 16, 64
    x = point_sets(settings, n, points, dim)
    i, j = torch.triu_indices(n, n, 1)
    works = {
        "retrieval_geometry": lambda: pairwise_sinkhorn_divergence(x, x, p=1, epsilon=EPSILON),
        "GeomLoss": lambda: geomloss(x[i], x[j]),
    }
    times = side_by_side(works, settings.budget)
    wanted = _reference(x[i[:CHECKED]].double(), x[j[:CHECKED]].double())
    found = works["retrieval_geometry"]()[i[:CHECKED], j[:CHECKED]]
    return Row(
        "sinkhorn_all_pairs",
        f"Sinkhorn divergence, all {len(i):,} pairs of a batch",
        "batch",
        f"n = {points}, d = {dim}, p = 1, epsilon = {EPSILON}, float32, values only",
        Side("retrieval_geometry", times["retrieval_geometry"], relative_error(found, wanted)),
        (Side("GeomLoss", times["GeomLoss"], relative_error(geomloss(x[i], x[j])[:CHECKED], wanted)),),
        mark=5,
    )


def exact_transport_row(settings: Settings, points: int, dim: int) -> Row:
    """Exact transport and its gradient: assignment against the network simplex, and an approximation."""
    n = settings.transport_pairs
    sets = point_sets(settings, 2 * n, points, dim)
    x, y = sets[:n].clone().requires_grad_(), sets[n:]
    sides: dict[str, Divergence] = {
        "retrieval_geometry": exact_transport_cost,
        "POT, emd2": _emd2,
        "GeomLoss, an approximation": geomloss,
    }
    works = {name: partial(_differentiate, side, x, y) for name, side in sides.items()}
    times = side_by_side(works, settings.budget)
    some = slice(0, CHECKED)
    wanted = _emd2(x[some].detach().double(), y[some].double())
    errors = {name: relative_error(side(x[some].detach(), y[some]), wanted) for name, side in sides.items()}
    entries = [Side(name, times[name], errors[name]) for name in sides]
    return Row(
        f"exact_transport_{points}",
        f"exact transport and its gradient, {n} pairs",
        "batch",
        f"n = {points}, d = {dim}, p = 1, uniform masses, float32",
        entries[0],
        tuple(entries[1:]),
        mark=1,
    )


def _emd2(x: Tensor, y: Tensor) -> Tensor:
    masses = torch.full((x.shape[1],), 1 / x.shape[1], dtype=x.dtype)
    # A distance of 0 has no gradient; the shift is below the rounding of the values.
    costs = ((x.unsqueeze(2) - y.unsqueeze(1)).square().sum(dim=3) + 1e-12).sqrt()
    return torch.stack([ot.emd2(masses, masses, cost) for cost in costs])


def _differentiate(divergence: Divergence, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(divergence(x, y).sum(), x)
