"""How much is worked on at a time.

Scikit-learn's ``get_chunk_n_rows`` and ``gen_batches`` do the same, but importing them takes longer than most
work that is cut here, and the first warns where a single item is larger than the budget.
"""


def how_many(bytes_each: int, budget: int) -> int:
    """How many items of so many bytes fit the budget, at least one."""
    return max(1, budget // max(1, bytes_each))


def cuts(n: int, bytes_each: int, budget: int) -> list[slice]:
    """Cut ``range(n)`` into slices of as many items as fit the budget, at least one."""
    size = how_many(bytes_each, budget)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
