"""The command line: `adrbench train`, `attack`, `report` and `list`."""

from adrbench.cli.app import main

__all__ = ["main"]
