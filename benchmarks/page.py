"""`adrbench report --format html` over 200 runs: making the page, and opening it in Chromium.

    python -m benchmarks.page [--runs 200] [--quick]

Making it is compared with the same tables as markdown, and opening it, where Chromium is installed,
with opening an empty page.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import command_line
from benchmarks.harness.document import publish
from benchmarks.harness.processes import compare_processes, sample_processes
from benchmarks.harness.synthetic_records import write_records

COMPARED = (
    "Seconds of `adrbench report DIR --format html`, beside `--format markdown`; and of Chromium, "
    "which\nstarts, opens the page and writes a screenshot of it, beside an empty page."
)
RUNS, QUICK_RUNS = 200, 12
#: A run has one training and four evaluations.
RECORDS_PER_RUN = 5
EMPTY = "<!doctype html><title>empty</title>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Runs a program with the rest of the arguments.
RUN = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)"


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = command_line.make_parser(__doc__)
    parser.add_argument("--runs", type=int, help=f"default: {RUNS}")
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        records, page, empty = (directory / one for one in ("records", "page.html", "empty.html"))
        records.mkdir()
        write_records(records, runs * RECORDS_PER_RUN)
        empty.write_text(EMPTY, "utf-8")
        report = ["-m", "adrbench", "report", str(records)]
        making = {
            "ours": [*report, "--format", "html", "--out", str(page)],
            "reference": [*report, "--format", "markdown"],
        }
        samples = sample_processes(making, rounds=options.rounds, threads=options.threads)
        rows = [replace(row, name=f"make, {row.name}") for row in compare_processes(samples)]
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser:
            opening = {"ours": open_in(browser, page), "reference": open_in(browser, empty)}
            samples = sample_processes(opening, rounds=options.rounds, threads=options.threads)
            rows += [replace(row, name=f"open, {row.name}") for row in compare_processes(samples)]
        settings = {"runs": runs, "page, KB": round(page.stat().st_size / 1_000)}
    publish("page", rows, options, compared=COMPARED, settings=settings, device=device)


def open_in(browser: str, page: Path) -> list[str]:
    """Return the arguments for Python that open a page in a browser without a window."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1440,2000")
    shot = f"--screenshot={page.with_suffix('.png')}"
    return ["-c", RUN, browser, *flags, shot, page.as_uri()]


if __name__ == "__main__":
    command_line.run(main)
