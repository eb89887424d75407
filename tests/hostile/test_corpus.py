"""No file hangs the reader, exhausts memory, or raises anything but one sentence of error."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from hostile.areas import AREAS, mutation_areas
from hostile.limited import HELD, Case, outcomes

#: Every so manyth case of a large area is tried, and of those in a slow run; `python -m hostile`
#: tries all of them.
STEP, SLOW_STEP = 25, 4
#: Random changes, of all kinds of files together.
NUM_MUTATIONS = 1000


def broken(cases: Iterable[Case], folder: Path) -> list[tuple[str, str]]:
    return [(case.says, end) for case, end in outcomes(cases, folder) if end not in HELD]


def sample(area: str, step: int) -> list[Case]:
    cases = list(AREAS[area]())
    return cases if len(cases) < STEP else cases[::step]


@pytest.mark.parametrize("area", AREAS)
def test_a_few_hostile_files_are_read_or_refused(tmp_path: Path, area: str) -> None:
    assert broken(sample(area, STEP), tmp_path / "case") == []


@pytest.mark.slow
@pytest.mark.parametrize("area", AREAS)
def test_many_hostile_files_are_read_or_refused(tmp_path: Path, area: str) -> None:
    assert broken(sample(area, SLOW_STEP)[1:], tmp_path / "case") == []


@pytest.mark.parametrize("area", mutation_areas(0))
def test_changed_files_are_read_or_refused(tmp_path: Path, area: str) -> None:
    assert broken(mutation_areas(NUM_MUTATIONS)[area](), tmp_path / "case") == []


def explode(folder: Path) -> None:
    raise ZeroDivisionError


def spin(folder: Path) -> None:
    while True:
        pass


def exhaust(folder: Path) -> None:
    bytearray(4 * 2**30)


def leave(folder: Path) -> None:
    (folder / "new").touch()


def die(folder: Path) -> None:
    import os

    os._exit(1)


def test_whatever_goes_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostile.limited.SECONDS", 1)
    reads = (explode, spin, exhaust, leave, die, str)
    cases = [Case(read.__name__, lambda folder: None, read) for read in reads]
    ends = {case.says: end for case, end in outcomes(cases, tmp_path / "case")}
    assert list(ends) == [read.__name__ for read in reads]
    assert ends.pop("str") == "read"
    expected = {
        "explode": "raised ZeroDivisionError",
        "spin": "no end",
        "exhaust": "raised MemoryError",
        "leave": "changed a file",
        "die": "the process died",
    }
    for name, words in expected.items():
        assert ends[name].startswith(words)
