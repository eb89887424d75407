"""`adrbench report` over thousands of records, beside a plain reading of the same files.

    python -m benchmarks.report [--records 10000] [--quick]

The reference reads every file with json.load and makes one pandas frame of them; it checks
nothing, joins no seeds, compares with nothing published, and prints no table.
"""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import page
from benchmarks.harness import take_turns
from benchmarks.processes import make_rows, run_process
from benchmarks.records import write_records

COMPARED = (
    "Seconds of the whole process `python -m adrbench report DIR --format markdown`; the reference "
    "is a process that\nreads the same files with json.load and pandas.json_normalize, no more."
)
RECORDS, QUICK_RECORDS = 10_000, 500
REFERENCE = """
import json, pathlib, sys
import pandas
files = sorted(pathlib.Path(sys.argv[1]).glob("*.json"))
frame = pandas.json_normalize([json.load(file.open()) for file in files])
print(len(frame))
"""


def main() -> None:
    """Measure, and publish it."""
    parser = page.make_parser(__doc__)
    parser.add_argument("--records", type=int, help=f"default: {RECORDS:,}")
    options = parser.parse_args()
    device = page.start(options)
    count = options.records or (QUICK_RECORDS if options.quick else RECORDS)
    with tempfile.TemporaryDirectory() as directory:
        write_records(Path(directory), count)
        lines = {
            "ours": ["-m", "adrbench", "report", directory, "--format", "markdown"],
            "reference": ["-c", REFERENCE, directory],
        }
        runs = {
            who: partial(run_process, line, threads=options.threads) for who, line in lines.items()
        }
        take_turns(runs, 1)
        samples = take_turns(runs, options.rounds)
    document = page.describe(
        "report",
        make_rows(samples),
        compared=COMPARED,
        settings={"records": count} | page.common_settings(options),
        device=device,
    )
    page.publish(document, options)


if __name__ == "__main__":
    page.run(main)
