"""Timing, memory, hardware and output that the benchmarks share."""
