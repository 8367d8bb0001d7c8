"""Section 4 of [ae-svc]: what holds, what is approximate, and what was misprinted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retrieval_geometry.projections import (
    cosine_variance,
    cosine_variance_gradient,
    effective_dimension,
    exact_cosine_variance,
    exceedance_probability,
    squared_length_dispersion,
)
from retrieval_geometry.projections._as_printed import (
    exceedance_probability_as_printed,
    squared_length_dispersion_as_printed,
)

SPECTRA = {
    "flat": torch.ones(32),
    "gentle": torch.arange(1, 33).double() ** -0.5,
    "steep": torch.arange(1, 33).double() ** -2,
    "one rules": torch.cat([torch.tensor([30.0]), torch.ones(31)]),
}


def drawn_cosines(variances: Tensor, pairs: int = 200_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, pairs, len(variances), generator=generator).double() * variances.double().sqrt()
    return torch.nn.functional.cosine_similarity(x, y, dim=1)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_exact_variance_is_that_of_draws(name: str) -> None:
    variances = SPECTRA[name].double()
    squares = drawn_cosines(variances).square()
    error = float(squares.std()) / len(squares) ** 0.5
    assert float(exact_cosine_variance(variances)) == pytest.approx(float(squares.mean()), abs=4 * error)


def test_equation_13_overestimates_skewed_spectra() -> None:
    """Erratum 4.4."""
    for name, least, most in (("flat", 1, 1.0001), ("gentle", 1.0001, 1.1), ("steep", 1.3, 4)):
        variances = SPECTRA[name].double()
        ratio = float(cosine_variance(variances) / exact_cosine_variance(variances))
        assert least - 1e-9 <= ratio <= most, name


@pytest.mark.parametrize("d", [1, 2, 5, 300])
def test_equal_variances_have_a_variance_of_one_over_d(d: int) -> None:
    equal = torch.full((d,), 7.0, dtype=torch.float64)
    for function in (cosine_variance, exact_cosine_variance):
        assert float(function(equal)) == pytest.approx(1 / d, rel=1e-9)
    assert float(effective_dimension(equal)) == pytest.approx(d)


def test_two_variances_have_a_closed_form() -> None:
    """E X^2 / (X^2 + Y^2) = s / (s + t) for standard deviations s and t."""
    for s, t in ((1.0, 1.0), (3.0, 1.0), (100.0, 1.0)):
        expected = (s**2 + t**2) / (s + t) ** 2
        found = exact_cosine_variance(torch.tensor([s, t], dtype=torch.float64).square())
        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_no_unit_matters(scale: float) -> None:
    variances = SPECTRA["gentle"].double()
    for function in (cosine_variance, exact_cosine_variance, effective_dimension, squared_length_dispersion):
        torch.testing.assert_close(function(scale * variances), function(variances))


def test_the_variance_of_a_batch_of_spectra() -> None:
    stacked = torch.stack([spectrum.double() for spectrum in SPECTRA.values()]).view(2, 2, 32)
    found = exact_cosine_variance(stacked)
    assert found.shape == (2, 2)
    torch.testing.assert_close(found[1, 0], exact_cosine_variance(SPECTRA["steep"].double()))


@pytest.mark.parametrize("name", SPECTRA)
def test_equation_14_is_right(name: str) -> None:
    variances = SPECTRA[name].double().requires_grad_()
    (variances.square().sum() / variances.sum().square()).backward()
    torch.testing.assert_close(cosine_variance_gradient(variances), variances.grad, atol=1e-15, rtol=1e-9)


def test_equal_variances_are_the_minimum() -> None:
    flat = SPECTRA["flat"].double()
    assert float(cosine_variance_gradient(flat).abs().max()) < 1e-15
    for spectrum in SPECTRA.values():
        for function in (cosine_variance, exact_cosine_variance):
            assert float(function(spectrum.double())) >= float(function(flat)) - 1e-12


def test_the_probability_is_that_of_a_normal_distribution() -> None:
    """Erratum 4.2: the printed form goes to -1."""
    mean, variance = torch.tensor(0.1).double(), torch.tensor(0.04).double()
    for threshold in (-5.0, 0.0, 0.1, 0.3, 5.0):
        at = torch.tensor(threshold).double()
        expected = 1 - torch.distributions.Normal(mean, variance.sqrt()).cdf(at)
        torch.testing.assert_close(exceedance_probability(mean, variance, at), expected)
    far = torch.tensor(5.0).double()
    assert float(exceedance_probability_as_printed(mean, variance, far)) == pytest.approx(-1)


def test_a_smaller_variance_lowers_it_above_the_mean() -> None:
    """Erratum 4.2: with eq. 12's mean 0 it speaks of false matches."""
    zero, threshold = torch.tensor(0.0), torch.tensor(0.2)
    wide, narrow = (float(exceedance_probability(zero, torch.tensor(v), threshold)) for v in (0.05, 0.01))
    assert narrow < wide


def test_far_tails_keep_their_digits() -> None:
    found = exceedance_probability(*(torch.tensor(v).double() for v in (0.0, 1.0, 20.0)))
    assert float(found) == pytest.approx(0.5 * math.erfc(20 / math.sqrt(2)), rel=1e-12)


def test_the_dispersion_of_squared_lengths_is_that_of_draws() -> None:
    """Erratum 4.3: the printed ratio changes with the unit."""
    variances = SPECTRA["gentle"].double()
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.randn(200_000, 32, generator=generator).double().square() * variances).sum(dim=1)
    expected = float(lengths.var() / lengths.mean().square())
    assert float(squared_length_dispersion(variances)) == pytest.approx(expected, rel=0.02)
    printed = [float(squared_length_dispersion_as_printed(scale * variances)) for scale in (1, 4)]
    assert printed[0] == pytest.approx(4 * printed[1])


@pytest.mark.parametrize(
    "function",
    [
        cosine_variance,
        exact_cosine_variance,
        effective_dimension,
        cosine_variance_gradient,
        squared_length_dispersion,
    ],
)
@pytest.mark.parametrize(
    "variances",
    [
        torch.tensor([1.0, -1.0]),
        torch.zeros(3),
        torch.tensor([1.0, torch.nan]),
        torch.tensor(1.0),
        torch.zeros(2, 0),
        torch.tensor([1, 2]),
    ],
    ids=["below 0", "all 0", "NaN", "no axis", "no entries", "whole"],
)
def test_no_spectrum_is_refused(function: object, variances: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^variances "):
        function(variances)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0)), "variance must be above 0"),
        ((torch.tensor(torch.nan), torch.tensor(1.0), torch.tensor(0.0)), "mean"),
        ((0.0, torch.tensor(1.0), torch.tensor(0.0)), "mean must be a torch tensor"),
        ((torch.zeros(2), torch.ones(3), torch.zeros(1)), "shapes that fit"),
        ((torch.zeros(2).double(), torch.ones(2), torch.zeros(2)), "share one dtype"),
    ],
)
def test_no_distribution_is_refused(arguments: tuple[Tensor, Tensor, Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        exceedance_probability(*arguments)
