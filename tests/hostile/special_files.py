"""Pipes, sockets, devices, directories and huge files in place of every file that is read."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

from adrbench.data import load_dataset
from adrbench.report import build_report
from adrbench.results.outputs import OutputsFile, read_outputs
from adrbench.results.records import Skipped, read_records
from hostile import mutations
from hostile.limited import Case
from hostile.odd_tensors import NAME
from unreadable_files import UNREADABLE

KINDS: dict[str, Callable[[Path], None]] = {
    **UNREADABLE,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling link": lambda path: path.symlink_to("missing"),
    "link to itself in /proc": lambda path: path.symlink_to("/proc/self/mem"),
    "endless file in /proc": lambda path: path.symlink_to("/proc/kmsg"),
    "file without permission": lambda path: os.close(os.open(path, os.O_CREAT, 0)),
    "empty file": Path.touch,
}


def report(folder: Path) -> object:
    """Report the records in a folder."""
    return build_report(read_records(folder, Skipped()))


def load(name: str, folder: Path) -> object:
    """Load a data set."""
    return load_dataset(str(folder / name), data_dir=folder)


def read_outputs_file(folder: Path) -> object:
    """Read the outputs of a record that was written for other ones."""
    path = folder / "outputs.npz"
    return read_outputs(path, OutputsFile(name=path.name, sha256="0" * 64))


ROLES: dict[str, Callable[[Path], object]] = {
    NAME: mutations.read_weights,
    "weights.safetensors": lambda folder: mutations.read_weights(folder, "weights.safetensors"),
    "record.json": report,
    mutations.progress_files(Path()).own_file.name: mutations.read_progress,
    "config.json": mutations.read_settings,
    "history.jsonl": mutations.read_history,
    "outputs.npz": read_outputs_file,
    "data.npz": partial(load, "data.npz"),
}


def make(name: str, kind: str, folder: Path) -> None:
    """Make the special file."""
    KINDS[kind](folder / name)


def cases() -> Iterator[Case]:
    """Yield every special file in every role."""
    for (name, read), kind in product(ROLES.items(), KINDS):
        yield Case(f"{name} is a {kind}", partial(make, name, kind), read)
