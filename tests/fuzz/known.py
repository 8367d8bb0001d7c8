"""Faults that are known and still to be mended, as patterns of "public name | argument | kind"."""

from fnmatch import fnmatchcase

KNOWN: list[str] = []


def is_known(name: str, argument: str, kind: str) -> bool:
    """Whether the fault stands in the list."""
    return any(fnmatchcase(f"{name} | {argument} | {kind}", pattern) for pattern in KNOWN)
