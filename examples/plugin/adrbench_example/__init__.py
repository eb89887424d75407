"""What the entry points of this distribution name, a module per kind."""
