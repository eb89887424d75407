"""Result records, their provenance, and published baselines; imports no torch."""
