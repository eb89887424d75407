"""Displays of long work, on a stream that is no terminal too."""
