"""The number of CPU threads that libraries compute on."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch, BLAS and OpenMP compute on ``count`` threads meanwhile; None leaves them as they are."""
    if count is None:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    # torch counts its threads itself, beside those of OpenMP and BLAS that threadpoolctl finds.
    before = torch.get_num_threads()
    with threadpool_limits(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
