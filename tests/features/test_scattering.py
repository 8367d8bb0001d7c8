"""The scattering: theorems it must obey, a brute-force reference, refusals."""

import cmath
import math

import pytest
import torch

from retrieval_geometry.features import Scattering
from retrieval_geometry.features.scattering import filter_bank, littlewood_paley


@pytest.fixture(scope="module")
def linear():
    """Without compression, small and in float64."""
    return Scattering(scales=2, orientations=3, input_size=24, log_scale=None).double()


def _shifts(padded, block):
    for dy in range(block):
        for dx in range(block):
            yield padded.roll((dy, dx), (-2, -1))


def test_default_grid_and_dimensions():
    scattering = Scattering()
    descriptors = scattering(torch.rand(2, 3, 96, 96))
    assert descriptors.shape == (2, 144, 87)
    assert scattering.dim == 87
    assert descriptors.dtype == torch.float32


@pytest.mark.parametrize(("scales", "orientations", "size"), [(1, 4, 8), (2, 3, 24), (3, 1, 32), (4, 2, 64)])
def test_declared_dimension_is_the_true_one(scales, orientations, size):
    scattering = Scattering(scales, orientations, size)
    assert scattering(torch.rand(1, 3, size, size)).shape == (1, (size // 2**scales) ** 2, scattering.dim)


@pytest.mark.parametrize(
    ("size", "scales", "orientations"), [(112, 3, 4), (32, 2, 3), (48, 3, 8), (12, 1, 2)]
)
def test_littlewood_paley_sum_is_at_most_one(size, scales, orientations):
    """Bruna and Mallat 2013, eq. 7: no frequency is amplified, and the bound is reached."""
    total = littlewood_paley(*filter_bank(size, scales, orientations))
    assert total.max() <= 1 + 1e-12
    assert total.max() > 1 - 1e-3
    assert total.min() > 0


def test_wavelets_have_zero_mean_and_the_gaussian_has_mean_one():
    psi, phi = filter_bank(32, 2, 3)
    assert psi[:, 0, 0].abs().max() < 1e-15
    assert phi[0] == 1


def test_wavelets_are_rotations_of_each_other():
    psi, _ = filter_bank(32, 2, 4)
    # A quarter turn of the frequency plane takes orientation k to k + 2.
    quarter = psi.mT.flip(-1).roll(1, -1)
    torch.testing.assert_close(quarter[0], psi[2])
    torch.testing.assert_close(quarter[5], psi[7])


def test_it_never_expands_a_distance(linear):
    """Mallat 2012, prop. 2.5: ||S x - S y|| <= ||x - y||, here summed over all places of the grid."""
    x, y = torch.rand(2, 1, 3, 32, 32, dtype=torch.float64)
    pairs = zip(_shifts(x, 4), _shifts(y, 4), strict=True)
    distance = sum((linear.scatter(a) - linear.scatter(b)).square().sum() for a, b in pairs)
    assert distance <= (x - y).square().sum()


def test_a_shift_by_a_block_shifts_the_grid(linear):
    """Translation covariance: exact for images that repeat without end."""
    padded = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    grid, shifted = linear.scatter(padded), linear.scatter(padded.roll((4, -8), (-2, -1)))
    torch.testing.assert_close(shifted[..., 1:, :-2], grid[..., :-1, 2:])


def test_a_constant_moves_only_the_average_colour(linear):
    x = 0.5 * torch.rand(1, 3, 24, 24, dtype=torch.float64)
    offset = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)[:, None, None]
    change = linear(x + offset) - linear(x)
    torch.testing.assert_close(change[..., 3:], torch.zeros_like(change[..., 3:]), atol=1e-12, rtol=0)
    expected = (linear.colours @ offset.flatten()).expand_as(change[..., :3])
    torch.testing.assert_close(change[..., :3], expected)


def test_first_order_is_linear_in_contrast(linear):
    x = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(linear(0.5 * x), 0.5 * linear(x))


def test_grey_images_have_no_colour(linear):
    grey = torch.rand(1, 1, 24, 24, dtype=torch.float64).expand(1, 3, 24, 24)
    first = linear.scales * linear.orientations
    colour = torch.cat([linear(grey)[..., 1:3], linear(grey)[..., 3 + first : 3 + 3 * first]], dim=-1)
    assert colour.abs().max() < 1e-7


def test_one_coefficient_of_each_order_by_brute_force(linear):
    """Convolutions in space, one by one, from the inverse Fourier transforms of the filters."""
    padded = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    grid, first = linear.scatter(padded)[0, :, 2, 3], linear.scales * linear.orientations
    x = (padded[0] * linear.colours[0][:, None, None]).sum(0)

    def convolve(image, kernel):
        out = torch.zeros(32, 32, dtype=torch.complex128)
        for y in range(32):
            for z in range(32):
                out[y, z] = (image * kernel.flip(0, 1).roll((y + 1, z + 1), (0, 1))).sum()
        return out

    wavelets = [torch.fft.ifft2(psi) for psi in linear.psi]
    fine = convolve(x, wavelets[1]).abs()
    second = convolve(fine, wavelets[5]).abs()
    window = torch.outer(linear.averaging[2], linear.averaging[3])
    torch.testing.assert_close(grid[0], (x * window).sum())
    torch.testing.assert_close(grid[3 + 1], (fine * window).sum())
    torch.testing.assert_close(grid[3 + 3 * first + 1 * 3 + 2], (second * window).sum())


def test_averaging_is_the_gaussian_around_its_grid_point(linear):
    _, phi = filter_bank(32, 2, 3)
    kernel = [
        sum(float(phi[f]) * cmath.exp(2j * math.pi * f * n / 32) for f in range(32)).real / 32
        for n in range(32)
    ]
    row = linear.averaging[2]
    assert int(row.argmax()) == 12
    expected = [kernel[(12 - n) % 32] for n in range(32)]
    torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=0)
    torch.testing.assert_close(linear.averaging.sum(1), torch.ones(6, dtype=torch.float64))


