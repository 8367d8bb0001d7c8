"""What [wasserstein-dml] printed: Table 1."""

METRICS = ("R@1", "R@4", "NMI", "F1", "AP@R")
"""The columns; the last is printed as mAP, which we read as AP@R."""

_CUB = {
    "w-triplet": (0.7277, 0.8763, 0.6876, 0.3610, 0.2474),
    "w-contrastive": (0.6094, 0.8168, 0.6720, 0.3615, 0.2395),
    "triplet": (0.5949, 0.7098, 0.8023, 0.2968, 0.2357),
    "contrastive": (0.5738, 0.7919, 0.6053, 0.2906, 0.1925),
    "npair": (0.6241, 0.8295, 0.6676, 0.3599, 0.2332),
    "proxynca": (0.6280, 0.8190, 0.6693, 0.3610, 0.2394),
    "genlifted": (0.5959, 0.7950, 0.6563, 0.3486, 0.2203),
    "histogram": (0.6055, 0.8056, 0.6526, 0.3388, 0.2265),
    "margin": (0.6493, 0.8489, 0.6836, 0.3593, 0.2411),
    "multisimilarity": (0.6280, 0.8501, 0.6855, 0.3603, 0.2258),
}
_SOP = {
    "w-triplet": (0.7400, 0.8313, 0.9023, 0.3875, 0.3995),
    "w-contrastive": (0.6989, 0.8297, 0.8911, 0.3473, 0.3733),
    "triplet": (0.6094, 0.8168, 0.7720, 0.3615, 0.3695),
    "contrastive": (0.6204, 0.7918, 0.7553, 0.3237, 0.3307),
    "npair": (0.5976, 0.8028, 0.6325, 0.3050, 0.3166),
    "proxynca": (0.6214, 0.8242, 0.8761, 0.3220, 0.3058),
    "genlifted": (0.7321, 0.8193, 0.8984, 0.3593, 0.3903),
    "histogram": (0.7130, 0.8205, 0.8993, 0.3158, 0.3488),
    "margin": (0.7352, 0.8289, 0.8903, 0.3836, 0.3836),
    "multisimilarity": (0.7399, 0.8301, 0.8900, 0.3675, 0.3852),
}
TABLE1: dict[str, dict[str, dict[str, float]]] = {
    data: {name: dict(zip(METRICS, row, strict=True)) for name, row in rows.items()}
    for data, rows in (("CUB-200-2011", _CUB), ("Stanford Online Products", _SOP))
}
