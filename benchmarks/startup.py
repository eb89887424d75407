"""The time that `adrbench --help` takes, beside `import torch` alone.

    python -m benchmarks.startup [--quick]

The time of Python itself, `python -c pass`, is measured in the same round and subtracted from both.
"""

from benchmarks.harness import command_line
from benchmarks.harness.document import publish
from benchmarks.harness.processes import compare_processes, sample_processes

COMPARED = (
    "Seconds of `python -m adrbench --help` and of `python -c 'import torch'`, each less those of "
    "`python -c pass`\nin the same round."
)
BASELINE = "python -c pass"
COMMANDS = {
    "ours": ["-m", "adrbench", "--help"],
    "reference": ["-c", "import torch"],
    BASELINE: ["-c", "pass"],
}


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    options = command_line.make_parser(__doc__).parse_args()
    device = command_line.apply_shared_flags(options)
    samples = sample_processes(COMMANDS, rounds=options.rounds, threads=options.threads)
    baseline = samples.pop(BASELINE)
    rows = compare_processes(samples, baseline)
    publish("startup", rows, options, compared=COMPARED, settings={}, device=device)


if __name__ == "__main__":
    command_line.run(main)
