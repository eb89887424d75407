"""Repeatedly kill trainings and evaluations, then compare them with uninterrupted ones."""
