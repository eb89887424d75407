"""Plain implementations that the benchmarks compare adrbench with."""
