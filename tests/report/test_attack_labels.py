"""The labels of attacks: short where parameters are nested, numbered where only code differs."""

from typing import Any

import pytest

from adrbench.config.threat import ThreatModel
from adrbench.report import build_report
from adrbench.report.radius_table import RADIUS
from adrbench.results.records import AttackRecord
from report_records import foreign_record, table

TABLES = ("robust accuracy", "evaluation")


def noise(day: int = 1, k: float = 8, code: str = "a", **settings: Any) -> AttackRecord:
    """Return an evaluation by an attack of one's own, made on a day, at a radius of k/255."""
    stage = {"class": "Noise", "eps": k / 255, "code": 16 * code, **settings}
    return foreign_record(
        8_000,
        5_000,
        "mine",
        suite="noise",
        parameters={"noise": stage},
        threat_model=ThreatModel(norm="Linf", eps=k / 255),
        created=f"2026-01-{day:02}T00:00:00+00:00",
    )


def labels(*records: AttackRecord) -> list[str]:
    found = table(build_report(records), "robust accuracy")
    return [column.label for column in found.columns if column.suite]


def test_a_label_shows_the_plain_settings_that_differ() -> None:
    assert labels(noise(steps=10), noise(steps=9)) == ["noise (steps 9)", "noise (steps 10)"]
    assert labels(noise(steps=10, loss="ce"), noise(steps=10)) == [
        "noise (loss -)",
        "noise (loss ce)",
    ]


@pytest.mark.parametrize("name", TABLES)
def test_versions_of_the_code_are_numbered_from_the_oldest(name: str) -> None:
    records = [noise(day, code=code) for day, code in ((2, "b"), (1, "c"), (3, "a"))]
    assert labels(*records) == ["noise", "noise (2)", "noise (3)"]
    rows = {one.parameters["noise"]["code"][0]: one for one in records}
    note = "noise, noise (2), noise (3): they differ in code; the newest is noise (3)."
    assert note in table(build_report([rows["a"], rows["b"], rows["c"]]), name).notes


def test_the_date_of_a_version_is_that_of_its_newest_evaluation() -> None:
    """The older code was restored, so its evaluation on day 3 makes it the newest version."""
    records = [noise(1, code="a"), noise(2, code="b"), noise(3, code="a")]
    assert "the newest is noise (2)." in table(build_report(records), "robust accuracy").notes[-1]
    found = table(build_report(records), "robust accuracy")
    assert found.rows[0].cells["robust noise (2)"] is not None


def test_settings_that_no_label_can_show_are_named_in_a_note() -> None:
    kernels = [{"shape": [3], "sha256": 16 * digit} for digit in "12"]
    records = [noise(day, kernel=one, steps=day) for day, one in enumerate(kernels, start=1)]
    assert labels(*records) == ["noise (steps 1)", "noise (steps 2)"]
    assert table(build_report(records), "robust accuracy").notes[-1] == (
        "noise (steps 1), noise (steps 2): they differ in kernel; the newest is noise (steps 2)."
    )


def test_a_long_setting_is_shown_in_a_note() -> None:
    long = [round(0.1 * k, 1) for k in range(20)]
    records = [noise(1, steps=[0.5]), noise(2, steps=long, code="b")]
    assert labels(*records) == ["noise", "noise (2)"]
    assert table(build_report(records), "robust accuracy").notes[-1] == (
        "noise, noise (2): they differ in code and steps ([0.5]; [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, "
        "0.6, 0.7, 0.8, 0.9, 1.0, 1...); the newest is noise (2)."
    )


def test_settings_of_two_stages_with_one_name_are_told_apart() -> None:
    records = [
        foreign_record(
            8_000, 5_000, "mine", suite="own", parameters={"a": {"steps": k}, "b": {"steps": 2 * k}}
        )
        for k in (1, 2)
    ]
    assert labels(*records) == ["own (a steps 1, b steps 2)", "own (a steps 2, b steps 4)"]


def test_an_attack_of_ones_own_that_stores_its_radius_has_one_row_for_all_radii() -> None:
    report = build_report([noise(k=k, steps=5) for k in (2, 4, 8)])
    (row,) = table(report, RADIUS).rows
    assert row.cells["suite"] == "noise"
    (cost,) = table(report, "evaluation").rows
    assert (cost.cells["suite"], cost.cells["evaluations"]) == ("noise, Linf 3 radii", 3)


def test_a_warning_of_two_versions_names_no_seed_of_unknown_weights() -> None:
    records = [
        foreign_record(8_000, 5_000, "mine", parameters={"version": v}, warnings=("masked",))
        for v in ("a", "b")
    ]
    (row,) = table(build_report(records), "robust accuracy").rows
    assert "warning from autoattack: masked" in row.footnotes


def test_the_order_of_records_does_not_change_labels() -> None:
    records = [noise(code=code, steps=steps) for code in "ab" for steps in (2, 10)]
    found = [table(build_report(order), "robust accuracy") for order in (records, records[::-1])]
    assert found[0] == found[1]
