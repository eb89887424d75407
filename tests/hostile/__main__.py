"""Try every case of some areas, or of all, and print what became of them as a table.

Run `python -m hostile [AREA...]` in `tests`.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hostile.areas import AREAS
from hostile.limited import HELD, outcomes


def main(names: list[str]) -> int:
    """Print a row for each area; return 1 if a case was neither read nor refused."""
    problems = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    table = Table("area", "cases", "read", "refused", "broken", "seconds")
    broken = 0
    for name in names or AREAS:
        started, counts = time.monotonic(), Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            for case, outcome in outcomes(AREAS[name](), Path(folder) / "case"):
                counts[outcome if outcome in HELD else "broken"] += 1
                if outcome not in HELD:
                    problems.print(f"{name}: {case.says}: {outcome}")
        row = (counts.total(), counts["read"], counts["refused"], counts["broken"])
        table.add_row(name, *map("{:,}".format, row), f"{time.monotonic() - started:.0f}")
        broken += counts["broken"]
    Console(width=100).print(table)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
