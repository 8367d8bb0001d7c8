"""Whitening in closed form: what it is, whatever the input, and what `auto` chooses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import Tensor

from retrieval_geometry.projections import PCAWhitening, constraint_losses, streaming_moments
from retrieval_geometry.projections._automatic import agreement, likeliest_share

from .common import cosines, references


def closed_form(x: np.ndarray) -> np.ndarray:
    """Covariance to the power -1/2 on its axes, by numpy."""
    centred = x - x.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(x))
    return (centred @ axes / np.sqrt(values))[:, ::-1]


def test_full_whitening_is_the_closed_form() -> None:
    x = references(80, 6).numpy()
    found = PCAWhitening().fit_transform(x)
    expected = closed_form(x)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-20), (torch.float32, 1e-9)])
def test_full_whitening_meets_every_constraint(dtype: torch.dtype, most: float) -> None:
    """The control of [ae-svc]: equations 2 to 4 are 0 without any training."""
    z = PCAWhitening().fit_transform(references(80, 6, dtype=dtype))
    assert z.dtype == dtype
    assert max(float(value) for value in constraint_losses(z).values()) < most


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
def test_each_axis_is_divided_by_a_power_of_its_deviation(power: float) -> None:
    x = references(80, 6).numpy()
    plain = PCA().fit(x)
    found = PCAWhitening(power).fit_transform(x)
    deviations = plain.transform(x).std(axis=0)
    np.testing.assert_allclose(np.abs(found), np.abs(plain.transform(x)) / deviations**power, atol=1e-10)


def test_power_0_keeps_the_cosines_of_centred_embeddings() -> None:
    x = references()
    torch.testing.assert_close(cosines(PCAWhitening(0.0).fit_transform(x)), cosines(x - x.mean(dim=0)))


def test_components_are_those_of_the_largest_variance() -> None:
    x = references()
    few, all_of_them = PCAWhitening(n_components=2).fit(x), PCAWhitening().fit(x)
    torch.testing.assert_close(few.transform(x), all_of_them.transform(x)[:, :2])
    assert few.variances_.tolist() == sorted(all_of_them.variances_.tolist())[:-3:-1]


def test_the_sign_of_an_axis_is_certain() -> None:
    """Its largest entry is positive: embeddings of two fits may be compared."""
    matrix = PCAWhitening().fit(references()).matrix_
    largest = matrix.gather(1, matrix.abs().argmax(dim=1, keepdim=True))
    assert bool((largest > 0).all())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shrinkage_moves_eigenvalues_to_their_mean(share: float) -> None:
    x = references()
    found = PCAWhitening(shrinkage=share).fit(x)
    values = PCAWhitening().fit(x).variances_
    lengths = found.matrix_.square().sum(dim=1)
    torch.testing.assert_close(lengths, 1 / ((1 - share) * values + share * values.mean()))


@pytest.mark.parametrize("n", [12, 60, 400])
def test_ledoit_and_wolf_is_that_of_scikit_learn(n: int) -> None:
    x = references(n, 20).numpy()
    assert PCAWhitening(shrinkage="ledoit-wolf").fit(x).shrinkage_ == pytest.approx(
        ledoit_wolf(x)[1], rel=1e-9
    )


def test_shrunk_whitening_takes_fewer_references_than_dimensions() -> None:
    x = references(10, 30)
    z = PCAWhitening(shrinkage="ledoit-wolf").fit_transform(x)
    assert z.shape == (10, 30)
    assert bool(z.isfinite().all())


def noisy_views(power: float, n: int = 400) -> Tensor:
    """What is common has deviations 1, ..., 1/16; noise of each coordinate has one deviation."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(n, 5, generator=generator).double() * torch.logspace(0, -1.2, 5).double()
    mixing = torch.linalg.qr(torch.randn(40, 5, generator=generator).double())[0]
    return common @ mixing.mT + power * torch.randn(n, 40, generator=generator).double()


def test_auto_whitens_little_where_small_axes_are_noise() -> None:
    noisy = PCAWhitening(shrinkage="auto").fit(noisy_views(0.05))
    clean = PCAWhitening(shrinkage="auto").fit(noisy_views(1e-4))
    assert noisy.power_ < 1
    assert noisy.scores_["1"] < noisy.scores_[f"{noisy.power_:g}"]
    assert set(clean.scores_) == {"0", "0.25", "0.5", "0.75", "1"}
    assert 0 <= noisy.shrinkage_ <= 1


def test_auto_uses_no_label_and_is_the_same_again() -> None:
    x = noisy_views(0.02)
    first, second = (PCAWhitening(shrinkage="auto").fit(x) for _ in range(2))
    assert (first.power_, first.shrinkage_) == (second.power_, second.shrinkage_)
    assert torch.equal(first.transform(x), second.transform(x))


