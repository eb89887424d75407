"""How fast adrbench is, each time beside a plain reference that runs in turn with it."""
