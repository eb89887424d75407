"""Good files with random changes, of their bytes or of their values with a checksum that fits.

A change depends only on its number, so every case can be repeated.
"""

import functools
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.evaluation.progress import ProgressFiles, begin
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.report import FORMATS, build_report, render
from adrbench.results.history import Counts, HistoryRow
from adrbench.results.outputs import Outputs, OutputsFile, read_outputs, write_outputs
from adrbench.results.records import Skipped, read_records
from adrbench.runtime.hashing import hash_file, hash_json
from adrbench.runtime.typed_json import to_json
from adrbench.training.resume_checks import check_history_file, check_settings_file
from fuzzing import damage
from hostile.limited import Case
from hostile.odd_tensors import NAME, checkpoint, save_with_checksum, weights
from hostile.own_fields import doubled_lists, make_values, nested_lists
from report_records import attack_record, inspect_record, train_record

NUM_EXAMPLES = 53
#: The most nested values of a document that are considered for a change.
MAX_PLACES = 2000


def change_values(content: Any, seed: int, odd_values: list[Any]) -> Any:
    """Return a copy of nested tables and lists with one to three values changed or removed."""
    draws = random.Random(seed)
    for _ in range(draws.randint(1, 3)):
        candidates = list(places(content))[:MAX_PLACES]
        if not candidates:
            return content
        place = draws.choice(candidates)
        content = _replace(content, place, draws, odd_values)
    return content


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value in nested tables and lists, at most six levels deep."""
    if len(above) > 6:
        return
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*above, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*above, key))


def _replace(value: Any, place: tuple[Any, ...], draws: random.Random, odd: list[Any]) -> Any:
    """Return a copy in which the value at a place is changed, removed, renamed or repeated."""
    first, *rest = place
    copied = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copied[first] = _replace(value[first], tuple(rest), draws, odd)
        return copied
    match draws.choice(["odd", "odd", "odd", "near", "near", "remove", "repeat"]):
        case "odd":
            copied[first] = draws.choice(odd)
        case "near":
            copied[first] = _near(copied[first], draws)
        case "remove":
            del copied[first]
        case "repeat" if isinstance(copied, dict):
            copied[draws.choice(["", "\x1b[2J", "a\nb", f"{first}2"])] = copied[first]
        case "repeat":
            copied = [*copied, copied[first]]
    return copied


def _near(value: Any, draws: random.Random) -> Any:
    """Return a value of the same type that differs a little."""
    match value:
        case bool():
            return not value
        case int():
            return value + draws.choice([-1, 1, 2**31, -(2**63), 10**19])
        case float():
            return value * draws.choice([-1.0, 1e-300, 1e300, float("inf")])
        case str():
            place = draws.randint(0, len(value))
            inserted = draws.choice(
                ["\x1b[31m", "\u202e", "\x9b", "\n", "\0", "x", "=1+1", "|", ""]
            )
            return value[:place] + inserted + value[place + draws.randint(0, 2) :]
        case list():
            return value[: draws.randint(0, len(value))]
    return draws.choice([[], {}, 0, ""])


@cache
def odd_json() -> list[Any]:
    """Return odd values that JSON can spell."""
    odd = [value for value in make_values().values() if is_json(value)]
    return [*odd, nested_lists(60), doubled_lists(8), {"": {"": ""}}, "=cmd|' /C calc'!A0"]


def is_json(value: Any) -> bool:
    """Return whether JSON can spell a value at a reasonable length."""
    if value == doubled_lists(0):
        return True
    try:
        return isinstance(value, str | int | float | type(None)) and len(json.dumps(value)) < 10**7
    except ValueError:
        return False


# Files of weights


@cache
def good_bytes(kind: str) -> bytes:
    """Return the content of a good file of weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        match kind:
            case "ours":
                checkpoints.save(path, checkpoint(weights()))
            case "zip":
                torch.save({"state_dict": weights(), "epoch": 3}, path)
            case "legacy":
                torch.save(weights(), path, _use_new_zipfile_serialization=False)
            case "safetensors":
                safetensors.torch.save_file(weights(), path)
        return path.read_bytes()


