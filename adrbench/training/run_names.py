"""The name of a run, which is that of its directory and the prefix of its records."""

from pathlib import Path

from adrbench.config.settings import TrainConfig
from adrbench.errors import UsageError, argument
from adrbench.registry import spell_for_files
from adrbench.runtime.files import excess_length, is_file_name

#: The longest that the name of an evaluation's record or saved progress adds to that of its run.
LONGEST_SUFFIX = "-best-average-autoattack-plus-01234567.000.state"


def run_name(config: TrainConfig, dataset: str) -> str:
    """Return the default name of a run."""
    arch = spell_for_files(config.arch)
    if config.activation != "relu":
        arch = f"{arch}-{config.activation}"
    return f"{dataset}-{arch}-{config.method}-seed{config.seed}"


def check_run_name(name: str, results: Path) -> None:
    """Check that `name` is valid for a run's directory and for its records in `results`.

    Raises:
        UsageError: when it cannot.

    """
    if not is_file_name(name) or name != name.strip() or name.startswith("."):
        raise UsageError(
            f"the name of the run is {name!r}: give a plain name that does not begin with a dot, "
            f"and the directory with {argument('out')}."
        )
    excess = excess_length(results / f".{name}{LONGEST_SUFFIX}")
    if excess:
        raise UsageError(
            f"the name of the run, {name[:40]}..., is too long by {excess} bytes for the names of "
            f"its records: give a shorter {argument('name')}."
        )