def test_the_likeliest_share_grows_where_the_covariance_is_badly_known() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for n in (30, 3000):
        x = torch.randn(n, 20, generator=generator).double()
        held = torch.randn(500, 20, generator=generator).double()
        shares.append(likeliest_share(streaming_moments(x).covariance, held))
    assert shares[0] > 0.3  # the true covariance is the identity, which full shrinkage gives
    scales = torch.logspace(0, -1, 20).double()
    known = streaming_moments(scales * torch.randn(3000, 20, generator=generator).double())
    assert likeliest_share(known.covariance, scales * held) < 0.01


def test_agreement_counts_common_neighbours() -> None:
    x = references(30, 6)
    assert agreement(x, 3 * x) == 1
    assert agreement(x, references(30, 6, seed=9)) < 0.6


@pytest.mark.parametrize(
    "made", [np.asarray, np.ndarray.tolist, lambda x: x.astype(">f8"), lambda x: x[:, ::-1]]
)
def test_what_can_be_read_as_numbers_is_taken(made: object) -> None:
    x = references().numpy()
    given = made(x)  # type: ignore[operator]
    found = PCAWhitening().fit(given).transform(given)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, PCAWhitening().fit_transform(np.array(given, dtype=float)))


def test_half_precision_is_read_as_single() -> None:
    x = references().numpy().astype(np.float16)
    found = PCAWhitening().fit_transform(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, PCAWhitening().fit_transform(x.astype(np.float32)))


def test_a_memory_mapped_file_is_whitened_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = references(200, 6, dtype=torch.float32).numpy()
    expected = PCAWhitening(n_components=3).fit_transform(x)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr("retrieval_geometry.projections._rows.BLOCK_BYTES", 2000)
    out = np.lib.format.open_memmap(tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=(200, 3))
    PCAWhitening(n_components=3).fit(mapped).transform(mapped, out=out)
    out.flush()
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected, rtol=1e-4, atol=1e-5)


def test_it_is_a_transformer_of_scikit_learn() -> None:
    x = references().numpy()
    model = PCAWhitening(power=0.5, n_components=4)
    assert clone(model).get_params() == model.get_params()
    pipeline = make_pipeline(model, PCAWhitening(n_components=2)).fit(x)
    assert pipeline.transform(x).shape == (60, 2)
    assert model.set_params(power=1.0).power == 1.0


BAD = [
    ({}, references(1), "X must have at least 2 row(s) to have a covariance, got 1"),
    ({}, references(0), "X must have at least 2 row(s)"),
    ({}, references(5, 6), "X has 5 references that vary in 4 of 6 directions"),
    ({}, torch.ones(9, 3), "X has 9 references that are all alike"),
    ({}, torch.cat([references(9, 2), torch.ones(9, 1)], dim=1), "vary in 2 of 3 directions"),
    ({}, references(4, 3)[[0, 1, 0, 1]], "vary in 1 of 3 directions"),
    ({}, references(3)[0], "X must have shape (n, d)"),
    ({}, torch.tensor([[1.0, 2.0], [torch.nan, 1.0]]), "X of row 1 has a NaN"),
    ({}, np.array([["a", "b"]]), "X must be a tensor or an array of real numbers"),
    ({}, [[1.0], [1.0, 2.0]], "X must be a tensor or an array"),
    ({}, torch.ones(3, 2).half(), "X must be float32 or float64"),
    ({"shrinkage": 1e-300}, references(5, 6), "vary in 4 of 6 directions"),
    ({"power": -1}, references(), "power must be"),
    ({"power": "auto"}, references(), "power must be"),
    ({"shrinkage": 1.5}, references(), "shrinkage must be"),
    ({"shrinkage": "oas"}, references(), "shrinkage must be one of ledoit-wolf, auto"),
    ({"shrinkage": "auto"}, references(7), "needs X with at least 8 rows"),
    ({"shrinkage": "auto"}, references(9, 1), "two dimensions"),
    ({"n_components": 7}, references(), "n_components must be at most 6"),
    ({"n_components": 0}, references(), "n_components must be"),
    ({"random_state": -1}, references(), "random_state must be"),
]


@pytest.mark.parametrize(("settings", "x", "message"), BAD, ids=[f"{s} {m}" for s, _, m in BAD])
def test_bad_input_is_named(settings: dict[str, object], x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        PCAWhitening(**settings).fit(x)  # type: ignore[arg-type]


def test_what_is_fitted_is_projected_and_nothing_else() -> None:
    x = references()
    with pytest.raises(NotFittedError):
        PCAWhitening().transform(x)
    model = PCAWhitening().fit(x)
    with pytest.raises(ValueError, match="rows of length 6, as the projection was fitted to, got 5"):
        model.transform(x[:, :5])
    with pytest.raises(ValueError, match=re.escape("X must have at least 1 row(s) to project, got 0")):
        model.transform(x[:0])
    with pytest.raises(ValueError, match="X of row 2 has a NaN"):
        model.transform(x.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(ValueError, match=re.escape("out must be an array or a tensor of shape (60, 6)")):
        model.transform(x, out=torch.zeros(3))
