"""Ellipses lie where they should; tables show their numbers; pictures have their names."""

from __future__ import annotations

import numpy as np
import torch

from retrieval_geometry.reporting.drawing import draw_picture, draw_values, ellipse
from retrieval_geometry.reporting.figures import new_figure


def test_an_ellipse_is_so_many_deviations_from_the_mean() -> None:
    cov, mean = torch.tensor([[2.0, 0.5], [0.5, 1.0]]), torch.tensor([1.0, -1.0])
    away = torch.as_tensor(ellipse(cov, mean, radius=2.0)).float() - mean[:, None]
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), away, upper=False)
    np.testing.assert_allclose(whitened.norm(dim=0), 2.0, rtol=1e-5)


def test_an_ellipse_may_be_flat() -> None:
    assert np.allclose(ellipse([[1.0, 0.0], [0.0, 0.0]])[1], 0.0)


def test_values_are_written_into_their_cells() -> None:
    axes = new_figure(2, 2).subplots()
    draw_values(axes, [[1.0, 0.25], [0.25, 1.0]], ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert all(spine.get_visible() for spine in axes.spines.values())
    assert [text.get_color() for text in axes.texts] == ["black", "white", "white", "black"]


def test_a_picture_has_its_name_beside_or_below() -> None:
    left, below = new_figure(2, 2).subplots(1, 2)
    draw_picture(left, torch.zeros(3, 4, 6, dtype=torch.uint8), "brick")
    draw_picture(below, torch.zeros(3, 4, 6), "brick", side="bottom")
    assert (left.get_ylabel(), below.get_xlabel()) == ("brick", "brick")
    assert not any(spine.get_visible() for spine in left.spines.values())
    assert left.images[0].get_array().shape == (4, 6, 3)
