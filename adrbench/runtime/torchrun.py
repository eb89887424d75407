"""What torchrun, or a launcher that imitates it, puts into the environment of a process."""

import os

#: The variables that torchrun sets for each process it starts.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: Where torchrun and SLURM count how often they have restarted a process.
RESTART_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def is_launched() -> bool:
    """Return whether a launcher started several processes of which this is one."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def is_rank_zero() -> bool:
    """Return whether this process is the one that prints: rank 0, or the only process."""
    return not is_launched() or os.environ["RANK"] == "0"


def local_rank() -> int | None:
    """Return the rank of this process on its machine, None for a single process."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else None


def was_restarted() -> bool:
    """Return whether a launcher, not the user, gave this command again."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RESTART_COUNTS)
