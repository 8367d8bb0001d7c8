r"""Entropic optimal transport between many pairs of small measures at once, to convergence.

.. math:: \mathrm{OT}_\varepsilon(a, b) = \min_{\pi \in \Pi(a, b)} \langle \pi, C \rangle
          + \varepsilon\, \mathrm{KL}(\pi \| a \otimes b)
          = \max_{f, g} \langle a, f \rangle + \langle b, g \rangle,
          \qquad \pi_{ij} = a_i b_j\, e^{(f_i + g_j - C_{ij}) / \varepsilon}

Sinkhorn's iterations come near the optimum in a few steps and then may take tens of thousands; Newton's
method on the concave dual finishes in a handful. Its system has the size of one measure, and none of the
problems here has many points. Where the costs span too many epsilons for plain scaling, epsilon comes down by
halves in the logarithmic domain.
"""

import warnings

import torch
from torch import Tensor

SCALING_RANGE = 80.0
"""Largest (max cost - min cost) / epsilon for which exp(-cost / epsilon) is scaled directly."""

SCALING_STEPS = 20
NEWTON_STEPS = 100


class EntropicCost(torch.autograd.Function):
    """Transport costs ``(B,)`` of ``cost (B, n, m)`` between ``a (B, n)`` and ``b (B, m)``, all float64.

    By the envelope theorem the gradient is the optimal plan for the cost, and the optimal potentials for the
    masses: nothing is differentiated through the iterations.
    """

    @staticmethod
    def forward(ctx: object, cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float) -> Tensor:
        f, g = optimal_potentials(cost, a, b, epsilon, tolerance)
        ctx.save_for_backward(cost, a, b, f, g)  # type: ignore[attr-defined]
        ctx.epsilon = epsilon  # type: ignore[attr-defined]
        return (a * f).sum(dim=1) + (b * g).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        cost, a, b, f, g = ctx.saved_tensors  # type: ignore[attr-defined]
        plan = a.unsqueeze(2) * _conditional_plan(cost, b.log(), f, g, ctx.epsilon)  # type: ignore[attr-defined]
        grad = grad.unsqueeze(1)
        return grad.unsqueeze(2) * plan, grad * f, grad * g, None, None


