"""Checkpoint files: our format, and files from other code, read without running them."""
