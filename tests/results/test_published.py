"""Published results: the page equals the report, and stored weights reproduce the records."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adrbench.results.records import AttackRecord, TrainRecord, read_records
from benchmarks.reproduce.jobs import WEIGHTS_DIR, Workspace, read_index
from benchmarks.reproduce.matrix import STUDIES
from benchmarks.reproduce.recheck import Recheck, attack_again
from benchmarks.reproduce.runner import make_all_jobs

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published"
RECORDS = read_records(PUBLISHED)
WORKSPACE = Workspace(out=PUBLISHED, runs=Path("runs"), data_dir=Path("data"), device="cpu")
COMPLETE = tuple(name for name, study in STUDIES.items() if not study.needs_gpu)


def test_the_page_equals_the_report() -> None:
    command = [sys.executable, "-m", "adrbench", "report", str(PUBLISHED), "--format", "markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert (PUBLISHED / "RESULTS.md").read_bytes() == done.stdout
    assert done.stderr == b""


#: The study, the epoch, the suite, the method and what it is compared with.
Compared = tuple[str, str, str, str, str]
DIGITS, MARGIN = ("digits", "last", "autoattack"), ("cifar10-first-4500", "last", "cw")
#: What the summary says of differences, and the rows of the tables that its figures are from.
QUOTED: dict[str, tuple[Compared, ...]] = {
    "Digits, five seeds, last epoch, AutoAttack: `adr+wa` against `at+wa` {}, and against `at` {}; "
    "`adr` against `at` {}.": (
        (*DIGITS, "adr+wa", "at+wa"),
        (*DIGITS, "adr+wa", "at"),
        (*DIGITS, "adr", "at"),
    ),
    "Best epoch: `trades+adr+wa` against `trades` {}.": (
        ("digits", "best", "autoattack", "trades+adr+wa", "trades"),
    ),
    "`cw`, 1,017 test images, last epoch: `adr+wa` against `at+wa` {}; `adr` against `at` {}.": (
        (*MARGIN, "adr+wa", "at+wa"),
        (*MARGIN, "adr", "at"),
    ),
    "AutoAttack on 200 images does not resolve this difference: best epoch, `adr+wa` against "
    "`at+wa` {}.": (("cifar10-first-4500", "best", "autoattack", "adr+wa", "at+wa"),),
    "At the last epoch, `adr+wa` against `at+wa` is {}, under PGD-20 and {}, under `cw`.": (
        ("cifar10-first-1000", "last", "pgd-20", "adr+wa", "at+wa"),
        ("cifar10-first-1000", "last", "cw", "adr+wa", "at+wa"),
    ),
    "Digits, three seeds, last epoch, AutoAttack, `adr+wa` against its control `at+wa`, with one "
    "pair of numbers changed: lambda 0.7 to 0.95 {}; temperature 2.5 to 2.0 {}; "
    "lambda 0.1 to 0.5 {}.": (
        (*DIGITS, "adr+wa (more-lambda)", "at+wa"),
        (*DIGITS, "adr+wa (softer)", "at+wa"),
        (*DIGITS, "adr+wa (less-lambda)", "at+wa"),
    ),
}


def read_comparisons() -> dict[Compared, str]:
    """Return the difference of each row, with its interval and p, as the summary quotes it."""
    page = (PUBLISHED / "RESULTS.md").read_text("utf-8")
    found: dict[Compared, str] = {}
    for table in page.split("### ")[1:]:
        title, *lines = table.splitlines()
        if title.startswith("Differences in robust accuracy"):
            study = title.split(", ")[1]
            header, _, *rows = [
                line.strip("| ").split(" | ") for line in lines if line.startswith("|")
            ]
            for cells in rows:
                row = dict(zip(header, cells, strict=True))
                method = re.sub(r" \[[\d,]+\]$", "", row["method"])
                key = (study, row["epoch"], row["suite"], method, row["against"])
                assert key not in found
                p = row["p (m)"].partition(" (")[0]
                found[key] = row["difference"] + (f", p {p}" if p != "-" else "")
    return found


#: The table, the study, the kind of outputs or none, the method, and the column.
Measure = tuple[str, str, str | None, str, str]
SOFT, SHARP = "adr+wa (outputs)", "adr+wa (outputs-sharper)"
#: What the summary says of outputs at the last epoch, and the cells that its figures are from.
QUOTED_MEASURES: dict[str, tuple[Measure, ...]] = {
    "KL(clean, adversarial) changes by {} nats on digits and {} on CIFAR-10; on digits total "
    "variation does not ({} points).": (
        ("consistency", "digits", None, SOFT, "KL"),
        ("consistency", "cifar10-first-4500", None, SOFT, "KL"),
        ("consistency", "digits", None, SOFT, "TV"),
    ),
    "On clean images, the calibration error changes by {} points on digits and {} on CIFAR-10; on "
    "adversarial images by {} and {}.": (
        ("calibration", "digits", "clean", SOFT, "ECE"),
        ("calibration", "cifar10-first-4500", "clean", SOFT, "ECE"),
        ("calibration", "digits", "adversarial", SOFT, "ECE"),
        ("calibration", "cifar10-first-4500", "adversarial", SOFT, "ECE"),
    ),
    "by {} and {} points, but as much where they are right, by {} and {}:": (
        ("calibration", "digits", "adversarial", SOFT, "wrong"),
        ("calibration", "cifar10-first-4500", "adversarial", SOFT, "wrong"),
        ("calibration", "digits", "adversarial", SOFT, "right"),
        ("calibration", "cifar10-first-4500", "adversarial", SOFT, "right"),
    ),
    "calibration error of adversarial images {} points, KL {} nats.": (
        ("calibration", "cifar10-first-4500", "adversarial", SHARP, "ECE"),
        ("consistency", "cifar10-first-4500", None, SHARP, "KL"),
    ),
}


def read_measure(measure: Measure) -> str:
    """Return a difference of `adr+wa` from its control at the last epoch, as on the page."""
    kind, study, outputs, method, column = measure
    page = (PUBLISHED / "RESULTS.md").read_text("utf-8")
    (table,) = (
        part for part in page.split("### ") if part.startswith(f"Differences in {kind}, {study}, ")
    )
    header, _, *rows = [
        line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")
    ]
    (found,) = (
        row[column]
        for row in (dict(zip(header, cells, strict=True)) for cells in rows)
        if re.sub(r" \[[\d,]+\]$", "", row["method"]) == method
        and (row["epoch"], row.get("outputs")) == ("last", outputs)
    )
    return found


def test_the_summary_quotes_the_rows_that_it_names() -> None:
    summary = " ".join((PUBLISHED / "README.md").read_text("utf-8").split())
    tables = read_comparisons()
    for sentence, rows in QUOTED.items():
        assert sentence.format(*(tables[row] for row in rows)) in summary
    for sentence, measures in QUOTED_MEASURES.items():
        assert sentence.format(*map(read_measure, measures)) in summary
    num_quoted = sum(map(len, (*QUOTED.values(), *QUOTED_MEASURES.values())))
    assert len(re.findall(r"\[[-+][0-9.]+, [-+][0-9.]+\]", summary)) == num_quoted


@pytest.mark.parametrize("study", COMPLETE)
def test_the_matrix_is_complete(study: str) -> None:
    index = read_index(PUBLISHED)
    jobs = make_all_jobs({study: STUDIES[study]}, WORKSPACE)
    missing = [job.name for job in jobs if job.find_seconds(index) is None]
    assert missing == []


def test_every_record_is_from_committed_code_and_without_absolute_paths() -> None:
    for record in RECORDS:
        assert record.software.commit
        assert record.software.dirty is False
        if isinstance(record, TrainRecord):
            assert not Path(record.config["dataset"]).is_absolute()


def test_stored_weights_reproduce_the_published_outcomes(tmp_path: Path) -> None:
    """Rounding on another processor may change outcomes, of one image in a hundred at most."""
    (published,) = [
        record
        for record in RECORDS
        if isinstance(record, AttackRecord)
        and (record.run, record.suite) == ("digits-float16-adr+wa-seed0", "pgd-20")
    ]
    file = PUBLISHED / "digits" / WEIGHTS_DIR / f"{published.run}.pt"
    workspace = Workspace(out=tmp_path, runs=tmp_path, data_dir=tmp_path, device="cpu")
    repeated = attack_again(file, published, workspace)
    assert Recheck(published=published, repeated=repeated).agrees
