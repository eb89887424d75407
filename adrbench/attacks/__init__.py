"""Attacks, and the suites that combine them."""
