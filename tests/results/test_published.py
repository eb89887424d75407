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


def test_every_interval_in_the_summary_is_one_of_the_tables() -> None:
    interval = re.compile(r"[-+][0-9.]+ \[[-+][0-9.]+, [-+][0-9.]+\]")
    quoted = interval.findall((PUBLISHED / "README.md").read_text("utf-8"))
    assert len(quoted) >= 10
    assert set(quoted) <= set(interval.findall((PUBLISHED / "RESULTS.md").read_text("utf-8")))


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
