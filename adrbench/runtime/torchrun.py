"""The environment variables that torchrun, or a compatible launcher, sets for a process."""

import os

#: The variables that torchrun sets in every process it starts.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: The variables in which torchrun and SLURM count the restarts of a process.
RESTART_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def is_launched() -> bool:
    """Return whether this is one of several processes that a launcher started."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def is_rank_zero() -> bool:
    """Return whether this is rank 0, the rank that prints, or a single process."""
    return not is_launched() or os.environ["RANK"] == "0"


def local_rank() -> int | None:
    """Return the rank of this process on its machine, None for a single process."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else None


def was_restarted() -> bool:
    """Return whether a launcher, not the user, restarted this command."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RESTART_COUNTS)
