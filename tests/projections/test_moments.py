"""Moments in one pass: of all that was shown, in whatever blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_geometry.projections import StreamingMoments, streaming_moments

from .common import references


@pytest.mark.parametrize("sizes", [[60], [1, 59], [20, 20, 20], [7] * 8 + [4]])
def test_blocks_give_the_moments_of_all(sizes: list[int]) -> None:
    x = references()
    moments = StreamingMoments(6)
    for block in x.split(sizes):
        moments.update(block)
    assert moments.n == 60
    torch.testing.assert_close(moments.mean, x.mean(dim=0))
    torch.testing.assert_close(moments.covariance, torch.cov(x.mT, correction=0))


def test_a_large_offset_costs_no_digits() -> None:
    x = references()
    moments = StreamingMoments(6)
    for block in (x + 1e6).split(9):
        moments.update(block)
    torch.testing.assert_close(moments.covariance, torch.cov(x.mT, correction=0), rtol=1e-7, atol=1e-9)


def test_what_is_taken_out_was_never_there() -> None:
    x = references()
    torch.testing.assert_close(
        streaming_moments(x).without(x[10:25]).covariance,
        streaming_moments(torch.cat([x[:10], x[25:]])).covariance,
    )


def test_a_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = references(500, 6, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen: list[int] = []
    add = StreamingMoments._add

    def count(self: StreamingMoments, block: torch.Tensor, sign: int) -> StreamingMoments:
        seen.append(len(block))
        return add(self, block, sign)

    monkeypatch.setattr(StreamingMoments, "_add", count)
    monkeypatch.setattr("retrieval_geometry.projections._rows.BLOCK_BYTES", 48 * 100)
    found = streaming_moments(mapped)
    assert seen == [100] * 5
    torch.testing.assert_close(found.covariance, torch.cov(x.double().mT, correction=0))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (torch.zeros(2, 5), "block must have shape"),
        (torch.zeros(0, 6), "block must have shape"),
        (torch.full((2, 6), torch.inf), "NaN or infinite"),
        ([[0.0] * 6], "block must be a torch tensor"),
    ],
)
def test_bad_blocks_are_named(block: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingMoments(6).update(block)


def test_no_rows_have_no_moments() -> None:
    with pytest.raises(ValueError, match="X must have at least 1 row"):
        streaming_moments(np.zeros((0, 3)))
