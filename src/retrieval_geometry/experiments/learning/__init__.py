"""Common parts of the papers on learning a metric: data, methods, one budget, and the comparison."""
