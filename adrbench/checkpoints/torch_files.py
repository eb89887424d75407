"""Files that `torch.save` wrote, from anybody: their tensors, without running what they name.

torch's own restricted unpickler reads them, after what it would refuse was rewritten.
"""

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints.pickle_rewriter import (
    DAMAGED,
    OBJECTS,
    REGISTERED,
    RefusedError,
    Rewriter,
)
from adrbench.errors import CheckpointError

FOREIGN = "is not a file that torch.save wrote: give a checkpoint or a state dict."
PROGRAM = "is a TorchScript program: save the state dict of its model."
PACKED = "is compressed: unpack it and save it again with torch.save."
#: The number that files in the format before torch 1.6 begin with, as it stands in their pickle.
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
LEGACY_PICKLES = 5
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """What a file holds, on the CPU.

    `content` has a `PickledObject` wherever the file has something else than tensors, plain
    values and containers; `unread` are the full names of the classes and functions wanted there,
    sorted.
    """

    content: Any
    unread: tuple[str, ...]


def read_torch_file(path: Path) -> TorchFile:
    """Read `path` without importing or calling anything it names.

    Raises:
        CheckpointError: when the file is missing, a directory, empty, truncated, damaged, a web
            page, nothing that `torch.save` wrote, or has no tensors that can be had without its
            objects.

    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory without best.pt or last.pt: name a file.")
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for its writer
            raise CheckpointError(f"{path} is not a file: give a checkpoint or a state dict.")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; check the path.") from error
    if not content:
        raise CheckpointError(f"{path} is empty: copy or train it again.")
    if content.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights: download it again.")
    rewriter = Rewriter(len(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _allowed_only():
                rewritten = io.BytesIO(_rewrite(content, rewriter))
            with _allowed_only(*REGISTERED):
                loaded = torch.load(rewritten, map_location="cpu", weights_only=True)
    except RefusedError as error:
        raise CheckpointError(f"{path} {error}") from error
    except Exception as error:  # torch.load has no common base for what a broken file raises
        objects = rewriter.unread or isinstance(error, pickle.UnpicklingError)
        raise CheckpointError(f"{path} {OBJECTS if objects else DAMAGED}") from error
    return TorchFile(content=loaded, unread=tuple(sorted(rewriter.unread)))


def describe_unread(unread: Sequence[str]) -> str:
    """Return the first few names in words, such as `a.B, c.D, e.F and 2 more`."""
    more = f" and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    return ", ".join(unread[:SHOWN]) + more


@contextmanager
def _allowed_only(*names: Callable[..., object]) -> Iterator[None]:
    """Allow torch's unpickler these names, and none that a library allowed when imported."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(names))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Return a file of the same tensors that holds nothing `torch.load` would refuse."""
    if content.startswith(b"PK"):
        return _rewrite_zip(content, rewriter)
    if LEGACY_MAGIC not in content[:32]:
        raise RefusedError(FOREIGN)
    stream = io.BytesIO(content)
    pickles = [rewriter.rewrite(stream) for _ in range(LEGACY_PICKLES)]
    return b"".join(pickles) + stream.read()


def _rewrite_zip(content: bytes, rewriter: Rewriter) -> bytes:
    """Check the sums, which `torch.load` does not see, and rewrite the one pickle if need be."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0]
            if f"{root}/constants.pkl" in names:
                raise RefusedError(PROGRAM)
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise RefusedError(PACKED)
            if len(set(names)) < len(names) or archive.testzip() is not None:
                raise RefusedError(DAMAGED)
            pickled = archive.read(f"{root}/data.pkl")
            rewritten = rewriter.rewrite(io.BytesIO(pickled))
            if rewritten == pickled:
                return content
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as target:
                for name in names:
                    own = name == f"{root}/data.pkl"
                    target.writestr(name, rewritten if own else archive.read(name))
            return buffer.getvalue()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, KeyError, IndexError) as error:
        raise RefusedError(DAMAGED) from error
