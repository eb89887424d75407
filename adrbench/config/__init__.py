"""What a run or an attack is asked to do, checked and stored with the result. No torch."""
