"""The synthetic records that the time of a report is measured with."""

from pathlib import Path

from adrbench.report import build_report, read_results
from adrbench.results.records import Skipped, TrainRecord
from benchmarks.harness.synthetic_records import write_records


def test_reports_read_every_record_and_compare_the_runs(tmp_path: Path) -> None:
    """Two seeds of 24 runs, each with a training and four evaluations, are 240 records."""
    write_records(tmp_path, 240)
    skipped = Skipped()
    records = read_results([tmp_path], skipped)
    assert (len(records), skipped.reasons) == (240, {})
    for record in records:
        if isinstance(record, TrainRecord):
            record.rows()
    compared = [table for table in build_report(records).tables if table.name == "paired"]
    assert sum(len(table.rows) for table in compared) == 96
    assert {row.cells["seeds"] for table in compared for row in table.rows} == {2}
