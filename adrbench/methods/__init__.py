"""Training methods: one module per component, four slots, and what builds them."""
