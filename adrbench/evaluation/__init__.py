"""Attacks on a set of weights: targets, jobs, progress on disk, and the evaluation itself."""
