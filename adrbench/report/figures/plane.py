"""Our models among RobustBench's, on the plane of clean and robust accuracy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adrbench.report.figures.chart import Chart
from adrbench.report.figures.style import GRAY, MARKERS, SERIES, shorten
from adrbench.report.places import Place
from adrbench.report.statistics import Figure
from adrbench.results.baselines import Baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: A model of this report: its name, its clean and its robust accuracy.
Point = tuple[str, Figure, Figure]


def plane_chart(
    entries: Sequence[Baseline], points: Sequence[Point], name: str, place: Place
) -> Chart:
    """Return RobustBench's `entries` in gray and our `points` in color."""
    shown = points[: len(SERIES)]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for has_data, marker, label in (
            (False, "o", "RobustBench"),
            (True, "x", "RobustBench, additional data"),
        ):
            own = [entry for entry in entries if entry.additional_data == has_data]
            clean, robust = [one.clean_acc for one in own], [one.robust_acc for one in own]
            axes.plot(clean, robust, marker, color=GRAY, markersize=4, alpha=0.7, label=label)
        for (method, clean_figure, robust_figure), color, marker in zip(
            shown, SERIES, MARKERS, strict=False
        ):
            axes.errorbar(
                [clean_figure.mean],
                [robust_figure.mean],
                xerr=_deviation(clean_figure),
                yerr=_deviation(robust_figure),
                fmt=marker,
                color=color,
                markersize=8,
                capsize=2,
                label=shorten(method),
            )
        axes.set_xlabel("clean accuracy (%)")
        axes.set_ylabel("robust accuracy (%), AutoAttack")
        canvas.legend(loc="outside upper left", ncols=2, columnspacing=1)

    left = len(points) - len(shown)
    return Chart(
        name=name,
        kind="robustbench",
        place=place,
        title="Beside RobustBench",
        description=f"{len(entries)} entries of RobustBench and {len(shown)} models of this "
        "report, which were attacked on the complete test set; lines are standard deviations over "
        "training seeds." + (f" {left} more models are in the table." if left else ""),
        draw=draw,
        height=4.2,
    )


def _deviation(figure: Figure) -> list[float] | None:
    return None if figure.std is None else [figure.std]
