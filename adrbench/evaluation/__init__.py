"""Evaluation of a model under a suite of attacks: targets, jobs, progress on disk."""
