"""What the page of a report contains, and in which order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from adrbench.report.cell_text import cut
from adrbench.report.figures.chart import Chart
from adrbench.report.grouping import shown_groups
from adrbench.report.inspection_tables import (
    describe,
    distinct_inspections,
    source_of,
    tabulate_pairs,
)
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.page.answers import answer
from adrbench.report.page.content import Block, Page, Section
from adrbench.report.page.gallery import make_gallery, make_label_galleries
from adrbench.report.page.output_answers import describe_outputs
from adrbench.report.page.provenance import describe_records, provenance_blocks
from adrbench.report.places import Place, place_of, place_of_outputs
from adrbench.report.row_names import name_models
from adrbench.report.tables import Report, Table
from adrbench.results.records import Record

#: Models of a data set and threat model whose images are shown.
MOST_GALLERIES = 8
#: The blocks of the section of a data set and threat model: the names of their tables, the kinds of
#: their charts, and whether the tables are unfolded.
BLOCKS = (
    ("Robust accuracy", ("robust accuracy", "robust accuracy by radius"), "accuracy radius", True),
    ("What fooled the images", ("survivors",), "attacks", False),
    ("Robust overfitting", ("robust overfitting",), "overfitting", False),
    ("Comparisons", ("paired",), "differences", False),
    (
        "Calibration and consistency",
        ("calibration", "calibration differences", "consistency", "consistency differences"),
        "calibration",
        False,
    ),
    ("Reliability", (), "reliability", False),
    ("Classes", ("per-class robust accuracy", "confusion"), "", False),
    ("Published baselines", ("robustbench", "paper"), "robustbench", False),
)


def build_page(
    records: Sequence[Record],
    report: Report,
    charts: Sequence[Chart],
    *,
    now: datetime | None = None,
) -> Page:
    """Return the page of `report`, whose tables and `charts` are of `records`."""
    written = now or datetime.now(UTC)
    places = dict.fromkeys(place for table in report.tables if (place := place_of(table)))
    sections = [_place_section(place, report, charts) for place in places]
    sections += _training_sections(charts)
    if not report.is_selection:
        sections += _label_sections(records, charts)
    sections += _cost_sections(report)
    sections.append(Section(title="Provenance", blocks=provenance_blocks(records)))
    return Page(
        title="Robustness report",
        facts=describe_records(records, written),
        sections=tuple(sections),
    )


def _place_section(place: Place, report: Report, charts: Sequence[Chart]) -> Section:
    """Return the section of a data set, norm and eps, or of all eps."""
    tables = [table for table in report.tables if place_of(table) == place]
    own = [chart for chart in charts if chart.place == place]
    blocks = [_make_block(*block, tables=tables, charts=own) for block in BLOCKS]
    models = [one for one in report.outputs if place_of_outputs(one) == place]
    blocks.append(_gallery_block(models))
    has_outputs = any(table.name == "calibration" for table in tables)
    return Section(
        title=f"{cut(place.dataset)}, {place.norm} {place.eps or 'by radius'}",
        answers=(*answer(tables), *(describe_outputs(models, tables) if has_outputs else ())),
        blocks=tuple(block for block in blocks if block is not None),
    )


def _make_block(
    title: str,
    names: Sequence[str],
    kinds: str,
    is_unfolded: bool,
    *,
    tables: Sequence[Table],
    charts: Sequence[Chart],
) -> Block | None:
    shown = tuple(table for table in tables if table.name in names and not table.is_repeated)
    drawn = tuple(chart for chart in charts if chart.kind in kinds.split())
    if not shown and not drawn:
        return None
    text = _share_description(drawn)
    return Block(title=title, text=text, charts=drawn, tables=shown, is_unfolded=is_unfolded)


def _share_description(charts: Sequence[Chart]) -> str:
    """Return the description that several charts have in common, or ""."""
    found = {chart.description for chart in charts}
    return found.pop() if len(charts) > 1 and len(found) == 1 else ""


def _gallery_block(models: Sequence[OutputStatistics]) -> Block | None:
    """Return the images that were kept, of the epochs that main tables show."""
    shown = shown_groups([model.group for model in models])
    galleries = [
        gallery
        for model, name in zip(models, name_models(models), strict=True)
        if model.group in shown and model.gallery and (gallery := make_gallery(name, model.gallery))
    ]
    left = len(galleries) - MOST_GALLERIES
    text = f"Those of {left} more models are not shown." if left > 0 else ""
    if not galleries:
        return None
    return Block(title="Images", text=text, galleries=tuple(galleries[:MOST_GALLERIES]))


def _training_sections(charts: Iterable[Chart]) -> list[Section]:
    """Return the section of training curves, a block for each data set."""
    by_dataset: dict[str, list[Chart]] = {}
    for chart in charts:
        if chart.kind == "training" and chart.place:
            by_dataset.setdefault(chart.place.dataset, []).append(chart)
    blocks = tuple(
        Block(title=cut(dataset), text=_share_description(own), charts=tuple(own))
        for dataset, own in by_dataset.items()
    )
    return [Section(title="Training curves", blocks=blocks)] if blocks else []


def _label_sections(records: Sequence[Record], charts: Sequence[Chart]) -> list[Section]:
    """Return the section of what ADR does to labels, a block for each inspected checkpoint."""
    blocks = []
    for record in distinct_inspections(records):
        blocks.append(
            Block(
                title=cut(f"{record.run}, {record.selection} epoch"),
                lines=tuple(describe(record)),
                charts=tuple(one for one in charts if one.source == source_of(record)),
                galleries=make_label_galleries(record),
                tables=(tabulate_pairs(record),),
                is_unfolded=False,
            )
        )
    return [Section(title="What ADR does to labels", blocks=tuple(blocks))] if blocks else []


def _cost_sections(report: Report) -> list[Section]:
    tables = [table for table in report.tables if table.name in ("training", "evaluation")]
    blocks = tuple(Block(title=table.title, tables=(table,), is_unfolded=False) for table in tables)
    return [Section(title="Cost", blocks=blocks)] if blocks else []
