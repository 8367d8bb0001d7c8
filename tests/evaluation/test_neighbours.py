"""Exact nearest neighbours, against a full stable sort in float64."""

import subprocess
import sys

import pytest
import torch

from retrieval_geometry.evaluation import nearest_neighbours


def full_sort(queries, gallery, k, metric, own=None):
    """Three loops, with ties to the lower index."""
    distances, indices = [], []
    for q, query in enumerate(queries.double()):
        row = []
        for i, item in enumerate(gallery.double()):
            if own is None or i != own[q]:
                gap = (query - item).norm()
                cosine = 1 - torch.dot(query, item) / (query.norm() * item.norm())
                row.append((float(gap if metric == "euclidean" else cosine), i))
        row.sort()
        distances.append([distance for distance, _ in row[:k]])
        indices.append([i for _, i in row[:k]])
    return torch.tensor(distances, dtype=torch.float64), torch.tensor(indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_against_a_full_sort(dtype, metric, k):
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(n, 6, generator=generator, dtype=dtype) for n in (20, 60))
    found = nearest_neighbours(queries, gallery, k, metric)
    expected = full_sort(queries, gallery, k, metric)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[1], expected[1])
    assert found[0].dtype == dtype


def test_ties_go_to_the_lower_index():
    points = torch.randint(0, 2, (120, 3), generator=torch.Generator().manual_seed(1)).float()
    found = nearest_neighbours(points, k=5)
    expected = full_sort(points, points, 5, "euclidean", torch.arange(120))
    assert torch.equal(found[1], expected[1])
    collapsed = nearest_neighbours(torch.ones(90, 4), k=3)[1]
    assert collapsed[0].tolist() == [1, 2, 3]
    assert collapsed[50].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (0.0, 1e30), (0.0, 1e-30)])
def test_far_from_the_origin_and_in_any_unit(offset, scale):
    points = torch.randn(80, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = points * scale + offset
    assert torch.equal(nearest_neighbours(moved, k=4)[1], nearest_neighbours(points, k=4)[1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e160, 1e200, 1e299])
def test_squares_that_leave_float64(metric, scale):
    points = torch.randn(80, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, expected = (nearest_neighbours(x, k=4, metric=metric) for x in (points * scale, points))
    assert torch.equal(found[1], expected[1])
    unit = scale if metric == "euclidean" else 1.0
    torch.testing.assert_close(found[0] / unit, expected[0], rtol=1e-12, atol=0)


def test_an_outlier_does_not_matter_to_the_others():
    """Scales of 1e-200, 1 and 1e200 in one gallery: each query finds its like."""
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mixed = torch.cat([1e-200 * points, 9 + points, 1e200 * (9 + points)])
    found = nearest_neighbours(mixed, k=5)[1]
    for start, alone in ((0, points), (40, 9 + points), (80, 9 + points)):
        assert torch.equal(found[start : start + 40], nearest_neighbours(alone, k=5)[1] + start)


def test_ties_do_not_hang_on_last_bits():
    """Mirrored points are equally far; with rounding added to them they still come by their index."""
    generator = torch.Generator().manual_seed(4)
    base = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    signs = 2 * torch.randint(0, 2, (90, 6), generator=generator).double() - 1
    gallery = base[torch.arange(90) // 3] * signs * (1 + 1e-15 * torch.randn(90, 6, generator=generator))
    found = nearest_neighbours(torch.zeros(1, 6).double(), gallery, 90)[1][0]
    assert torch.equal(found.view(30, 3), found.view(30, 3).sort(dim=1)[0])
    assert torch.equal(found.view(30, 3)[:, 0] % 3, torch.zeros(30).long())
    multiples = base[:1] * torch.tensor([[3.0], [0.1], [7.0], [1.0], [1 / 3]]).double()
    assert nearest_neighbours(base[:1], multiples, 5, "cosine")[1].tolist() == [[0, 1, 2, 3, 4]]


def test_the_query_itself_is_left_out_wherever_it_stands():
    generator = torch.Generator().manual_seed(3)
    gallery = torch.randn(50, 5, generator=generator)
    own = torch.randperm(50, generator=generator)[:12]
    found = nearest_neighbours(gallery[own], gallery, 49, exclude_self=own)
    assert all(int(own[q]) not in row for q, row in enumerate(found[1].tolist()))
    everyone = nearest_neighbours(gallery, k=49)
    assert torch.equal(found[1], everyone[1][own])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(0, 3),), "queries must have shape"),
        ((torch.zeros(2, 3), torch.zeros(0, 3)), "gallery must have shape"),
        ((torch.zeros(2, 3), torch.zeros(5, 4)), "queries have 3 dimensions, but the gallery has 4"),
        ((torch.tensor([[0.0], [torch.nan]]), torch.zeros(5, 1)), "queries of image 1 has a NaN"),
        ((torch.zeros(2, 1), torch.tensor([[0.0], [torch.inf]])), "gallery of image 1 has a NaN"),
        (
            (torch.zeros(2, 1), torch.full((5, 1), 1e308, dtype=torch.float64)),
            "gallery of image 0 have a coordinate above",
        ),
        ((torch.tensor([[3e38], [-3e38]]), None, 1), "too far apart for torch.float32: convert with .double"),
        ((torch.zeros(2, 3), torch.zeros(5, 3), 6), "k must be a whole number from 1 to 5, got 6"),
        ((torch.zeros(5, 3), None, 5), "k must be a whole number from 1 to 4, got 5"),
        ((torch.zeros(2, 3), torch.ones(5, 3), 1, "cosine"), "queries of image 0 are all zero"),
        ((torch.ones(2, 3), torch.ones(5, 3), 1, "angle"), "metric must be one of"),
        ((torch.ones(2, 3), None, 1, "euclidean", torch.tensor([0, 1])), "belongs to a gallery"),
        ((torch.ones(2, 3), torch.ones(5, 3), 1, "euclidean", torch.tensor([0, 5])), "positions from 0 to 4"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(*arguments)


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_faiss_and_torch_work_together_in_either_order(order):
    """Both bring a copy of OpenMP: they must neither hang nor crash."""
    code = (
        f"import {order}; x = torch.rand(300, 64); "
        "a = faiss.knn(x.numpy(), x.numpy(), 2)[1]; y = x @ x.T; b = faiss.knn(x.numpy(), x.numpy(), 2)[1]; "
        "assert (a == b).all() and (a[:, 0] == range(300)).all() and float(y.sum()) > 0"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == 0
