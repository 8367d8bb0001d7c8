r"""Entropic optimal transport between many pairs of small measures at once, to convergence.

.. math:: \mathrm{OT}_\varepsilon(a, b) = \min_{\pi \in \Pi(a, b)} \langle \pi, C \rangle
          + \varepsilon\, \mathrm{KL}(\pi \| a \otimes b)
          = \max_{f, g} \langle a, f \rangle + \langle b, g \rangle,
          \qquad \pi_{ij} = a_i b_j\, e^{(f_i + g_j - C_{ij}) / \varepsilon}

Sinkhorn's iterations come near the optimum in a few steps and then may take tens of thousands; Newton's
method on the concave dual finishes in a handful. On a CPU a compiled loop solves one problem after the other
(:mod:`._entropic_kernels`). Elsewhere all problems go step by step together: the system has the size of one
measure, and none of the problems here has many points. Where the costs span too many epsilons for plain
scaling, epsilon comes down by halves in the logarithmic domain.
"""

import warnings

import torch
from torch import Tensor

from retrieval_geometry._tolerances import ANNEALED, ARMIJO, DUAL_ROUNDING, EXCHANGE_RIDGE, NEWTON_RIDGE

SCALING_RANGE = 60.0
"""Largest (max cost - min cost) / epsilon for which exp(-cost / epsilon) is scaled directly, in float32."""

COMPILED_RANGE = 300.0
"""Largest (max cost - min cost) / epsilon for the compiled loops, which work in float64."""

SCALING_STEPS = 20
NEWTON_STEPS = 100


