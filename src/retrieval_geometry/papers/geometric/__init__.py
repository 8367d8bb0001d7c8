"""[geometric]: images as distributions of deep features, ranked by distances between distributions."""
