"""[wasserstein-dml]: transport distances between features in losses, and coresets of training images."""
