"""The objects that the entry points of this distribution register, one module per kind."""
