"""The Python interface, of which the command line is another face."""
