"""The Python interface; the command line offers the same functions."""
