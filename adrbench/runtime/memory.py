"""The memory of this machine, which limits what is read from files."""

import math
import os


def total_memory() -> float:
    """Return the memory of this machine in bytes; infinity where that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
