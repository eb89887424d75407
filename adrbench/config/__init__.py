"""Settings of runs and attacks, checked and stored with the results. Free of torch."""
