"""`adrbench report` over thousands of records, beside merely loading the same files.

    python -m benchmarks.report [--records 10000] [--quick]

The reference reads every file with json.load and makes one pandas frame of them; it checks nothing,
averages no seeds, compares with no published results, and prints no table.
"""

import tempfile
from pathlib import Path

from benchmarks.harness import command_line
from benchmarks.harness.document import publish
from benchmarks.harness.processes import compare_processes, sample_processes
from benchmarks.harness.synthetic_records import write_records

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
    """Measure what the flags ask for, and publish it."""
    parser = command_line.make_parser(__doc__)
    parser.add_argument("--records", type=int, help=f"default: {RECORDS:,}")
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    count = options.records or (QUICK_RECORDS if options.quick else RECORDS)
    with tempfile.TemporaryDirectory() as directory:
        write_records(Path(directory), count)
        commands = {
            "ours": ["-m", "adrbench", "report", directory, "--format", "markdown"],
            "reference": ["-c", REFERENCE, directory],
        }
        samples = sample_processes(commands, rounds=options.rounds, threads=options.threads)
    rows = compare_processes(samples)
    settings = {"records": count}
    publish("report", rows, options, compared=COMPARED, settings=settings, device=device)


if __name__ == "__main__":
    command_line.run(main)
