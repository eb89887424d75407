"""Training methods: one module per component, the four slots, and their construction."""
