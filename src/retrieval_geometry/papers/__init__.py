"""The papers, a folder each: what it declares (``paper``), experiments, claims, printed tables and formulas.

A folder with a ``paper`` and ``claims`` is all that a further paper needs. No paper imports another; what
several need is in :mod:`retrieval_geometry.experiments`.
"""
