"""Try every case of some areas, or of all, and print what became of them as a table.

    python -m hostile [AREA...] [--mutations N]

Run it in `tests`. With `--mutations`, N random changes of good files are tried instead.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hostile.areas import AREAS, mutation_areas
from hostile.limited import HELD, outcomes


def main() -> int:
    """Print a row for each area; return 1 if a case was neither read nor refused."""
    parser = argparse.ArgumentParser(prog="python -m hostile", description=__doc__)
    parser.add_argument("area", nargs="*", choices=[[], *AREAS])
    parser.add_argument("--mutations", type=int, metavar="N")
    arguments = parser.parse_args()
    areas = {name: AREAS[name] for name in arguments.area or AREAS}
    if arguments.mutations:
        areas = mutation_areas(arguments.mutations)
    problems = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    table = Table("area", "cases", "read", "refused", "broken", "seconds")
    broken = 0
    for name, make_cases in areas.items():
        started, counts = time.monotonic(), Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            for case, outcome in outcomes(make_cases(), Path(folder) / "case"):
                counts[outcome if outcome in HELD else "broken"] += 1
                if outcome not in HELD:
                    problems.print(f"{name}: {case.says}: {outcome}")
        row = (counts.total(), counts["read"], counts["refused"], counts["broken"])
        table.add_row(name, *map("{:,}".format, row), f"{time.monotonic() - started:.0f}")
        broken += counts["broken"]
    Console(width=100).print(table)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
