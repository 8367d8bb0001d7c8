"""Random-walk similarity and the losses of [edms] on it: against the walk itself, loops, and the library."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.losses import ManifoldLoss
from torch import Tensor
from torch.nn import functional

from retrieval_geometry.losses import (
    ManifoldProxyLoss,
    authors_manifold_loss,
    manifold_npair_loss,
    manifold_proxy_loss,
    npair_margin_loss,
    random_walk_similarity,
)

from .common import batch

META = torch.tensor([0, 2, 1, 1, 0, 2, 2, 1])


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return functional.normalize(batch(*shape, seed=seed, dtype=dtype), dim=-1)


def walk(points: Tensor, affinity: str = "clamp") -> Tensor:
    """The normalised affinities, entry by entry."""
    n = len(points)
    s = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            if i != j:
                product = max(float(points[i] @ points[j]), 0.0)
                s[i, j] = product if affinity == "clamp" else math.exp(product / 0.05)
    degrees = s.sum(1)
    for i in range(n):
        for j in range(n):
            if s[i, j]:
                s[i, j] = s[i, j] / math.sqrt(float(degrees[i]) * float(degrees[j]))
    return s


@pytest.mark.parametrize("affinity", ["clamp", "exp"])
@pytest.mark.parametrize("alpha", [0.05, 0.8, 0.95])
def test_the_closed_form_is_where_the_walk_converges(alpha, affinity):
    points = unit(20, 4)
    found, step = random_walk_similarity(points, alpha, affinity=affinity), walk(points, affinity)
    once_more = alpha * step @ found + (1 - alpha) * torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(once_more, found, rtol=0, atol=1e-13)  # a fixed point
    walked = torch.zeros(20, 20, dtype=torch.float64)
    for _ in range(700):
        walked = alpha * step @ walked + (1 - alpha) * torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(walked, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_it_is_exact_as_the_walk_hardly_ever_restarts(gap):
    points = unit(30, 3)
    values, vectors = torch.linalg.eigh(walk(points))
    exact = (vectors * (gap / (1 - (1 - gap) * values.clamp_max(1)))) @ vectors.mT
    found = random_walk_similarity(points, 1 - gap)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-14 / gap)


def test_columns_are_those_of_the_whole():
    points = unit(12, 3)
    whole = random_walk_similarity(points)
    torch.testing.assert_close(
        random_walk_similarity(points, columns=torch.tensor([7, 0, 7])), whole[:, [7, 0, 7]]
    )
    torch.testing.assert_close(whole, whole.mT)
    assert (whole >= 0).all()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(random_walk_similarity(points[order]), whole[order][:, order])
    torch.testing.assert_close(random_walk_similarity(points, columns=torch.zeros(0).long()), whole[:, :0])


def test_points_without_neighbours_keep_their_restarts():
    alone = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], requires_grad=True)
    found = random_walk_similarity(alone, 0.8)
    torch.testing.assert_close(found, 0.2 * torch.eye(4))
    found.sum().backward()
    assert alone.grad is not None
    assert alone.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_makes_no_neighbours(dtype):
    turned = torch.linalg.qr(batch(6, 6, dtype=torch.float64))[0].to(dtype).requires_grad_(True)
    found = random_walk_similarity(turned, 0.8)
    torch.testing.assert_close(found, 0.2 * torch.eye(6, dtype=dtype))
    found.square().sum().backward()
    assert turned.grad is not None
    assert float(turned.grad.abs().max()) < 1e3
    torch.testing.assert_close(random_walk_similarity(1e-6 * unit(6, 3)), random_walk_similarity(unit(6, 3)))


@pytest.mark.parametrize("temperature", [1e-2, 1e-3, 1e-5])
def test_exponential_affinities_do_not_overflow(temperature):
    """Two close pairs at a right angle: at a low temperature a walk stays in its pair."""
    points = functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]]).double())
    leaf = points.requires_grad_(True)
    found = random_walk_similarity(leaf, 0.5, affinity="exp", temperature=temperature)
    pair = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64) / 3
    torch.testing.assert_close(found, torch.block_diag(pair, pair), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.square().sum(), leaf)
    assert gradient.isfinite().all()


def test_autocast_does_not_round_the_walk():
    points = unit(50, 8, dtype=torch.float32).requires_grad_(True)
    expected = random_walk_similarity(points)
    (gradient,) = torch.autograd.grad(expected.square().sum(), points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = random_walk_similarity(points)
        (rounded,) = torch.autograd.grad(found.square().sum(), points)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(rounded, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("points", [torch.ones(5, 2) / 2**0.5, torch.zeros(5, 2)], ids=["identical", "zero"])
def test_degenerate_points_have_finite_gradients(points):
    leaf, proxies = points.clone().requires_grad_(True), torch.eye(2)
    for kind in ("contextual", "intrinsic"):
        loss = manifold_proxy_loss(leaf, torch.tensor([0, 0, 1, 1, 0]), proxies, kind=kind)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("affinity", ["clamp", "exp"])
def test_gradients_are_those_of_differences(affinity):
    x, proxies = unit(8, 4).requires_grad_(True), unit(3, 4, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda p: random_walk_similarity(p, affinity=affinity), x)
    assert torch.autograd.gradcheck(
        lambda p: random_walk_similarity(p, columns=torch.tensor([1, 5]), affinity=affinity), x
    )
    for kind in ("contextual", "intrinsic"):
        assert torch.autograd.gradcheck(
            lambda a, b, kind=kind: manifold_proxy_loss(a, META, b, kind=kind, affinity=affinity),
            (x, proxies),
        )
    assert torch.autograd.gradcheck(lambda a: manifold_npair_loss(a, META, affinity=affinity), x)


@pytest.mark.parametrize("affinity", ["clamp", "exp"])
@pytest.mark.parametrize("kind", ["contextual", "intrinsic"])
def test_the_losses_are_the_printed_sums(kind, affinity):
    x, proxies, m = unit(8, 5), unit(3, 5, seed=3), 0.01
    everything = torch.cat([x, proxies])
    f = 0.3 * torch.linalg.inv(torch.eye(11, dtype=torch.float64) - 0.7 * walk(everything, affinity))
    total = 0.0
    for n in range(8):  # eqs. 11 and 12
        k, inner = int(META[n]), 0.0
        for j in range(3):
            if j == k:
                continue
            if kind == "intrinsic":
                gap = f[n, 8 + j] - f[n, 8 + k]
            else:
                gap = f[n, 8:] @ f[8 + j, 8:] - f[n, 8:] @ f[8 + k, 8:]
            inner += math.exp(float(gap) + m)
        total += math.log(1 + inner) / 8
    found = manifold_proxy_loss(x, META, proxies, m, 0.7, kind, affinity)
    assert float(found) == pytest.approx(total, abs=1e-12)
    as_class = ManifoldProxyLoss(proxies, m, 0.7, kind, affinity)
    assert float(as_class(3 * x, META)) == pytest.approx(total, abs=1e-12)  # put on the sphere first


def test_the_npair_loss_takes_similarities_of_the_walk():
    x, f = unit(8, 5), random_walk_similarity(unit(8, 5), 0.6)
    terms = []
    for a in range(8):
        for p in range(8):
            if a != p and META[a] == META[p]:
                gaps = [float(f[a, n] - f[a, p]) + 0.2 for n in range(8) if META[n] != META[a]]
                terms.append(math.log(1 + sum(map(math.exp, gaps))))
    assert float(manifold_npair_loss(x, META, 0.2, 0.6)) == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    assert float(manifold_npair_loss(x, META)) != pytest.approx(float(npair_margin_loss(x, META)), abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_authors_loss_is_that_of_the_library_where_both_agree(weight):
    """Of their code, the library kept all but the temperature and the margin."""
    library = ManifoldLoss(l=5, K=3, lambdaC=weight, alpha=0.7, margin=1e-3).double()
    x = unit(8, 5).requires_grad_(True)
    proxies = functional.normalize(library.proxies.detach(), dim=1)
    expected = library(x, None, META)
    found = authors_manifold_loss(x, META, proxies, 0.7, temperature=0.5, margin=1e-3, context_weight=weight)
    # The library inverts in single precision.
    torch.testing.assert_close(found, expected.squeeze(), rtol=1e-5, atol=1e-6)
    (ours,), (theirs,) = (torch.autograd.grad(loss.sum(), x) for loss in (found, expected))
    radial = (theirs * x).sum(1, keepdim=True) * x  # its cosine has no gradient along x; ours is a product
    tangent = ours - (ours * x).sum(1, keepdim=True) * x
    torch.testing.assert_close(tangent, theirs - radial, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_point_dtype_is_taken_and_given_back(dtype):
    points = unit(6, 3).to(dtype)
    found = random_walk_similarity(points)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), random_walk_similarity(points.double()), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number above 0"),
        ({"alpha": 1.0}, "alpha must be below 1"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"affinity": "cosine"}, "affinity must be one of clamp, exp"),
        ({"affinity": "exp", "temperature": 0.0}, "temperature must be"),
        ({"columns": torch.tensor([6])}, "columns must be numbers of points from 0 to 5"),
        ({"columns": torch.tensor([0.5])}, "columns must be"),
        ({"columns": torch.arange(6) == 2}, "columns must be numbers of points, got truth values"),
        ({"points": 1e200 * unit(6, 3)}, "points must be of length one, got some whose products overflow"),
        ({"points": torch.zeros(0, 3)}, "points must be floating-point vectors"),
        ({"points": torch.zeros(3, 2, 2)}, "points must be floating-point vectors"),
        ({"points": torch.zeros(3, 2).long()}, "points must be floating-point vectors"),
        ({"points": torch.tensor([[math.nan, 0.0]])}, "points of image 0 has a NaN"),
    ],
)
def test_a_wrong_walk_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        random_walk_similarity(**{"points": unit(6, 3), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta_class": META + 1}, "meta_class must be numbers from 0 to 2, got 1 to 3"),
        ({"meta_class": META - 1}, "meta_class must be numbers from 0 to 2, got -1 to 1"),
        ({"meta_class": META[:4]}, "meta_class must be 8 whole numbers"),
        ({"proxies": unit(1, 5)}, "proxies must be at least 2"),
        ({"proxies": unit(3, 4)}, "proxies must have as many dimensions as x, 5, got 4"),
        ({"proxies": unit(3, 5).float()}, "x and proxies must share one dtype"),
        ({"kind": "both"}, "kind must be one of contextual, intrinsic"),
        ({"margin": -1.0}, "margin must be"),
        ({"alpha": 2.0}, "alpha must be below 1"),
    ],
)
def test_a_wrong_loss_is_refused(change, message):
    given = {"x": unit(8, 5), "meta_class": META, "proxies": unit(3, 5, seed=1), **change}
    with pytest.raises(ValueError, match=message):
        manifold_proxy_loss(**given)
