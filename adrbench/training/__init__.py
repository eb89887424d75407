"""A training run: its state, the loop, one step, and the checkpointer."""
