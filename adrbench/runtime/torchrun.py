"""The environment variables that torchrun, or a compatible launcher, sets for a process."""

import os
import re

from adrbench.errors import AdrbenchError

#: The variables that torchrun sets in every process it starts.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: The variables in which torchrun and SLURM count the restarts of a process.
RESTART_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")

#: More processes than any run has, and the largest number of a port.
MOST_PROCESSES, LAST_PORT = 2**20, 2**16 - 1
HOST = re.compile(r"[A-Za-z0-9_.:%\[\]][A-Za-z0-9_.:%\[\]-]*")


def is_launched() -> bool:
    """Return whether this is one of several processes that a launcher started."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def is_rank_zero() -> bool:
    """Return whether this is rank 0, the rank that prints, or a single process."""
    return not is_launched() or os.environ["RANK"] == "0"


def local_rank() -> int | None:
    """Return the rank of this process on its machine, None for a single process."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else None


def check_launcher() -> None:
    """Check the variables of a launcher, if all of them are set.

    Raises:
        AdrbenchError: naming the first that has a value no launcher gives.

    """
    if not is_launched():
        return
    num_processes = _read_number("WORLD_SIZE", 1, MOST_PROCESSES)
    _read_number("RANK", 0, num_processes - 1)
    num_local = num_processes
    if "LOCAL_WORLD_SIZE" in os.environ:
        num_local = _read_number("LOCAL_WORLD_SIZE", 1, num_processes)
    _read_number("LOCAL_RANK", 0, num_local - 1)
    _read_number("MASTER_PORT", 1, LAST_PORT)
    if not HOST.fullmatch(os.environ["MASTER_ADDR"]):
        raise _wrong_variable("MASTER_ADDR", "the name or address of a machine")


def _read_number(name: str, low: int, high: int) -> int:
    """Return the whole number in a variable; AdrbenchError unless it is from `low` to `high`."""
    text = os.environ[name]
    if re.fullmatch("0|[1-9][0-9]{0,9}", text) and low <= int(text) <= high:
        return int(text)
    raise _wrong_variable(name, f"a whole number from {low} to {high}")


def _wrong_variable(name: str, allowed: str) -> AdrbenchError:
    return AdrbenchError(
        f"the environment variable {name} is {os.environ[name]!r:.60}, but a launcher sets it to "
        f"{allowed}: start several processes with torchrun, or unset {', '.join(VARIABLES)} to run "
        "one."
    )


def was_restarted() -> bool:
    """Return whether a launcher, not the user, restarted this command."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RESTART_COUNTS)
