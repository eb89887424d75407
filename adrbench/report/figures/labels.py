"""What ADR does to labels: the mean label of each class, and how the targets are annealed."""

from typing import TYPE_CHECKING

from adrbench.report.cell_text import cut
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.style import (
    BLUE,
    GRID,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PAPER,
    count_epochs,
)
from adrbench.report.inspection_tables import MOST_CLASSES, name_class, source_of
from adrbench.results.inspection import InspectRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: The cells of a matrix of more classes have no room for a number.
MOST_NUMBERED = 12
#: Cells of a darker blue than this have light numbers.
DARK_FROM = 0.6
#: Longer names of classes are cut.
MOST_CHARACTERS = 12


def matrix_chart(record: InspectRecord, name: str) -> Chart | None:
    """Return the mean rectified label of each class; None for too many classes."""
    if record.num_classes > MOST_CLASSES:
        return None
    names = [cut(name_class(record, i), MOST_CHARACTERS) for i in range(record.num_classes)]
    rows = record.mean_labels
    others = [row[j] for i, row in enumerate(rows) for j in range(len(row)) if i != j]
    largest = max(others, default=0.0) or 1.0

    def draw(canvas: "Canvas") -> None:
        from matplotlib.patches import Rectangle

        axes = canvas.subplots()
        for i, row in enumerate(rows):
            for j, value in enumerate(row if record.class_counts[i] else ()):
                is_true = i == j
                alpha = 1.0 if is_true else min(1.0, value / largest)
                color = GRID if is_true else BLUE
                patch = Rectangle((j - 0.5, i - 0.5), 1, 1, color=color, alpha=alpha, linewidth=0)
                axes.add_patch(patch)
                shown = f"{100 * value:.0f}"
                if is_true or (shown != "0" and len(rows) <= MOST_NUMBERED):
                    ink = PAPER if alpha > DARK_FROM and not is_true else INK
                    axes.text(j, i, shown, ha="center", va="center", fontsize=7.5, color=ink)
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(rows)), names, rotation=90)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_aspect("equal")
        axes.set_xlabel("mean probability in the label (%)")
        axes.set_ylabel("true class")

    return Chart(
        name=name,
        kind="labels",
        source=source_of(record),
        title=f"Mean rectified labels, {record.method}, {record.arch}",
        description="Row by row, the mean label of the training images of a class; gray is the "
        "true class, blue the others, darker for more.",
        draw=draw,
        height=4.6,
    )


def schedule_chart(record: InspectRecord, name: str) -> Chart:
    """Return temperature and interpolation factor by epoch, the inspected epoch marked."""

    def draw(canvas: "Canvas") -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True)
        epochs = [one.epoch for one in record.schedule]
        upper.plot(epochs, [one.temperature for one in record.schedule], color=BLUE)
        upper.set_ylabel("temperature")
        lower.plot(epochs, [one.interpolation for one in record.schedule], color=ORANGE)
        lower.set_ylabel("interpolation factor")
        count_epochs(lower)
        for axes, value in ((upper, record.temperature), (lower, record.interpolation)):
            axes.axvline(record.epoch, color=MUTED, linewidth=0.8, linestyle=":")
            axes.plot([record.epoch], [value], MARKERS[0], color=INK)

    return Chart(
        name=name,
        kind="annealing",
        source=source_of(record),
        title=f"Annealing, {record.method}, {record.arch}",
        description=f"The point is the inspected epoch, {record.epoch}: temperature "
        f"{record.temperature:.2f}, interpolation factor {record.interpolation:.2f}.",
        draw=draw,
    )
