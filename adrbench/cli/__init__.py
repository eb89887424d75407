"""The command line: `adrbench train`, `attack`, `inspect`, `report` and `list`."""

from adrbench.cli.app import main

__all__ = ["main"]