def optimal_potentials(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Optimal f ``(B, n)`` and g ``(B, m)``; the marginals of their plan are within ``tolerance`` in L1.

    Warns:
        RuntimeWarning: some problems did not get there.
    """
    spans = cost.amax(dim=(1, 2)) - cost.amin(dim=(1, 2))
    span = float(spans.max())
    start = _scale if span <= SCALING_RANGE * epsilon else _anneal
    g = start(cost, a, b, epsilon, span)
    g, error = _newton(cost, a, b, epsilon, g, tolerance, NEWTON_STEPS)
    missed = error > 1e3 * tolerance
    if missed.any():
        warnings.warn(
            f"{int(missed.sum())} of {len(cost)} entropic transport plans meet their marginals only to "
            f"{float(error.max()):.1e}: their costs span {span / epsilon:.0f} times epsilon={epsilon:g}; "
            "raise epsilon",
            RuntimeWarning,
            stacklevel=2,
        )
    f = _soft_minimum(cost, b.log(), g, epsilon)
    # Where b is zero the dual does not see g; the half-step defines it there and changes nothing elsewhere.
    half_step = _soft_minimum(cost.mT, a.log(), f, epsilon)
    return f, torch.where(b > 0, g, half_step)


def _soft_minimum(cost: Tensor, log_b: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """Sinkhorn's half-step, f = -eps log sum_j b_j exp((g_j - C_ij) / eps): rows of the plan become exact."""
    return -epsilon * ((g.unsqueeze(1) - cost) / epsilon + log_b.unsqueeze(1)).logsumexp(dim=2)


def _conditional_plan(cost: Tensor, log_b: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """The plan divided by the masses of its rows."""
    return ((f.unsqueeze(2) + g.unsqueeze(1) - cost) / epsilon + log_b.unsqueeze(1)).exp()


def _scale(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, span: float) -> Tensor:
    """Sinkhorn's iterations as scalings u, v of the kernel exp(-C / eps); returns g = eps log v."""
    kernel = ((cost.amin(dim=(1, 2), keepdim=True) - cost) / epsilon).exp()
    v = torch.ones_like(b)
    for _ in range(SCALING_STEPS):
        u = 1 / (kernel * (b * v).unsqueeze(1)).sum(dim=2)
        v = 1 / (kernel * (a * u).unsqueeze(2)).sum(dim=1)
    return epsilon * v.log()


def _anneal(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, span: float) -> Tensor:
    """Follow the optimum from a tenth of the span of the costs down to epsilon, by halves."""
    log_a, log_b = a.log(), b.log()
    g = torch.zeros_like(b)
    level = max(span / 10, epsilon)
    while True:
        for _ in range(2):
            f = _soft_minimum(cost, log_b, g, level)
            g = _soft_minimum(cost.mT, log_a, f, level)
        if level == epsilon:
            return g
        g, _ = _newton(cost, a, b, level, g, 1e-2, 8)
        level = max(level / 2, epsilon)


def _newton(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, g: Tensor, tolerance: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Newton's method on the dual in g, with f eliminated; only problems that are not done take part.

    Returns:
        g ``(B, m)`` and the L1 errors ``(B,)`` of the column marginals.
    """
    g = g.clone()
    error = torch.zeros(len(g), dtype=g.dtype, device=g.device)
    active = torch.arange(len(g), device=g.device)
    for step in range(steps + 1):
        c, m, n, h = cost[active], a[active], b[active], g[active]
        log_n = n.log()
        f = _soft_minimum(c, log_n, h, epsilon)
        plan = _conditional_plan(c, log_n, f, h, epsilon)
        columns = (m.unsqueeze(1) @ plan).squeeze(1)
        error[active] = (n - columns).abs().sum(dim=1)
        open_ = error[active] > tolerance
        if step == steps or not open_.any():
            break
        active = active[open_]
        c, m, n, h, f, plan, columns = (part[open_] for part in (c, m, n, h, f, plan, columns))
        g[active] = _ascend(c, m, n, epsilon, h, f, _newton_step(plan, m, n, columns, epsilon), columns)
    return g, error


def _newton_step(plan: Tensor, a: Tensor, b: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Solve (diag(c) - P' diag(a) P) step = eps (b - c), scaled by the column masses c to a unit diagonal."""
    scale = torch.where(columns > 0, columns, 1.0).rsqrt() * (columns > 0)
    weighted = plan * a.sqrt().unsqueeze(2) * scale.unsqueeze(1)
    eye = torch.eye(b.shape[1], dtype=b.dtype, device=b.device)
    # Shifting all of g changes nothing: that null direction of the system is filled in.
    null = columns.sqrt().unsqueeze(2)
    system = eye - weighted.mT @ weighted + null @ null.mT
    factor, info = torch.linalg.cholesky_ex(system + 1e-13 * eye)
    singular = info != 0
    if singular.any():
        factor[singular] = torch.linalg.cholesky_ex(system[singular] + 1e-6 * eye).L
    right = (scale * (b - columns)).unsqueeze(2)
    return epsilon * scale * torch.cholesky_solve(right, factor).squeeze(2)


def _ascend(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, g: Tensor, f: Tensor, step: Tensor, columns: Tensor
) -> Tensor:
    """Go along the step, of at most 8 epsilons, halved until the dual grows (Armijo)."""
    value = (a * f).sum(dim=1) + (b * g).sum(dim=1)
    slope = ((b - columns) * step).sum(dim=1)
    reach = (step.amax(dim=1) - step.amin(dim=1)) / epsilon
    length = (8 / reach.clamp_min(8)).unsqueeze(1)
    log_b = b.log()
    for _ in range(12):
        new = g + length * step
        grown = (a * _soft_minimum(cost, log_b, new, epsilon)).sum(dim=1) + (b * new).sum(dim=1)
        enough = grown >= value + 1e-4 * length.squeeze(1) * slope - 1e-14 * value.abs()
        if enough.all():
            break
        length = torch.where(enough.unsqueeze(1), length, length / 2)
    return new
