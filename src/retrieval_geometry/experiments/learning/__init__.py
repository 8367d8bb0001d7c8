"""What several papers on learning a metric have in common: data, methods, one budget, and the comparison."""