def optimal_potentials(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float, symmetric: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Optimal potentials f ``(B, n)`` and g ``(B, m)``, and the plan over its row masses ``(B, n, m)``.

    The rows of the plan have their masses, its columns are within ``tolerance`` of theirs in L1.

    Args:
        cost: ``(B, n, m)``, float64; a: ``(B, n)`` and b: ``(B, m)``, float64.
        epsilon: above 0.
        tolerance: of the column masses.
        symmetric: the costs are symmetric and both measures are one.

    Warns:
        RuntimeWarning: some problems did not converge to it.
    """
    if cost.device.type != "cpu":  # GPU: as where the compiled loops fail
        return _in_steps(cost, a, b, epsilon, tolerance)
    return _compiled(cost, a, b, epsilon, tolerance, symmetric)


def _compiled(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Potentials and plans by the compiled loops, and by the steps below where those fail."""
    from retrieval_geometry.distances._entropic_kernels import solve_plans  # numba is slow to import

    # The kernel exp(-C / eps), with the least cost at 1: no row of it underflows within the range.
    least = cost.amin(dim=(1, 2), keepdim=True)
    plan = ((least - cost) / epsilon).exp_()
    u, v, error = torch.empty_like(a), torch.empty_like(b), a.new_empty(len(a))
    arrays = (t.numpy() for t in (plan, a.contiguous(), b.contiguous()))
    solve_plans(*arrays, symmetric, tolerance, u.numpy(), v.numpy(), error.numpy())
    # Scalings and potentials: u = exp(f / eps), v = exp(g / eps); the shift of the kernel goes to f.
    f, g = epsilon * u.log() + least.squeeze(2), epsilon * v.log()
    in_range = cost.amax(dim=(1, 2)) - least.flatten() <= COMPILED_RANGE * epsilon
    left = (~((error <= tolerance) & in_range)).nonzero().flatten()
    if len(left):
        parts = _in_steps(cost[left], a[left], b[left], epsilon, tolerance)
        for whole, part in zip((f, g, plan), parts, strict=True):
            whole.index_copy_(0, left, part)
    return f, g, plan


def _in_steps(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Potentials and plans of all problems at once: on a GPU, and for costs that span many epsilons."""
    span = cost.amax(dim=(1, 2)) - cost.amin(dim=(1, 2))
    near = span <= SCALING_RANGE * epsilon  # each problem for itself: the others have no say in its start
    g = torch.zeros_like(b)
    for part, start in ((near.nonzero().flatten(), _scale), ((~near).nonzero().flatten(), _anneal)):
        if len(part):
            g[part] = start(cost[part], a[part], b[part], epsilon, span[part])
    # A start near the optimum, then Newton's method to convergence.
    f, g, plan, error = _newton(cost, a, b, epsilon, g, tolerance, NEWTON_STEPS)
    missed = error > 1e3 * tolerance
    if missed.any():
        warnings.warn(
            f"{int(missed.sum())} of {len(cost)} entropic transport plans meet their marginals only to "
            f"{float(error.max()):.1e}: their costs span {float(span[missed].max()) / epsilon:.0f} times "
            f"epsilon={epsilon:g}; "
            "raise epsilon",
            RuntimeWarning,
            stacklevel=2,
        )
    if (b == 0).any():
        # Where b is zero the dual does not see g; the half-step defines it there.
        g = torch.where(b > 0, g, _soft_minimum(cost.mT, a.log(), f, epsilon)[0])
    return f, g, plan


def _soft_minimum(cost: Tensor, log_b: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Sinkhorn's half-step, f = -eps log sum_j b_j exp((g_j - C_ij) / eps): rows of the plan become exact.

    Returns:
        f, and the plan divided by the masses of its rows.
    """
    # Peyré and Cuturi 2019, section 4.4: stabilised by the largest term of each row.
    terms = (g / epsilon + log_b).unsqueeze(1) - cost / epsilon
    largest = terms.amax(dim=2, keepdim=True)
    plan = terms.sub_(largest).exp_()
    total = plan.sum(dim=2, keepdim=True)
    return -epsilon * (total.log() + largest).squeeze(2), plan.div_(total)


def _scale(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, span: Tensor) -> Tensor:
    """Sinkhorn's iterations as scalings u, v of the kernel exp(-C / eps); returns g = eps log v.

    In float32: this only brings Newton's method near.
    """
    kernel = ((cost.amin(dim=(1, 2), keepdim=True) - cost) / epsilon).float().exp_()
    a, b = a.float(), b.float()
    v = torch.ones_like(b)
    for _ in range(SCALING_STEPS):
        # Peyré and Cuturi 2019, section 4.2, for plans relative to the product of the masses.
        u = 1 / (kernel * (b * v).unsqueeze(1)).sum(dim=2)
        v = 1 / (kernel * (a * u).unsqueeze(2)).sum(dim=1)
    return epsilon * v.double().log()


def _anneal(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, span: Tensor) -> Tensor:
    """Follow the optimum from a tenth of the span of the costs down to epsilon, by halves."""
    g = torch.zeros_like(b)
    halvings = (span / (10 * epsilon)).clamp_min(1).log2().ceil()
    for k in range(int(halvings.max()), -1, -1):
        part, level = (halvings >= k).nonzero().flatten(), epsilon * 2.0**k
        c, m, n, h = cost[part], a[part], b[part], g[part]
        # Two half-steps bring the potentials near the optimum of the new epsilon, a few Newton steps to it.
        for _ in range(2):
            f, _ = _soft_minimum(c, n.log(), h, level)
            h, _ = _soft_minimum(c.mT, m.log(), f, level)
        g[part] = _newton(c, m, n, level, h, ANNEALED, 8)[1] if k else h
    return g


def _newton(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, g: Tensor, tolerance: float, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Newton's method on the dual in g, with f eliminated; only problems that are not done take part.

    Returns:
        f, g, the plans divided by the masses of their rows, and the L1 errors ``(B,)`` of the columns.
    """
    log_b = b.log()
    f, plan = _soft_minimum(cost, log_b, g, epsilon)  # f is a function of g: the rows are exact
    columns = (a.unsqueeze(1) @ plan).squeeze(1)
    error = (b - columns).abs().sum(dim=1)
    for _ in range(steps):
        active = (error > tolerance).nonzero().flatten()
        if not len(active):
            break
        c, m, n, h = cost[active], a[active], b[active], g[active]
        step = _newton_step(plan[active], m, n, columns[active], epsilon)
        h, f_new, plan_new = _ascend(c, m, n, epsilon, h, f[active], step, columns[active])
        g, f, plan = (x.index_copy(0, active, y) for x, y in ((g, h), (f, f_new), (plan, plan_new)))
        columns_new = (m.unsqueeze(1) @ plan_new).squeeze(1)
        columns = columns.index_copy(0, active, columns_new)
        error = error.index_copy(0, active, (n - columns_new).abs().sum(dim=1))
    return f, g, plan, error


def _newton_step(plan: Tensor, a: Tensor, b: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Solve (diag(c) - P' diag(a) P) step = eps (b - c), scaled by the column masses c to a unit diagonal."""
    scale = torch.where(columns > 0, columns, 1.0).rsqrt() * (columns > 0)
    weighted = plan * a.sqrt().unsqueeze(2) * scale.unsqueeze(1)
    eye = torch.eye(b.shape[1], dtype=b.dtype, device=b.device)
    # Shifting all of g changes nothing: that null direction of the system is filled in.
    null = columns.sqrt().unsqueeze(2)
    system = eye - weighted.mT @ weighted + null @ null.mT
    factor, info = torch.linalg.cholesky_ex(system + NEWTON_RIDGE * eye)
    singular = info != 0
    if singular.any():
        # Two groups of points that exchange no mass: a ridge decides how they split the step.
        factor[singular] = torch.linalg.cholesky_ex(system[singular] + EXCHANGE_RIDGE * eye).L
    right = (scale * (b - columns)).unsqueeze(2)
    return epsilon * scale * torch.cholesky_solve(right, factor).squeeze(2)


def _ascend(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, g: Tensor, f: Tensor, step: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Go along the step, of at most 8 epsilons, halved until the dual grows (Armijo).

    Returns:
        The new g, its f and its plan divided by the masses of the rows.
    """
    value = (a * f).sum(dim=1) + (b * g).sum(dim=1)  # the concave dual
    slope = ((b - columns) * step).sum(dim=1)
    reach = (step.amax(dim=1) - step.amin(dim=1)) / epsilon
    length = (8 / reach.clamp_min(8)).unsqueeze(1)
    log_b = b.log()
    for _ in range(12):
        new = g + length * step
        f, plan = _soft_minimum(cost, log_b, new, epsilon)
        grown = (a * f).sum(dim=1) + (b * new).sum(dim=1)
        enough = grown >= value + ARMIJO * length.squeeze(1) * slope - DUAL_ROUNDING * value.abs()
        if enough.all():
            break
        length = torch.where(enough.unsqueeze(1), length, length / 2)
    return new, f, plan
