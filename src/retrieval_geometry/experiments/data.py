"""Data sets under a data root."""

from pathlib import Path

from retrieval_geometry.datasets import available_datasets


def find_weights(root: Path, pattern: str, what: str) -> Path:
    """The first file of that pattern below the data root.

    Raises:
        FileNotFoundError: there is none; the message says ``what`` to put there.
    """
    # Sorted: which file is taken does not depend on the order of the folder.
    found = sorted(root.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no file {pattern} under {root}: put {what} there")
    return found[0]


def overview(data_root: str) -> list[str]:
    """One line for each supported data set: whether it is there, and where it lies or belongs."""
    # The default folder may be missing, since quick needs no data; one that was asked for may not.
    if data_root != "data" and not Path(data_root).is_dir():
        raise FileNotFoundError(f"--data-root {data_root}: there is no such folder")
    rows = available_datasets(data_root)
    return [
        f"{'found' if row.found else 'missing':8} {row.name}: {row.description}; licence: {row.licence}\n"
        f"{'':9}{row.place if row.found else f'put it at {row.place}'}"
        for row in rows
    ]
