"""Result records, where their figures come from, and published baselines. No torch."""
