"""The published tables, made again: `python -m benchmarks.reproduce` runs a matrix of commands."""
