"""[rankmi]: a ranking loss that maximises mutual information between images and their classes."""
