r"""A wavelet scattering of two orders: local descriptors without any learnt weight.

An image is convolved with oriented Morlet wavelets at J dyadic scales, its modulus taken, the result
convolved and its modulus taken again; a Gaussian about :math:`2^J` pixels wide then averages each of these
maps, and one value is kept in every block of :math:`2^J \times 2^J` pixels:

.. math:: S_0 = x * \phi_J, \quad S_1 = |x * \psi_{j_1 \theta_1}| * \phi_J, \quad
          S_2 = \bigl||x * \psi_{j_1 \theta_1}| * \psi_{j_2 \theta_2}\bigr| * \phi_J, \; j_1 < j_2

This is a fixed convolutional network of two layers (Mallat 2012; Bruna and Mallat 2013). It needs no
download and has seen no ImageNet: a baseline for texture and a stand-in for a trained network, not a
substitute for one.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import check_count, check_number
from retrieval_geometry.features.base import Backbone

# Rows: luminance, red against green, both against blue; orthonormal, so distances between colours are kept.
OPPONENT_COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=torch.float64)
OPPONENT_COLOURS /= OPPONENT_COLOURS.norm(dim=1, keepdim=True)


class Scattering(Backbone):
    r"""Two-order Morlet scattering of luminance, one-order scattering of two opponent colours.

    Source: Mallat 2012; Bruna and Mallat 2013; the colours and their compression are this package's own. Used
    in chapters 2 and 5.

    Images ``(B, 3, S, S)`` become descriptors ``(B, N, D)``. With J = 3 scales and L = 4 orientations a 96 x
    96 image gives 12 x 12 = 144 descriptors of 87 dimensions: luminance 1 + J L + L^2 J (J - 1) / 2 = 61,
    each colour 1 + J L = 13. Along D stand S0 (3), S1 of luminance (J L), S1 of the two colours (2 J L), S2
    of luminance (pairs of scales x L x L). S0 is an average colour; the others are compressed to
    :math:`\log(1 + S / \text{log\_scale})`, because their sizes spread over orders of magnitude and a normal
    distribution fits their logarithms better.

    The border is mirrored by :math:`2^J` pixels. All channels but S0 ignore a constant added to an image.
    Away from the border a shift by a multiple of :math:`2^J` pixels shifts the grid. Without the compression
    no distance between two (mirrored) images grows, summed over the :math:`4^J` places where the grid can
    lie, because :func:`littlewood_paley` is at most 1. The colour channels of a grey image are zero, so its
    covariance is singular: shrink it where a distance needs an inverse.

    Args:
        scales: J.
        orientations: L, spread evenly over half a turn.
        input_size: the side of the images, a multiple of 2^J.
        log_scale: the response below which the compression is about linear; None leaves it out. The default
            is one hundredth of the range of a pixel, a round number and not a tuned one.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> Scattering()(torch.rand(2, 3, 96, 96)).shape
        torch.Size([2, 144, 87])
    """

    psi: Tensor
    averaging: Tensor
    colours: Tensor

    def __init__(
        self,
        scales: int = 3,
        orientations: int = 4,
        input_size: int = 96,
        log_scale: float | None = 0.01,
    ) -> None:
        block = 2 ** check_count(scales, "scales", at_most=8)
        check_count(orientations, "orientations", at_most=64)
        check_count(input_size, "input_size", at_least=2 * block)
        if input_size % block:
            raise ValueError(f"input_size must be a multiple of 2^scales = {block}, got {input_size}")
        if log_scale is not None:
            check_number(log_scale, "log_scale", above=0)
        layer = f"J={scales} L={orientations} log_scale={log_scale}"
        super().__init__("scattering", layer, input_size, resize_size=input_size)
        self.scales, self.orientations, self.log_scale = scales, orientations, log_scale
        psi, phi = filter_bank(input_size + 2 * block, scales, orientations)
        self.register_buffer("psi", psi.float())
        self.register_buffer("averaging", averaging_matrix(phi, block).float())
        self.register_buffer("colours", OPPONENT_COLOURS.float())
        first = scales * orientations
        self.dim = 3 * (1 + first) + orientations * first * (scales - 1) // 2

    def feature_map(self, images: Tensor) -> Tensor:
        """Compute the scattering of checked images: ``(B, D, S / 2^J, S / 2^J)``."""
        return self.scatter(functional.pad(images, [2**self.scales] * 4, mode="reflect"))

    def scatter(self, padded: Tensor) -> Tensor:
        """Scatter images ``(B, 3, P, P)`` that have their border, as if they repeated without end."""
        coloured = torch.einsum("oc,bchw->bohw", self.colours, padded)
        first = self._modulus(coloured, self.psi)  # (B, 3, J L, P, P)
        parts = [self._average(first.flatten(1, 2))]
        luminance = first[:, 0].unflatten(1, (self.scales, self.orientations))
        for j in range(self.scales - 1):
            second = self._modulus(luminance[:, j], self.psi[(j + 1) * self.orientations :])
            parts.append(self._average(second.flatten(1, 2)))
        waves = torch.cat(parts, dim=1)
        if self.log_scale is not None:
            waves = (waves / self.log_scale).log1p()
        return torch.cat([self._average(coloured), waves], dim=1)

    def _modulus(self, maps: Tensor, filters: Tensor) -> Tensor:
        """Take ``|x * psi|`` for every filter: ``(B, C, P, P), (F, P, P) -> (B, C, F, P, P)``."""
        return torch.fft.ifft2(torch.fft.fft2(maps).unsqueeze(2) * filters).abs()

    def _average(self, maps: Tensor) -> Tensor:
        """Average around the grid points inside the border: ``(B, C, P, P) -> (B, C, S / 2^J, S / 2^J)``."""
        return self.averaging @ maps @ self.averaging.mT


def filter_bank(size: int, scales: int, orientations: int) -> tuple[Tensor, Tensor]:
    r"""Morlet wavelets and the Gaussian that goes with them, by their (real) Fourier transforms.

    .. math:: \hat\psi(\omega) = c\,\bigl(e^{-\frac12 (\omega - \xi)^\top \Sigma (\omega - \xi)}
              - \beta\, e^{-\frac12 \omega^\top \Sigma \omega}\bigr), \qquad \hat\psi(0) = 0

    with :math:`|\xi| = 3\pi/4 \cdot 2^{-j}` along the orientation, a width of :math:`0.8 \cdot 2^j` pixels
    along it and L / 4 times that across; :math:`\hat\phi` is a Gaussian :math:`0.8 \cdot 2^{J-1}` pixels wide
    with :math:`\hat\phi(0) = 1`; c is the largest number that keeps :func:`littlewood_paley` at or below 1.

    Returns:
        ``psi (J L, size, size)``, finest scale first, and ``phi (size,)``, whose outer product with itself is
        :math:`\hat\phi`; float64, zero frequency first.
    """
    frequency = 2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64)
    # Sampling in space makes the spectrum periodic: the neighbouring periods that still reach in are added.
    periods = 2 * math.pi * torch.arange(-2, 3, dtype=torch.float64)
    phi = torch.exp(-0.5 * (0.8 * 2 ** (scales - 1) * (frequency[:, None] + periods)) ** 2).sum(dim=1)
    phi = phi / phi[0]
    fy, fx = torch.meshgrid(frequency, frequency, indexing="ij")
    psi = []
    for j in range(scales):
        for turn in math.pi * torch.arange(orientations) / orientations:
            width, centre = 0.8 * 2**j, 0.75 * math.pi / 2**j
            wave, mean = torch.zeros_like(fx), torch.zeros_like(fx)
            for y, x in torch.cartesian_prod(periods, periods):
                along = turn.cos() * (fx + x) + turn.sin() * (fy + y)
                across = (turn.cos() * (fy + y) - turn.sin() * (fx + x)) * orientations / 4
                wave += torch.exp(-0.5 * width**2 * ((along - centre) ** 2 + across**2))
                mean += torch.exp(-0.5 * width**2 * (along**2 + across**2))
            psi.append(wave - wave[0, 0] / mean[0, 0] * mean)
    bank = torch.stack(psi)
    energy = littlewood_paley(bank, torch.zeros_like(phi)).flatten()[1:]
    room = 1 - torch.outer(phi, phi).square().flatten()[1:]
    return bank * (room / energy).min().sqrt(), phi


def littlewood_paley(psi: Tensor, phi: Tensor) -> Tensor:
    r"""Sum the energies of the filters at every frequency; at most 1 where none of them expands.

    .. math:: |\hat\phi(\omega)|^2 + \tfrac12 \sum_{j \theta} |\hat\psi_{j\theta}(\omega)|^2
              + |\hat\psi_{j\theta}(-\omega)|^2
    """
    mirrored = psi.flip(-2, -1).roll((1, 1), (-2, -1))
    return torch.outer(phi, phi).square() + 0.5 * (psi.square() + mirrored.square()).sum(dim=0)


def averaging_matrix(phi: Tensor, block: int) -> Tensor:
    """Convolve with ``phi`` and keep every ``block``-th pixel inside the border: ``(S / block, P)``."""
    kernel = torch.fft.ifft(phi).real
    places = torch.arange(block, len(phi) - block, block)
    return kernel[(places[:, None] - torch.arange(len(phi))) % len(phi)]
