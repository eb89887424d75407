"""What `attack` prints when it ends: a table that fits, and warnings that are not repeated."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from adrbench.cli.attack_output import gather_warnings, print_attacks, tabulate
from adrbench.config.threat import ThreatModel
from adrbench.report.terminal import render_table
from adrbench.results.records import AttackRecord
from report_records import attack_record, foreign_record

FIVE = (1, 2, 4, 8, 16)
LONG = "timm-vit_base_patch16_clip_quickgelu_224"


def at(record: AttackRecord, radii: Sequence[int], *suites: str) -> list[AttackRecord]:
    """Return `record` under each suite at each radius, a multiple of 1/255."""
    threats = [ThreatModel(norm="Linf", eps=k / 255) for k in radii]
    return [replace(record, threat_model=one, suite=suite) for suite in suites for one in threats]


@pytest.mark.parametrize("width", [80, 120])
def test_five_radii_of_a_long_name_fit_a_terminal(width: int) -> None:
    shown = render_table(tabulate(at(foreign_record(8_000, 5_000, LONG), FIVE, "pgd-20")), width)
    title, head, _, *rows = shown.splitlines()
    assert title == "Accuracy (%)"
    assert head.split() == [
        *("target", "threat", "suite", "n", "clean"),
        *("1/255", "2/255", "4/255", "8/255", "16/255"),
    ]
    assert max(map(len, shown.splitlines())) <= width
    name = "".join(row.split("  ")[0].strip() for row in rows)
    assert name == LONG
    assert len(rows) <= 4


def test_weights_that_were_not_trained_here_have_no_column_unless_others_were() -> None:
    mine = at(foreign_record(8_000, 5_000, "mine"), (8,), "pgd-20")
    trained = at(attack_record(8_000, 5_000, run="run"), (8,), "pgd-20")
    head, _, row = render_table(tabulate(mine), 200).splitlines()[1:]
    assert head.split() == ["target", "threat", "suite", "n", "clean", "robust"]
    assert row.split() == ["mine", "Linf", "8/255", "pgd-20", "10000", "80.00", "50.00"]
    head, _, *rows = render_table(tabulate(trained + mine), 200).splitlines()[1:]
    assert head.split()[:2] == ["target", "weights"]
    assert rows[0].startswith("run best  student  ")
    assert rows[1].startswith("mine      -        ")


def test_a_warning_is_one_line_with_the_evaluations_that_have_it() -> None:
    masked = replace(foreign_record(8_000, 5_000, "mine"), warnings=("masked", "masked"))
    records = at(masked, (2, 8), "pgd-20", "cw") + at(masked, (2,), "square")
    records += at(attack_record(8_000, 5_000, run="run", warnings=("masked", "few")), (8,), "cw")
    assert gather_warnings(records) == {
        "masked": [
            "mine pgd-20, cw 2/255, 8/255",
            "mine square 2/255",
            "run best student cw 8/255",
        ],
        "few": ["run best student cw 8/255"],
    }


def test_a_warning_is_wrapped_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "some images have a gradient of exactly zero, so that gradients are masked"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    print_attacks([foreign_record(8_000, 5_000, "mine", warnings=(text,))])
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == f"warning: mine autoattack 8/255: {text}"
