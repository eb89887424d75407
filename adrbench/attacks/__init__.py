"""Attacks: our own PGD family, the official AutoAttack, and the suites made of them."""
