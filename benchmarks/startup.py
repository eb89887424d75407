"""How long `adrbench --help` takes to start, beside `import torch` alone.

    python -m benchmarks.startup [--quick]

Python's own start, `python -c pass`, is measured in the same round and taken off both.
"""

from functools import partial

from benchmarks import page
from benchmarks.harness import take_turns
from benchmarks.processes import make_rows, run_process

COMPARED = (
    "Seconds of `python -m adrbench --help` and of `python -c 'import torch'`, each less those of "
    "`python -c pass`\nin the same round."
)
BARE = "python -c pass"
COMMANDS = {
    "ours": ["-m", "adrbench", "--help"],
    "reference": ["-c", "import torch"],
    BARE: ["-c", "pass"],
}


def main() -> None:
    """Measure, and publish it."""
    options = page.make_parser(__doc__).parse_args()
    device = page.start(options)
    runs = {
        who: partial(run_process, line, threads=options.threads) for who, line in COMMANDS.items()
    }
    take_turns(runs, 1)
    samples = take_turns(runs, options.rounds)
    bare = samples.pop(BARE)
    document = page.describe(
        "startup",
        make_rows(samples, bare),
        compared=COMPARED,
        settings=page.common_settings(options),
        device=device,
    )
    page.publish(document, options)


if __name__ == "__main__":
    page.run(main)
