"""The constraint losses: equations 2 to 4 as they stand, and what no batch can go below."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.projections import constraint_losses, covariance_floor
from retrieval_geometry.projections.constraints import live_moments, losses_of_moments, unbiased_losses

from .common import references


def transcription(z: torch.Tensor) -> dict[str, float]:
    """Equations 2, 3 and 4 entry by entry."""
    n, d = z.shape
    mu = [sum(float(z[k, i]) for k in range(n)) / n for i in range(d)]
    cov = [
        [sum((float(z[k, i]) - mu[i]) * (float(z[k, j]) - mu[j]) for k in range(n)) / n for j in range(d)]
        for i in range(d)
    ]
    return {
        "cov": sum((cov[i][j] - (i == j)) ** 2 for i in range(d) for j in range(d)),
        "var": sum((cov[i][i] - 1) ** 2 for i in range(d)) / d,
        "mean": sum(m**2 for m in mu) / d,
        "off": sum(cov[i][j] ** 2 for i in range(d) for j in range(d) if i != j),
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_losses_are_those_of_equations_2_to_4(dtype: torch.dtype, tolerance: float) -> None:
    z = 1.5 * references(20, 5).to(dtype)
    found = constraint_losses(z)
    for name, expected in transcription(z).items():
        assert found[name].dtype == dtype
        assert float(found[name]) == pytest.approx(expected, rel=tolerance), name


def test_equation_2_punishes_the_diagonal_that_the_text_leaves_out() -> None:
    """Erratum 4.1: independent coordinates of variance 4 have no covariance, and 9 d of loss."""
    z = 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    found = constraint_losses(z)
    assert float(found["off"]) == 0
    assert float(found["cov"]) == 18
    drawn = constraint_losses(references())
    assert float(drawn["cov"]) == pytest.approx(float(drawn["off"] + 6 * drawn["var"]), rel=1e-12)


@pytest.mark.parametrize(("n", "dim"), [(3, 8), (8, 8), (9, 8), (20, 8), (1, 4)])
def test_no_batch_falls_below_the_floor_and_whitened_vectors_reach_it(n: int, dim: int) -> None:
    floor = covariance_floor(n, dim)
    for seed in range(5):
        assert float(constraint_losses(3 * references(n, dim, seed))["cov"]) >= floor - 1e-9
    centred = references(n, dim) - references(n, dim).mean(dim=0)
    left, _, right = torch.linalg.svd(centred, full_matrices=False)
    rank = min(n - 1, dim)
    whitened = n**0.5 * left[:, :rank] @ right[:rank]
    assert float(constraint_losses(whitened)["cov"]) == pytest.approx(floor, abs=1e-9)


def test_the_floor_of_the_papers_batch() -> None:
    assert covariance_floor(256, 1280) == 1025


def test_the_gradient_is_that_of_central_differences() -> None:
    z = references(7, 4).requires_grad_()

    def total(x: torch.Tensor) -> torch.Tensor:
        found = constraint_losses(x)
        return found["cov"] + 2 * found["var"] + 3 * found["mean"] + 4 * found["off"]

    assert torch.autograd.gradcheck(total, (z,))


def test_held_out_vectors_are_measured_without_the_floor() -> None:
    """The average over many small samples is the loss of the distribution, which is 0 here."""
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(3000)]
    found = torch.stack([unbiased_losses(z, torch.zeros(8))["cov"] for z in samples])
    standard_error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean())) < 4 * standard_error
    plain = torch.stack([constraint_losses(z)["cov"] for z in samples[:20]])
    assert float(plain.min()) >= covariance_floor(5, 8)


def test_gradients_of_parts_add_up_to_that_of_the_whole() -> None:
    z = references(12, 4)
    whole = z.clone().requires_grad_()
    losses_of_moments(*_moments(whole))["cov"].backward()
    parts = []
    for part in z.split(5):
        leaf = part.clone().requires_grad_()
        live = live_moments(leaf, z.mean(dim=0), z.mT @ z / len(z), share=len(part) / len(z))
        loss = losses_of_moments(*live)["cov"]
        assert float(loss.detach()) == pytest.approx(float(constraint_losses(z)["cov"]), rel=1e-12)
        loss.backward()
        parts.append(leaf.grad)
    torch.testing.assert_close(torch.cat(parts), whole.grad)


def _moments(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = z.mean(dim=0)
    return mean, (z - mean).mT @ (z - mean) / len(z)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(3), "z must have shape"),
        (torch.zeros(0, 3), "z must have shape"),
        (torch.zeros(3, 2).int(), "z must be float32 or float64"),
        (torch.tensor([[0.0], [torch.nan]]), "NaN"),
        ([[1.0]], "z must be a torch tensor"),
    ],
)
def test_no_batch_of_vectors_is_refused(z: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        constraint_losses(z)


@pytest.mark.parametrize(("n", "dim", "name"), [(0, 3, "n"), (3, 0, "dim"), (2.5, 3, "n")])
def test_a_floor_of_nothing_is_refused(n: int, dim: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        covariance_floor(n, dim)
