"""Figures: what they draw, their names, and the files that they become."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas

from adrbench.report import build_report, select_tables
from adrbench.report.figures import Chart, collect_charts, save_charts
from adrbench.report.figures.files import to_inline_svg
from adrbench.report.figures.style import styled
from adrbench.report.figures.training import Curves
from adrbench.report.significance import is_significant
from adrbench.report.tables import Table
from adrbench.results.history import HistoryRow
from page_records import history, hostile_records, page_records

REPORT = build_report(page_records())
CHARTS = {chart.name: chart for chart in collect_charts(page_records(), REPORT)}


def draw(chart: Chart) -> Canvas:
    with styled():
        canvas = Canvas(figsize=(chart.width, chart.height))
        chart.draw(canvas)
    return canvas


def find(kind: str) -> Chart:
    return next(chart for name, chart in CHARTS.items() if name.startswith(f"{kind}-"))


def table(name: str) -> Table:
    return next(one for one in REPORT.tables if one.name == name)


def test_bars_of_survivors_add_up_to_all_images() -> None:
    (axes,) = draw(find("attacks")).axes
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    last = ends[-len(table("survivors").rows) :]
    assert last == pytest.approx([100.0] * len(last))


def test_only_significant_differences_are_filled() -> None:
    rows = [row for row in table("paired").rows if row.cells["checkpoint"] == "best"]
    rows = [row for row in rows if row.cells["suite"] == "autoattack"]
    chart = CHARTS["differences-cifar10-Linf-8-255-best-autoattack"]
    (axes,) = draw(chart).axes
    points = [line for line in axes.lines if line.get_marker() == "o"]
    faces = [line.get_markerfacecolor() != "none" for line in points]
    assert faces == [is_significant(row) for row in rows]
    assert [line.get_xdata()[0] for line in points] == [  # type: ignore[index]
        row.cells["difference"].mean  # type: ignore[union-attr]
        for row in rows
    ]


def test_the_plane_has_every_entry_of_the_leaderboard_and_our_ranked_rows() -> None:
    (axes,) = draw(find("robustbench")).axes
    ranked = [
        row
        for one in REPORT.tables
        for row in one.rows
        if one.name == "robust accuracy" and row.cells.get("rank")
    ]
    sizes = [len(line.get_xdata()) for line in axes.lines]  # type: ignore[arg-type]
    num_entries = sum(sizes[:2])
    assert num_entries > 50
    assert f"{num_entries} entries" in find("robustbench").description
    assert len(axes.containers) == len(ranked) == 5
    assert f"{len(ranked)} models" in find("robustbench").description


def test_the_best_epoch_is_the_first_of_the_highest_criterion_of_the_deployed_weights() -> None:
    rows = [HistoryRow.from_json(row) for row in history(0)]
    assert Curves(histories=[rows], selected="average").find_best() == [4]
    tied = [replace(row, counts=rows[0].counts) for row in rows]
    assert Curves(histories=[tied, rows], selected="student").find_best() == [1, 4]


def test_curves_are_means_over_seeds_with_their_range() -> None:
    canvas = draw(CHARTS["training-digits-small-cnn-at-wa"])
    upper, lower = canvas.axes
    robust = upper.lines[0]
    assert list(robust.get_ydata()) == [37.5, 38.5, 39.5, 40.5, 39.5, 38.5]  # type: ignore[arg-type]
    assert len(upper.collections) == 4
    assert len(lower.collections) == 1


def test_names_are_unique_and_safe_as_those_of_files() -> None:
    records = hostile_records()
    names = [chart.name for chart in collect_charts(records, build_report(records))]
    assert len(names) == len({name.lower() for name in names}) > 3
    assert all(re.fullmatch(r"[A-Za-z0-9.-]{1,200}", name) for name in names)


def test_selected_tables_select_figures() -> None:
    selected = select_tables(REPORT, ["attacks"])
    assert {one.kind for one in collect_charts(page_records(), selected)} == {"attacks"}
    selected = select_tables(REPORT, ["overfitting"])
    kinds = {one.kind for one in collect_charts(page_records(), selected)}
    assert kinds == {"overfitting", "training"}


def test_files_are_those_of_papers_and_the_same_every_time(tmp_path: Path) -> None:
    chart = find("overfitting")
    first = save_charts([chart], tmp_path / "one")
    with rc_context({"font.size": 30, "axes.facecolor": "red"}):  # a user's own settings
        second = save_charts([chart], tmp_path / "two")
    assert [path.suffix for path in first] == [".svg", ".pdf", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.read_bytes()[:4] for path in first[1:]] == [b"%PDF", b"\x89PNG"]


def test_a_dollar_and_markup_in_a_name_are_text() -> None:
    rows = tuple(
        replace(row, cells={**row.cells, "method": r"a$\frac{1}{0}$<b>"})
        for row in table("robust overfitting").rows
    )
    changed = replace(
        REPORT, tables=(replace(table("robust overfitting"), rows=rows),), is_selection=True
    )
    (chart,) = (one for one in collect_charts([], changed) if one.kind == "overfitting")
    texts = [element.text for element in ET.fromstring(to_inline_svg(chart)).iter()]
    assert any(text and text.startswith(r"a$\frac{1}{0}$<b>") for text in texts)
