"""Faults that are known and still to be mended: (public name, argument, way of spoiling it)."""

KNOWN: set[tuple[str, str, str]] = set()
