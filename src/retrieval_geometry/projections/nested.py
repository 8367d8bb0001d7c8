"""Nested similarity loss of (SS)2D: prefixes of a vector shall be as similar as whole vectors are."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from retrieval_geometry._check import (
    ImageName,
    as_whole,
    check_coordinates,
    check_count,
    check_finite,
    check_flag,
    check_floating,
    check_number,
    check_same_kind,
    check_shape,
)
from retrieval_geometry.projections._nested import NestedDivergence, Task, scaled


def nested_similarity_loss(
    student: Tensor,
    teacher: Tensor,
    sizes: Sequence[int],
    temperature: float = 0.05,
    reverse: bool = False,
    tile: int | None = None,
) -> Tensor:
    r"""Divergence of the similarities of each prefix of the student from those of the teacher.

    .. math::
        L = \sum_{m} \sum_i D_{KL}(\tilde p^m_i \| p_i), \quad
        p_{ij} = \frac{\exp(C_{ij} / \tau)}{\sum_{k \ne i} \exp(C_{ik} / \tau)} \text{ for } j \ne i

    with cosines C of the teacher and, for :math:`\tilde p^m`, of the first m coordinates of the student.

    Source: [ae-svc] eqs. 6 and 7, erratum 4.5. Used in no chapter.

    Eq. 6 compares rows of cosines, which are no distributions: the softmax makes them such. Without a row's
    cosine with itself, which is 1 whatever the student, and at :math:`\tau = 0.05`, where rows are not nearly
    uniform.

    Sizes share one sum: the Gram matrix of m coordinates is that of fewer plus the product of those between,
    and the gradient of these needs one product for all larger sizes together. Rows are worked on in tiles.
    The gradient is found with the value, and cannot be differentiated again.

    Args:
        student: ``(n, d)``; at least two rows.
        teacher: ``(n, D)``, embeddings of the same images; a constant, into which no gradient flows.
        sizes: m, whole numbers from 1 to d, ascending.
        temperature: :math:`\tau`.
        reverse: take KL(teacher || student) instead.
        tile: rows that are worked on at a time; chosen by memory if None.

    Returns:
        A scalar, at least 0 but for rounding.

    Raises:
        ValueError: tensors that are no finite ``(n, d)`` of one number of rows, dtype and device, a row or a
            prefix without a direction, sizes out of range, unsorted or repeated, a temperature below 0.001.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
        >>> abs(float(nested_similarity_loss(x, x, sizes=[3]))) < 1e-5
        True
        >>> nested_similarity_loss(x, x, sizes=[2, 3], temperature=1.0) > 0
        tensor(True)
    """
    for x, name in ((student, "student"), (teacher, "teacher")):
        check_shape(check_floating(x, name), name, ("rows", "dimensions"))
        check_coordinates(check_finite(x, name, ImageName(kind="row")), name, ImageName(kind="row"))
    check_same_kind((student, teacher), "student and teacher")
    n = len(student)
    if len(teacher) != n or n < 2:
        raise ValueError(
            f"student and teacher must have one row for each image, two at least, got {n} and {len(teacher)}"
        )
    found = check_sizes(sizes, student.shape[1])
    check_number(temperature, "temperature", at_least=1e-3, at_most=1e6)
    task = Task(found, float(temperature), check_flag(reverse, "reverse"), _tile(tile, n))
    whole = scaled(teacher, "teacher", (teacher.shape[1],))
    unit = scaled(student, "student", found)
    return NestedDivergence.apply(unit, whole.detach(), task)


def check_sizes(sizes: Sequence[int], dim: int | None = None) -> tuple[int, ...]:
    """Sizes of prefixes, ascending, as plain numbers.

    Raises:
        ValueError: none, one below 1 or above ``dim``, or unsorted or repeated ones.
    """
    wanted = "a list of whole numbers such as [8, 16, 32]"
    whole = as_whole(sizes, "sizes", wanted, truth_values=False)
    if whole.ndim != 1 or not len(whole):
        raise ValueError(f"sizes must be {wanted}, got {sizes!r}")
    found = tuple(whole.tolist())
    limit = f" to {dim}, the dimension" if dim is not None else ""
    for size in found:
        if size < 1 or (dim is not None and size > dim):
            raise ValueError(f"sizes must be from 1{limit}, got {size}")
    if any(b <= a for a, b in pairwise(found)):
        remedy = f"sizes={sorted(set(found))}"
        raise ValueError(f"sizes must ascend without repetition, got {list(found)}; give {remedy}")
    return found


def _tile(tile: int | None, n: int) -> int | None:
    return None if tile is None else min(n, check_count(tile, "tile"))
