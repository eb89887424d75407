"""Reading the tensors of untrusted `torch.save` files without running any code they name.

The file is read by torch's restricted unpickler, after the parts that it would reject have been
rewritten.
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
    PickledObject,
    RefusedError,
    Rewriter,
)
from adrbench.errors import CheckpointError, list_first
from adrbench.runtime.files import check_regular_file

NOT_TORCH = "is not a file that torch.save wrote: give a checkpoint or a state dict."
TORCHSCRIPT = "is a TorchScript program: save the state dict of its model."
EXPORTED = "is a program of torch.export: save the state dict of its model."
COMPRESSED = "is compressed: unpack it and save it again with torch.save."
#: The magic number at the start of files in the format before torch 1.6, as pickled.
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
NUM_LEGACY_PICKLES = 5
MAX_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """The content of a file, on the CPU.

    `content` has a `PickledObject` in place of everything but tensors, plain values and
    containers; `unread` lists the full names of the classes and functions replaced, sorted.
    `kind` is the type of the whole content if it is such an object, otherwise None.
    """

    content: Any
    unread: tuple[str, ...]
    kind: str | None = None


def read_torch_file(path: Path) -> TorchFile:
    """Read `path` without importing or calling anything that it names.

    Raises:
        CheckpointError: when the file is missing, a directory, empty, truncated, damaged, a web
            page, not written by `torch.save`, or unreadable without its objects.

    """
    content = read_content(path)
    rewriter = Rewriter(len(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _only_safe_globals():
                rewritten = io.BytesIO(_rewrite(content, rewriter))
            with _only_safe_globals(*REGISTERED):
                loaded = torch.load(rewritten, map_location="cpu", weights_only=True)
    except RefusedError as error:
        raise CheckpointError(f"{path} {error}") from error
    except Exception as error:  # torch.load may raise anything for a broken file
        has_objects = rewriter.unread or isinstance(error, pickle.UnpicklingError)
        raise CheckpointError(f"{path} {OBJECTS if has_objects else DAMAGED}") from error
    # A pickle names the class of an object before anything that the object holds.
    kind = next(iter(rewriter.unread)) if isinstance(loaded, PickledObject) else None
    return TorchFile(content=loaded, unread=tuple(sorted(rewriter.unread)), kind=kind)


def read_content(path: Path) -> bytes:
    """Return the bytes of a file of weights.

    Raises:
        CheckpointError: when it is missing, a directory, not a regular file, empty, or a web page.

    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory without best.pt or last.pt: name a file.")
    try:
        check_regular_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}; give a checkpoint or a state dict."
        ) from error
    if not content:
        raise CheckpointError(f"{path} is empty: copy or train it again.")
    if content.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights: download it again.")
    return content


def is_torch_content(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is an archive or a pickle of torch's."""
    return start.startswith((b"PK", b"\x80"))


def describe_unread(unread: Sequence[str]) -> str:
    """Return the first few names as a list, such as `a.B, c.D, e.F and 2 more`."""
    return list_first(unread, MAX_SHOWN)


@contextmanager
def _only_safe_globals(*names: Callable[..., object]) -> Iterator[None]:
    """Let torch's unpickler import only these names, and none that other libraries registered."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(names))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Return a file with the same tensors and without names that `torch.load` would reject."""
    if content.startswith(b"PK"):
        return _rewrite_zip(content, rewriter)
    if LEGACY_MAGIC not in content[:32]:
        raise RefusedError(NOT_TORCH)
    stream = io.BytesIO(content)
    pickles = [rewriter.rewrite(stream) for _ in range(NUM_LEGACY_PICKLES)]
    return b"".join(pickles) + stream.read()


def _rewrite_zip(content: bytes, rewriter: Rewriter) -> bytes:
    """Verify the checksums, which `torch.load` does not do, and rewrite the pickle if necessary."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0]
            if f"{root}/constants.pkl" in names:
                raise RefusedError(TORCHSCRIPT)
            if {f"{root}/archive_format", "serialized_exported_program.json"} & set(names):
                raise RefusedError(EXPORTED)
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise RefusedError(COMPRESSED)
            if len(set(names)) < len(names) or archive.testzip() is not None:
                raise RefusedError(DAMAGED)
            pickled = archive.read(f"{root}/data.pkl")
            rewritten = rewriter.rewrite(io.BytesIO(pickled))
            if rewritten == pickled:
                return content
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as target:
                for name in names:
                    is_pickle = name == f"{root}/data.pkl"
                    target.writestr(name, rewritten if is_pickle else archive.read(name))
            return buffer.getvalue()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, KeyError, IndexError) as error:
        raise RefusedError(DAMAGED) from error