def write_damaged(kind: str, seed: int, folder: Path) -> None:
    """Write a file of weights with some bytes changed."""
    (folder / NAME).write_bytes(damage(good_bytes(kind), seed))


def read_weights(folder: Path, name: str = NAME) -> object:
    """Load the model as `adrbench attack` does."""
    return resolve_targets(str(folder / name), options())


@cache
def options() -> TargetOptions:
    """Return options that load their images once."""
    return TargetOptions(arch="small-cnn", dataset="digits", normalize="none", eps=0.1)


@cache
def good_content() -> dict[str, Any]:
    """Return the content of a checkpoint of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(good_bytes("ours"))
        content: dict[str, Any] = read_torch_file(path).content
    del content[checkpoints.CHECKSUM]
    return content


def write_changed(seed: int, folder: Path) -> None:
    """Write a checkpoint of ours with some values changed, and a checksum that fits."""
    odd = list(make_values().values())
    save_with_checksum(folder / NAME, change_values(good_content(), seed, odd))


# Results


@cache
def documents() -> list[Any]:
    """Return good records as JSON values."""
    history = ({"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": None})
    records = [
        attack_record(9_000, 4_500),
        attack_record(900, 500, suite="pgd-20", n=1_000, warnings=("one", "two")),
        train_record(config={"lr": 0.1, "milestones": [0.5]}, history=history),
        inspect_record(),
    ]
    return [json.loads(json.dumps(to_json(record))) for record in records]


def write_record(seed: int, folder: Path) -> None:
    """Write a record with some values changed, or some bytes, beside a good one."""
    document = documents()[seed % len(documents())]
    if seed % 3:
        content = json.dumps(change_values(document, seed, odd_json())).encode()
    else:
        content = damage(json.dumps(document).encode(), seed)
    (folder / "changed.json").write_bytes(content)
    (folder / "good.json").write_text(json.dumps(documents()[0]))


def read_results(form: str, folder: Path) -> object:
    """Report the records, and check that nothing acts on a terminal."""
    shown = render(build_report(read_records(folder, Skipped())), form, width=100)
    assert all(line.isprintable() for line in shown.splitlines()), "control characters"
    shown.encode()
    return shown


# Progress


@cache
def good_state() -> dict[str, Any]:
    """Return saved progress as JSON values."""
    progress = begin(NUM_EXAMPLES)
    progress.survivors[3] = False
    progress.done = {0, 2}
    progress.finish_stage("clean")
    progress.survivors[10:20] = False
    progress.done, progress.nonfinite, progress.warnings = {1}, {12, 13}, ["odd"]
    with tempfile.TemporaryDirectory() as folder:
        files = progress_files(Path(folder))
        files.save(progress)
        content: dict[str, Any] = json.loads(files.own_file.read_bytes())
    return content


def progress_files(folder: Path) -> ProgressFiles:
    """Return the files of saved progress in a folder."""
    return ProgressFiles(stem=folder / "run", fingerprint="f", n=NUM_EXAMPLES, rank=0)


def write_progress(seed: int, folder: Path) -> None:
    """Write progress with some values changed and a checksum that fits, or some bytes."""
    if seed % 3:
        written = spell_progress(change_values(good_state()["state"], seed, odd_json())).encode()
    else:
        written = damage(json.dumps(good_state()).encode(), seed)
    progress_files(folder).own_file.write_bytes(written)


def spell_progress(state: Any) -> str:
    """Return the content of a file of progress, with a checksum that fits."""
    return json.dumps({**good_state(), "state": state, "sha256": hash_json(state)})


def read_progress(folder: Path) -> object:
    """Load the progress as an evaluation that resumes does."""
    return progress_files(folder).load()


# Runs


def good_settings() -> dict[str, Any]:
    """Return the settings of a run."""
    return checkpoint({}).config.to_json() | {"run_id": "0123"}


def good_history() -> list[Any]:
    """Return the rows of a history of two epochs."""
    return [
        HistoryRow(
            epoch=epoch,
            lr=0.1,
            annealed={},
            select="val",
            images_per_second=100.0,
            train_loss=0.5,
            seconds=1.5,
            select_n=143,
            counts={"student": Counts(clean_correct=90, robust_correct=50)},
        ).to_json()
        for epoch in (1, 2)
    ]


def write_run_file(name: str, seed: int, folder: Path) -> None:
    """Write the settings or the history of a run with some values or bytes changed."""
    content = good_history() if name == "history.jsonl" else [good_settings()]
    if seed % 3:
        content = change_values(content, seed, odd_json())
    written = "".join(json.dumps(row) + "\n" for row in content).encode()
    (folder / name).write_bytes(written if seed % 3 else damage(written, seed))


def read_settings(folder: Path) -> None:
    """Compare the settings of a run with those in its checkpoint."""
    check_settings_file(folder / "config.json", "0123", checkpoint({}).config)


def read_history(folder: Path) -> None:
    """Compare the history of a run with that in its checkpoint."""
    check_history_file(folder / "history.jsonl", [])


# Outputs


@cache
def good_outputs() -> bytes:
    """Return a file of a model's outputs."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 3)).astype(np.float32)
    examples = rng.random((2, 1, 4, 4)).astype(np.float32)
    outputs = Outputs(
        labels=np.arange(12, dtype=np.int64) % 3,
        clean_logits=logits,
        adversarial_logits=logits,
        linf=np.full(12, 0.03, np.float32),
        l2=np.full(12, 0.5, np.float32),
        images=examples,
        adversarial_images=examples,
        class_names=("a", "b", "c"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outputs.npz"
        write_outputs(path, outputs)
        return path.read_bytes()


def write_outputs_file(seed: int, folder: Path) -> None:
    """Write a file of outputs with some bytes changed."""
    (folder / "outputs.npz").write_bytes(damage(good_outputs(), seed))


def read_outputs_file(folder: Path) -> object:
    """Read the outputs, whose checksum a deliberate change would have adapted."""
    path = folder / "outputs.npz"
    return read_outputs(path, OutputsFile(name=path.name, sha256=hash_file(path)))


@dataclass(frozen=True)
class Kind:
    """Mutations: `write` writes that with a number, and `read` reads it; `share` of all."""

    share: float
    write: Callable[[int, Path], None]
    read: Callable[[Path], object]


KINDS = {
    "bytes of our checkpoints": Kind(0.1, partial(write_damaged, "ours"), read_weights),
    "bytes of zip files": Kind(0.1, partial(write_damaged, "zip"), read_weights),
    "bytes of legacy files": Kind(0.1, partial(write_damaged, "legacy"), read_weights),
    "bytes of safetensors": Kind(0.1, partial(write_damaged, "safetensors"), read_weights),
    "values of our checkpoints": Kind(0.1, write_changed, read_weights),
    **{
        f"records as {form}": Kind(share, write_record, partial(read_results, form))
        for form, share in dict.fromkeys(FORMATS, 0.01).items()
    },
    "progress": Kind(0.2, write_progress, read_progress),
    "settings": Kind(0.1, partial(write_run_file, "config.json"), read_settings),
    "history": Kind(0.1, partial(write_run_file, "history.jsonl"), read_history),
    "outputs": Kind(0.1, write_outputs_file, read_outputs_file),
}


def cases(name: str, count: int) -> Iterator[Case]:
    """Yield the mutations of one kind, its share of `count`."""
    kind = KINDS[name]
    for seed in range(round(count * kind.share)):
        yield Case(f"{name}, {seed}", functools.partial(kind.write, seed), kind.read)
