"""The nested similarity loss: the sum over its sizes, with its gradient, whatever the tiles."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from retrieval_geometry.projections import nested_similarity_loss
from retrieval_geometry.projections._as_printed import similarity_divergence_as_printed

SIZES = [1, 3, 4, 7]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def pair(
    n: int = 9, d: int = 8, teacher: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    drawn = (torch.randn(n, width, generator=generator, dtype=torch.float64) for width in (d, teacher))
    return tuple(x.to(dtype) for x in drawn)  # type: ignore[return-value]


def transcription(
    student: Tensor, teacher: Tensor, sizes: list[int], temperature: float, reverse: bool
) -> float:
    """Equations 6 and 7, term by term, with the softmax over all others (erratum 4.5)."""

    def row(x: Tensor, i: int) -> list[float]:
        cosines = [float(x[i] @ y / (x[i].norm() * y.norm())) for j, y in enumerate(x) if j != i]
        powers = [math.exp(c / temperature) for c in cosines]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for m in sizes:
        for i in range(len(student)):
            p, q = row(student[:, :m], i), row(teacher, i)
            p, q = (q, p) if reverse else (p, q)
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total


def by_size(
    student: Tensor, teacher: Tensor, sizes: list[int], temperature: float, reverse: bool = False
) -> Tensor:
    """The sum over sizes by torch's own functions, one product a size."""
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)

    def logs(x: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(x, dim=1)
        logits = (unit @ unit.mT / temperature).masked_fill(itself, -torch.inf)
        return logits.log_softmax(dim=1).masked_fill(itself, 0)

    q, total = logs(teacher), student.new_zeros(())
    for m in sizes:
        p = logs(student[:, :m])
        first, second = (q, p) if reverse else (p, q)
        total = total + (first.exp().masked_fill(itself, 0) * (first - second)).sum()
    return total


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_loss_is_that_of_equations_6_and_7(temperature: float, reverse: bool) -> None:
    student, teacher = pair()
    found = nested_similarity_loss(student, teacher, SIZES, temperature, reverse)
    expected = transcription(student, teacher, SIZES, temperature, reverse)
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tile", [None, 1, 4, 9, 100])
def test_value_and_gradient_are_the_sum_over_sizes(tile: int | None, reverse: bool) -> None:
    student, teacher = pair()
    gradients = []
    values = []
    for loss in (
        by_size(student.requires_grad_(), teacher, SIZES, 0.2, reverse),
        nested_similarity_loss(student, teacher, SIZES, 0.2, reverse, tile),
    ):
        gradients.append(torch.autograd.grad(3 * loss, student)[0])
        values.append(loss.detach())
    torch.testing.assert_close(values[1], values[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


def test_the_nested_loss_is_the_sum_of_single_ones() -> None:
    student, teacher = pair(30, 16, 12)
    parts = sum(nested_similarity_loss(student, teacher, [m]) for m in SIZES)
    torch.testing.assert_close(nested_similarity_loss(student, teacher, SIZES), parts, rtol=1e-6, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_is_that_of_double(device: str) -> None:
    student, teacher = pair(40, 16, 12)
    expected = by_size(student.requires_grad_(), teacher, SIZES, 0.05)
    (gradient,) = torch.autograd.grad(expected, student)
    short = student.detach().float().to(device).requires_grad_()
    found = nested_similarity_loss(short, teacher.float().to(device), SIZES)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(
        short.grad.cpu().double(), gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_is_that_of_central_differences(reverse: bool) -> None:
    student, teacher = pair(5, 4, 3)
    assert torch.autograd.gradcheck(
        lambda x: nested_similarity_loss(x, teacher, [2, 3], 0.5, reverse, tile=2),
        (student.requires_grad_(),),
    )


def test_the_teacher_itself_has_no_loss_and_no_gradient() -> None:
    _, teacher = pair()
    student = (2.5 * teacher).requires_grad_()
    loss = nested_similarity_loss(student, teacher, [5])
    loss.backward()
    assert abs(float(loss.detach())) < 1e-12
    assert float(student.grad.abs().max()) < 1e-12


def test_no_scale_of_a_row_matters() -> None:
    student, teacher = pair()
    scales = torch.logspace(-60, 60, len(student), dtype=torch.float64)[:, None]
    expected = nested_similarity_loss(student, teacher, SIZES)
    for a, b in ((scales, 1), (1, scales)):
        torch.testing.assert_close(nested_similarity_loss(a * student, b * teacher, SIZES), expected)


def test_columns_beyond_the_largest_size_have_no_gradient() -> None:
    student, teacher = pair()
    nested_similarity_loss(student.requires_grad_(), teacher, [3]).backward()
    assert bool((student.grad[:, 3:] == 0).all())
    assert bool((student.grad[:, :3] != 0).any())


def test_it_is_computed_without_a_gradient_as_well() -> None:
    student, teacher = pair()
    with torch.no_grad():
        found = nested_similarity_loss(student, teacher.requires_grad_(), SIZES)
    assert not found.requires_grad


def test_equation_6_as_printed_is_no_divergence() -> None:
    """Erratum 4.5: NaN where a cosine is below 0, and below 0 where rows do not sum to the same."""
    student, teacher = pair()
    assert similarity_divergence_as_printed(student, teacher, 4).isnan()
    together = torch.ones_like(teacher)  # all cosines are 1, and none of the student's is larger
    assert float(similarity_divergence_as_printed(student.abs(), together, 4)) < 0
    assert float(nested_similarity_loss(student.abs(), together, [4])) > 0


BAD = [
    ({"sizes": []}, "sizes must be a list"),
    ({"sizes": [0, 2]}, "sizes must be from 1 to 8, the dimension, got 0"),
    ({"sizes": [2, 9]}, "sizes must be from 1 to 8, the dimension, got 9"),
    ({"sizes": [4, 2]}, "sizes must ascend without repetition, got [4, 2]; give sizes=[2, 4]"),
    ({"sizes": [2, 2]}, "sizes must ascend without repetition"),
    ({"sizes": [2.5]}, "sizes must be a list of whole numbers"),
    ({"sizes": 3}, "sizes must be a list of whole numbers"),
    ({"sizes": [True]}, "sizes must be a list of whole numbers"),
    ({"temperature": 0.0}, "temperature must be"),
    ({"reverse": 1}, "reverse must be True or False"),
    ({"tile": 0}, "tile must be"),
    ({"student": torch.zeros(9, 8).double()}, "student of row 0 has no direction in its first 1"),
    ({"teacher": torch.zeros(9, 5).double()}, "teacher of row 0 has no direction"),
    ({"teacher": torch.ones(8, 5).double()}, "one row for each image"),
    ({"teacher": torch.ones(9, 5)}, "student and teacher must share one dtype"),
    ({"student": torch.ones(1, 8).double(), "teacher": torch.ones(1, 5).double()}, "two at least"),
    ({"student": torch.full((9, 8), torch.nan).double()}, "student of row 0 has a NaN"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    student, teacher = pair()
    arguments = {"student": student, "teacher": teacher, "sizes": [2, 4], **changes}
    if "sizes" not in changes:
        arguments["sizes"] = [1, 4]
    with pytest.raises(ValueError, match=re.escape(message)):
        nested_similarity_loss(**arguments)  # type: ignore[arg-type]


def test_a_prefix_without_a_direction_is_named() -> None:
    student, teacher = pair()
    student[3, :2] = 0
    with pytest.raises(ValueError, match="student of row 3 has no direction in its first 2 coordinates"):
        nested_similarity_loss(student, teacher, [2, 4])
    nested_similarity_loss(student, teacher, [4])
