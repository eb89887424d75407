"""Attack kept weights again and compare the per-example outcomes with the published records."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adrbench.errors import AdrbenchError, RecordError
from adrbench.results.records import AttackRecord, read_records, unpack_outcomes
from benchmarks.harness.processes import environment
from benchmarks.reproduce.jobs import WEIGHTS_DIR, Workspace, make_attack_arguments, make_flags
from benchmarks.reproduce.matrix import Attack
from benchmarks.reproduce.subsets import find_dataset, prepare_datasets

#: The fraction of outcomes that rounding on another processor may change.
TOLERANCE = 0.01
IDENTICAL = ("weights_sha256", "data_sha256", "threat_model", "parameters", "attack_seed")


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """A published record and its repetition."""

    published: AttackRecord
    repeated: AttackRecord

    @property
    def num_different(self) -> int:
        """The number of images with a different outcome, clean or under attack."""
        n = self.published.n
        ours, theirs = self.repeated.verdicts, self.published.verdicts
        clean = unpack_outcomes(ours.clean, n) != unpack_outcomes(theirs.clean, n)
        robust = unpack_outcomes(ours.robust, n) != unpack_outcomes(theirs.robust, n)
        return int((clean | robust).sum())

    @property
    def agrees(self) -> bool:
        """Whether weights, images and attack are identical and outcomes agree up to TOLERANCE."""
        one, other = self.published, self.repeated
        is_same = all(getattr(one, name) == getattr(other, name) for name in IDENTICAL)
        return is_same and self.num_different <= TOLERANCE * one.n

    def describe(self) -> str:
        """Return the comparison in one line."""
        record = self.published
        return (
            f"{record.run}, {record.suite}: {record.robust_correct}/{record.n} robust, "
            f"{self.repeated.robust_correct}/{record.n} when repeated; "
            f"{self.num_different} outcomes differ: {'agrees' if self.agrees else 'DOES NOT AGREE'}"
        )


def recheck_all(workspace: Workspace, suite: str) -> Iterator[Recheck]:
    """Attack all weights kept in `workspace.out` with `suite` again; yield each comparison.

    Raises:
        AdrbenchError: when no weights are kept there, or an attack fails.

    """
    files = sorted(workspace.out.rglob(f"{WEIGHTS_DIR}/*.pt"))
    if not files:
        raise AdrbenchError(f"no weights are kept in {workspace.out}.")
    by_run = {
        record.run: record
        for record in read_records(workspace.out)
        if isinstance(record, AttackRecord) and record.suite == suite
    }
    for file in files:
        if file.stem not in by_run:
            raise RecordError(f"{workspace.out} holds no record of {file} under {suite}.")
        published = by_run[file.stem]
        prepare_datasets([published.dataset], workspace.data_dir)
        with tempfile.TemporaryDirectory() as directory:
            repeated = attack_again(file, published, replace(workspace, out=Path(directory)))
        yield Recheck(published=published, repeated=repeated)


def attack_again(file: Path, published: AttackRecord, workspace: Workspace) -> AttackRecord:
    """Return a new record of the evaluation that `published` is of."""
    attack = Attack(suite=published.suite, n=published.n)
    settings = {
        "dataset": find_dataset(published.dataset, workspace.data_dir),
        "batch_size": published.batch_size,
        "seed": published.attack_seed,
    }
    arguments = make_attack_arguments(file, attack, workspace, published.weights)
    done = subprocess.run(
        [sys.executable, *arguments, *make_flags(settings)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = done.stderr.strip().removeprefix("error: ")
        raise AdrbenchError(f"the attack on {file} failed, exit code {done.returncode}: {message}")
    (record,) = read_records(workspace.out)
    assert isinstance(record, AttackRecord)
    return record