def test_log_compression_is_the_logarithm_of_the_linear_one():
    plain, compressed = (Scattering(2, 2, 16, log_scale=scale) for scale in (None, 0.05))
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(compressed(x)[..., 3:], (plain(x)[..., 3:] / 0.05).log1p())
    torch.testing.assert_close(compressed(x)[..., :3], plain(x)[..., :3])
    assert plain.identity != compressed.identity


def test_a_constant_image_has_one_descriptor_everywhere():
    descriptors = Scattering()(torch.full((1, 3, 96, 96), 0.4))
    torch.testing.assert_close(descriptors, descriptors[:, :1].expand_as(descriptors), atol=1e-4, rtol=0)
    assert descriptors[..., 3:].abs().max() < 1e-3


def test_stripes_answer_at_their_own_orientation_and_scale():
    scattering = Scattering(log_scale=None)
    wave = 0.5 + 0.5 * torch.sin(0.75 * math.pi / 2 * torch.arange(96.0))
    response = scattering(wave.expand(1, 3, 96, 96))[0, :, 3:15].mean(0)
    assert int(response.argmax()) == 4  # second scale, first orientation: along x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_the_pixels(dtype):
    x = torch.rand(1, 3, 16, 16, dtype=dtype, requires_grad=True)
    Scattering(1, 2, 16).to(dtype)(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": 0}, "scales"),
        ({"orientations": 0}, "orientations"),
        ({"input_size": 100}, "multiple of 2\\^scales = 8"),
        ({"input_size": 8}, "input_size"),
        ({"log_scale": 0.0}, "log_scale"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scattering(**arguments)


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    x = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(Scattering()(x), Scattering().cuda()(x.cuda()).cpu(), atol=1e-4, rtol=1e-4)
