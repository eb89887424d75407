"""Checkpoint files: our format, and third-party files, read without executing code in them."""
