"""The statistics network of RankMI: an estimate of the divergence of two distributions of distances."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from retrieval_geometry._check import (
    check_count,
    check_dense,
    check_finite,
    check_floating,
    check_number,
    check_seed,
    check_shape,
)

Function = Callable[[Tensor], Tensor]

NEWTON_STEPS = 10
GRID = 257


class StatisticsNetwork(nn.Module):
    r"""The function V of a distance.

    .. math:: V(d) = \tilde V(d) - d

    Source: [rankmi] eqs. 10 and 14. Derived in chapter 13.

    :math:`\tilde V` is a perceptron 1-H-...-H-1 with LeakyReLU of slope 0.1 and Xavier weights. The residual
    lets V fall with the distance from the first step on. The network maps distances of any shape, ``(B, B)``
    say, entry by entry.

    Args:
        hidden: H, the width.
        depth: L, the number of H-H layers.

    Raises:
        ValueError: a width below 1 or a depth below 0; on call, no tensor of real numbers.

    Example:
        >>> StatisticsNetwork()(torch.rand(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(self, hidden: int = 128, depth: int = 2) -> None:
        super().__init__()
        check_count(hidden, "hidden")
        widths = [1] + [hidden] * (check_count(depth, "depth", at_least=0) + 1)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.1, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, distances: Tensor) -> Tensor:
        """V of each distance, in the shape and dtype of the distances, whatever the dtype of the weights.

        Raises:
            ValueError: no tensor of real numbers.
        """
        if not isinstance(distances, Tensor) or not distances.is_floating_point():
            found = getattr(distances, "dtype", type(distances).__name__)
            raise ValueError(f"distances must be a tensor of real numbers, got {found}")
        check_dense(distances, "distances")
        weight = next(self.layers.parameters())
        values = self.layers(distances.to(weight.dtype).unsqueeze(-1)).squeeze(-1)
        return values.to(distances.dtype) - distances


def positive_score(values: Tensor) -> Tensor:
    r""":math:`T = \log 2 - \log(1 + e^{-V})` ([rankmi] eq. 7), below log 2; 0 where V is 0.

    Example:
        >>> positive_score(torch.tensor([0.0, 100.0])).round(decimals=2)
        tensor([0.0000, 0.6900])
    """
    return math.log(2) - softplus(-values)


def negative_score(values: Tensor) -> Tensor:
    r""":math:`\log(2 - e^T) = \log 2 - \log(1 + e^V)`, the term of a negative pair in [rankmi] eq. 6.

    Computed from V, it stays finite where T rounds to log 2.

    Example:
        >>> negative_score(torch.tensor([0.0, 100.0])).round(decimals=1)
        tensor([  0.0000, -99.3000])
    """
    return math.log(2) - softplus(values)


def divergence_bound(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Lower bound of twice the Jensen-Shannon divergence, from V of either sample ([rankmi] eq. 6).

    .. math:: \mathrm{E}_+[T] + \mathrm{E}_-[\log(2 - e^T)] \le 2\, \mathrm{JSD}(p_+, p_-)

    With equality at :math:`V = \log(p_+ / p_-)`. The log 2 of eq. 7 makes up for the constant: written with
    softplus alone, as other code has it, the optimum is 2 JSD - log 4. The supremum over the networks is a
    lower bound, as eq. 2 says, of twice the divergence (erratum 3.2).

    Args:
        positive: V of the distances of matching pairs, any shape.
        negative: V of those of the others.

    Returns:
        A scalar in nats, at most 2 log 2.

    Example:
        >>> divergence_bound(torch.tensor([50.0]), torch.tensor([-50.0])).round(decimals=2)  # 2 log 2
        tensor(1.3900)
    """
    return positive_score(positive).mean() + negative_score(negative).mean()


class DivergenceEstimate(NamedTuple):
    """The result of :func:`estimate_divergence`. Used in chapter 13.

    Attributes:
        value: bound of 2 JSD in nats, on the half of the samples that the network was not trained on.
        network: the network, close to the logarithm of the ratio of the densities.
    """

    value: float
    network: StatisticsNetwork


def estimate_divergence(
    positive: Tensor,
    negative: Tensor,
    steps: int = 400,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> DivergenceEstimate:
    """Twice the Jensen-Shannon divergence of two samples of numbers, by training a statistics network.

    Source: [rankmi] eq. 2, erratum 3.2. Derived in chapter 13.

    The network climbs :func:`divergence_bound` on every second sample and is judged on the others, so the
    value is a lower bound up to the error of a mean. The samples should be of the order of 1.

    Args:
        positive: ``(n,)``.
        negative: ``(m,)``.
        steps: of Adam.
        batch_size: draws from each sample, each step.
        learning_rate: at the start; it falls to 0 along a cosine.
        seed: of the weights and the draws.

    Returns:
        A :class:`DivergenceEstimate`: the value in nats, from 0 to 2 log 2 but for noise, and the network.

    Raises:
        ValueError: a sample with fewer than two numbers or with a NaN, or a setting out of range.

    Example:
        >>> estimate_divergence(torch.rand(400), 2 + torch.rand(400), steps=200).value > 1.2  # of 1.386
        True
    """
    for name, sample in (("positive", positive), ("negative", negative)):
        check_finite(check_shape(check_floating(sample, name), name, ("samples",)), name)
        check_count(len(sample), f"number of {name} samples", at_least=2)
    check_count(steps, "steps")
    check_count(batch_size, "batch_size")
    check_number(learning_rate, "learning_rate", above=0, at_most=100)
    check_seed(seed)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StatisticsNetwork().to(positive)
        optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            # Even samples train, odd ones judge: the value below is on numbers that the network never saw.
            batch = [
                sample[::2][torch.randint(0, (len(sample) + 1) // 2, (batch_size,)).to(sample.device)]
                for sample in (positive, negative)
            ]
            optimiser.zero_grad()
            (-divergence_bound(network(batch[0]), network(batch[1]))).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        value = divergence_bound(network(positive[1::2]), network(negative[1::2]))
    return DivergenceEstimate(float(value), network)


def find_beta(
    network: Function, start: float, low: float, high: float, device: torch.device | None = None
) -> float:
    r"""The distance :math:`\beta` with :math:`V(\beta) = 0`, where a match costs as much as another pair.

    Newton's method from the last beta; where it leaves the interval or meets a V that does not fall,
    bisection of the crossing from above to below that is nearest to ``start``. Without a crossing, ``high``
    where V is positive on average (all pairs look like matches), otherwise ``low``.

    Args:
        network: V.
        start: the last beta.
        low: smallest distance to look at.
        high: largest.
        device: where V takes its distances, in float64; the CPU by default.

    Returns:
        Beta, within 1e-5 of a root in float32.

    Example:
        >>> round(find_beta(lambda d: 0.5 - d, 1.0, 0.0, 2.0), 4)
        0.5
    """
    x = min(max(start, low), high)
    for _ in range(NEWTON_STEPS):
        value, slope = _value_and_slope(network, x, device)
        step = value / slope if slope < 0 else math.inf  # uphill Newton would leave the crossing
        if not low <= x - step <= high:
            break
        x -= step
        if abs(step) < 1e-6:
            return x
    return _bisect(network, start, low, high, device)


def _value_and_slope(network: Function, x: float, device: torch.device | None) -> tuple[float, float]:
    with torch.enable_grad():
        point = torch.tensor([x], dtype=torch.float64, device=device, requires_grad=True)
        value = network(point)
        (slope,) = torch.autograd.grad(value.sum(), point)
    return float(value.detach()), float(slope)


def _bisect(network: Function, start: float, low: float, high: float, device: torch.device | None) -> float:
    grid = torch.linspace(low, high, GRID, dtype=torch.float64, device=device)
    with torch.no_grad():
        values = network(grid)
        # From above to below 0: a V that rises again, which eq. 9 forbids, has other roots too.
        falls = ((values[:-1] > 0) & (values[1:] <= 0)).nonzero().flatten().tolist()
        if not falls:
            return high if float(values.mean()) > 0 else low
        left = min(falls, key=lambda i: abs(float(grid[i]) - start))
        a, b = grid[left : left + 1], grid[left + 1 : left + 2]
        while float(b - a) > 1e-7 * max(1.0, high):
            middle = (a + b) / 2
            a, b = (middle, b) if float(network(middle)) > 0 else (a, middle)
    return float(a + b) / 2
