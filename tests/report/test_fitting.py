"""Tables within the width of a terminal: no line is longer, and no row loses its name."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from adrbench.report import Report, build_report, read_results, render
from adrbench.report.cell_text import grid
from adrbench.report.fitting import fit, wrap
from adrbench.report.tables import Column, Row, Table
from report_records import attack_record, fixed_records, foreign_record, table

PUBLISHED = Path(__file__).parents[2] / "results" / "published"


def parts(text: str) -> Iterator[list[str]]:
    """Yield the lines of each part of each table, from the last of its header to its last row."""
    lines = text.splitlines()
    for rule in (i for i, line in enumerate(lines) if line.startswith("─")):
        last = next((i for i in range(rule, len(lines)) if not lines[i]), len(lines))
        yield lines[rule - 1 : last]


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("source", ["fixed", "published"])
def test_no_line_is_wider_than_the_terminal_and_every_part_has_the_methods(
    source: str, width: int
) -> None:
    records = fixed_records() if source == "fixed" else read_results([PUBLISHED])
    report = build_report(records)
    for one in report.tables:
        shown = replace(one, is_detail=False)
        text = render(Report(tables=(shown,)), "terminal", width=width)
        assert max(map(cell_len, text.splitlines())) <= width, shown.title
        names = {column.label for column in shown.columns if column.carries_footnotes}
        for part in parts(text):
            assert names <= {*part[0].split()}, shown.title


def test_published_accuracies_are_not_split_at_80_columns() -> None:
    report = build_report(read_results([PUBLISHED / "digits"]))
    for name in ("robust accuracy", "robust overfitting", "training", "evaluation"):
        text = render(Report(tables=(table(report, name),)), "terminal", width=80)
        assert len(list(parts(text))) == 1, name


def make_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    cells = [dict(zip([column.key for column in columns], row, strict=True)) for row in rows]
    shown = tuple(Row(cells=own) for own in cells)
    return Table(name="t", title="t", context={}, columns=tuple(columns), rows=shown)


ARCH = Column(key="arch", label="arch")
METHOD = Column(key="method", label="method", carries_footnotes=True)
SEEDS = Column(key="seeds", label="best epoch", role="detail")
VALUES = tuple(
    Column(key=name, label=name, role="value", align="right") for name in ("clean", "robust")
)


def test_what_is_the_same_in_all_rows_leaves_a_table_that_is_too_wide() -> None:
    rows = [["resnet18", "at", "7", "80.00", "50.00"], ["resnet18", "adr", "8", "81.00", "51.00"]]
    shown = make_table([ARCH, METHOD, SEEDS, *VALUES], rows)
    assert render(Report(tables=(shown,)), "terminal", width=40).splitlines() == [
        "t",
        "all rows: arch resnet18",
        "method  best epoch  clean  robust",
        "─────────────────────────────────",
        "at      7           80.00   50.00",
        "adr     8           81.00   51.00",
    ]
    assert "all rows" not in render(Report(tables=(shown,)), "terminal", width=43)


def test_headers_wrap_before_text_and_text_before_a_split() -> None:
    rows = [["resnet18", "a-very-long-name", "7", "80.00", "50.00"], ["wrn", "b", "8", "-", "-"]]
    text = grid(make_table([ARCH, METHOD, SEEDS, *VALUES], rows), intervals=False)
    assert fit(text, 53).parts == ({0: 8, 1: 16, 2: 10, 3: 5, 4: 6},)
    assert fit(text, 50).parts == ({0: 8, 1: 16, 2: 7, 3: 5, 4: 6},)
    assert fit(text, 47).parts == ({0: 8, 1: 15, 2: 5, 3: 5, 4: 6},)
    assert fit(text, 42).parts == ({0: 8, 1: 10, 2: 5, 3: 5, 4: 6},)
    assert fit(text, 41).parts == ({0: 8, 1: 16, 2: 10}, {0: 8, 1: 16, 3: 5, 4: 6})


def test_a_single_row_keeps_all_of_its_columns() -> None:
    shown = make_table([ARCH, METHOD, *VALUES], [["resnet18", "at", "80.00", "50.00"]])
    assert fit(grid(shown, intervals=False), 20).constant == ()


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("adr+wa (float16) [3]", 12, ["adr+wa", "(float16)", "[3]"]),
        ("autoattack, Linf 8/255", 12, ["autoattack,", "Linf 8/255"]),
        ("digits-first-300", 12, ["digits-", "first-300"]),
        ("robustbench:Wang2023Better_WRN", 14, ["robustbench:", "Wang2023", "Better_WRN"]),
        ("x" * 25, 10, ["x" * 10, "x" * 10, "x" * 5]),
        ("网络网络网络", 5, ["网络", "网络", "网络"]),
        ("", 5, [""]),
    ],
)
def test_text_is_broken_between_its_parts(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


@given(st.text(max_size=60), st.integers(2, 20))
def test_wrapped_lines_fit_and_hold_all_of_the_text(text: str, width: int) -> None:
    plain = "".join(character for character in text if character.isprintable())
    lines = wrap(plain, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == plain.replace(" ", "")


def test_long_names_wrap_and_stay_in_every_part() -> None:
    names = [f"timm-vit_base_patch16_224.{suffix}_in21k_ft_in1k" for suffix in ("augreg", "orig")]
    suites = [f"pgd-{steps}" for steps in range(10, 100, 10)]
    records = [foreign_record(9_000, 10, name, suite=suite) for name in names for suite in suites]
    accuracy = table(build_report(records), "robust accuracy")
    text = render(Report(tables=(accuracy,)), "terminal", width=80)
    found = list(parts(text))
    assert len(found) > 1
    for part in found:
        first, second, *_ = part[0].split()
        assert first == "method"
        joined = "".join(line[: part[0].index(second)].strip() for line in part[2:])
        assert joined == "".join(names)


def test_the_page_that_explains_footnotes_is_named_once() -> None:
    records = [attack_record(8_000, 4_700, method=name, seed=s) for name in "ab" for s in (0, 1)]
    for form in ("terminal", "markdown", "latex"):
        assert render(build_report(records), form).count("docs/statistics.md") == 1


def test_words_of_names_are_whole_in_a_narrow_table() -> None:
    """The longest word takes 15 columns with its hyphen; all figures leave 12 to the name."""
    figures = [
        Column(key=f"v{i}", label=f"{i}/255", role="value", align="right") for i in range(1, 9)
    ]
    names = ("classification-transformer", "nets.classification")
    rows = [[name, *(8 * ["100.00"])] for name in names]
    text = render(Report(tables=(make_table([METHOD, *figures], rows),)), "terminal", width=76)
    assert max(map(len, text.splitlines())) <= 76
    assert text.count("transformer") == len(list(parts(text)))
    assert text.count("classification") == 2 * len(list(parts(text)))
