"""[edms]: metric learning with random meta-classes, hard proxies, manifold similarity and ensembles."""
