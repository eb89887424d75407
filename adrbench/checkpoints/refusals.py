"""Why a file of weights is not read: each text follows the file's name in the error message."""

OBJECTS = "contains objects other than tensors, and reading them could run code: save a state dict."
DAMAGED = "is truncated or damaged: copy or train it again."
NOT_TORCH = "is not a file that torch.save wrote: give a checkpoint or a state dict."
TORCHSCRIPT = "is a TorchScript program: save the state dict of its model."
EXPORTED = "is a program of torch.export: save the state dict of its model."
COMPRESSED = "is compressed: unpack it and save it again with torch.save."


class RefusedError(Exception):
    """A file that is not read, for the reason that is its text."""


#: Of the text and numbers in a file; its tensors are elsewhere in it.
MAX_PICKLE_BYTES = 2**28


def too_much(what: str) -> RefusedError:
    """Return the refusal of a file that contains more than is ever read of something else."""
    return RefusedError(f"contains {what}, more than weights need: save a state dict.")


def too_much_text() -> RefusedError:
    """Return the refusal of a file that contains more than `MAX_PICKLE_BYTES`."""
    return too_much(f"over {MAX_PICKLE_BYTES // 2**20} MiB of text and numbers")
