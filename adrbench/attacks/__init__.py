"""Attacks, and the suites that name them."""
