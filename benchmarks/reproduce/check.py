"""Records of kept weights, made again to see whether the verdicts are the same."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adrbench.errors import AdrbenchError, RecordError
from adrbench.results.records import AttackRecord, read_records, unpack_verdicts
from benchmarks.processes import environment
from benchmarks.reproduce.cut import place, provide
from benchmarks.reproduce.jobs import WEIGHTS_DIR, Places, attack_arguments, spell
from benchmarks.reproduce.matrix import Attack

#: The share of verdicts that another processor's rounding may turn.
TOLERATED = 0.01


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A published record and the one that was made again."""

    published: AttackRecord
    made: AttackRecord

    @property
    def differing(self) -> int:
        """The number of images with another verdict, clean or under attack."""
        n = self.published.n
        pairs = (
            (self.published.verdicts.clean, self.made.verdicts.clean),
            (self.published.verdicts.robust, self.made.verdicts.robust),
        )
        different = [unpack_verdicts(a, n) != unpack_verdicts(b, n) for a, b in pairs]
        return int((different[0] | different[1]).sum())

    @property
    def agrees(self) -> bool:
        """Whether the same weights got the same verdicts on the same images, but for rounding."""
        one, other = self.published, self.made
        same = ("weights_sha256", "data_sha256", "threat_model", "parameters", "attack_seed")
        is_same = all(getattr(one, name) == getattr(other, name) for name in same)
        return is_same and self.differing <= TOLERATED * one.n


def check(places: Places, suite: str) -> Iterator[Checked]:
    """Attack the weights kept in `places.out` again, with `suite`; yield each beside its record.

    Raises:
        AdrbenchError: when no weights are kept there, or an attack fails.

    """
    files = sorted(places.out.rglob(f"{WEIGHTS_DIR}/*.pt"))
    if not files:
        raise AdrbenchError(f"no weights are kept in {places.out}.")
    by_run = {
        record.run: record
        for record in read_records(places.out)
        if isinstance(record, AttackRecord) and record.suite == suite
    }
    for file in files:
        if file.stem not in by_run:
            raise RecordError(f"{places.out} holds no record of {file} under {suite}.")
        published = by_run[file.stem]
        provide([published.dataset], places.data_dir)
        with tempfile.TemporaryDirectory() as directory:
            made = attack_again(file, published, replace(places, out=Path(directory)))
        yield Checked(published=published, made=made)


def attack_again(file: Path, published: AttackRecord, places: Places) -> AttackRecord:
    """Return a new record of what `published` is of."""
    attack = Attack(suite=published.suite, n=published.n)
    options = {
        "dataset": place(published.dataset, places.data_dir),
        "batch_size": published.batch_size,
        "seed": published.attack_seed,
    }
    done = subprocess.run(
        [
            sys.executable,
            *attack_arguments(file, attack, places, published.weights),
            *spell(options),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ")
        raise AdrbenchError(f"{file} could not be attacked (exit code {done.returncode}): {said}")
    (record,) = read_records(places.out)
    assert isinstance(record, AttackRecord)
    return record
