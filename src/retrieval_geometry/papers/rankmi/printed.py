"""What [rankmi] printed: Recall@1 and NMI, in per cent, in Tables 1 to 3, of losses that the package runs."""

TABLES: dict[str, dict[str, tuple[float, float | None]]] = {
    "CUB-200-2011": {
        "triplet": (42.6, 55.4),
        "lifted": (43.6, 56.5),
        "proxynca": (49.2, 59.5),
        "npair": (51.0, 60.4),
        "histogram": (52.8, None),
        "angular": (53.6, 61.0),
        "margin": (63.6, 69.0),
        "rankmi": (66.7, 71.3),
    },
    "Cars196": {
        "triplet": (51.5, 53.4),
        "lifted": (53.0, 56.9),
        "angular": (71.3, 62.4),
        "npair": (71.1, 64.0),
        "proxynca": (73.2, 64.9),
        "margin": (79.6, 69.1),
        "rankmi": (83.3, 69.4),
    },
    "Stanford Online Products": {
        "lifted": (62.5, 88.7),
        "histogram": (63.9, None),
        "triplet": (66.7, 89.5),
        "npair": (67.7, 88.1),
        "angular": (67.9, 87.8),
        "margin": (72.7, 90.7),
        "proxynca": (73.7, None),
        "fastap": (73.8, None),
        "rankmi": (74.3, 90.5),
    },
}
