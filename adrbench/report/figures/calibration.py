"""Figures of a model's outputs: reliability, confidence, and how an attack changes them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adrbench.report.figures.accuracy import FRAME, ROW
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.style import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    MOST_ROWS,
    MUTED,
    ORANGE,
    describe_cut,
    label_rows,
    shorten,
)
from adrbench.report.outputs.statistics import OutputStatistics, PredictionStatistics, Reliability
from adrbench.report.places import Place
from adrbench.report.row_names import name_models
from adrbench.report.statistics import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: The accuracy in a bin of fewer images, of all seeds, is not drawn.
FEWEST_IMAGES = 10


def ece_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return the expected calibration error of each model, clean and attacked."""
    shown = models[:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        _draw_points(axes, [one.clean.ece for one in shown], "clean", 0)
        _draw_points(axes, [one.adversarial.ece for one in shown], "adversarial", 1)
        _finish(canvas, axes, shown, "expected calibration error (%)")

    return _chart(
        name,
        place,
        models,
        title="Calibration error",
        description="Difference between confidence and accuracy, over 15 bins of confidence: 0 is "
        "perfect. Lines are 95 % bootstrap intervals.",
        draw=draw,
    )


def confidence_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return the mean confidence of each model where it is right and where it is wrong."""
    shown = models[:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        _draw_points(axes, [one.adversarial.confidence_right for one in shown], "right", 0)
        _draw_points(axes, [one.adversarial.confidence_wrong for one in shown], "wrong", 1)
        _finish(canvas, axes, shown, "mean confidence (%)")

    return _chart(
        name,
        place,
        models,
        title="Confidence where right and where wrong",
        description="Mean probability of the predicted class on adversarial images, apart for "
        "correct and incorrect predictions. Lines are 95 % bootstrap intervals.",
        draw=draw,
    )


def consistency_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return how far an attack moves the outputs of each model."""
    shown = models[:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        _draw_points(axes, [one.kl for one in shown], "", 0)
        _finish(canvas, axes, shown, "KL(clean, adversarial) (nats)")

    return _chart(
        name,
        place,
        models,
        title="Consistency",
        description="Mean Kullback-Leibler divergence of the adversarial outputs from the clean "
        "ones: 0 means that the attack does not change them. Lines are 95 % bootstrap intervals.",
        draw=draw,
    )


def reliability_chart(model: OutputStatistics, name: str, place: Place, title: str) -> Chart:
    """Return the reliability diagram of a model, above the distribution of its confidence."""

    def draw(canvas: "Canvas") -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        upper.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=":")
        _draw_reliability(upper, model.clean.reliability, "clean", BLUE, MARKERS[0])
        _draw_reliability(upper, model.adversarial.reliability, "adversarial", ORANGE, MARKERS[1])
        upper.set_ylabel("accuracy (%)")
        upper.set_ylim(0, 100)
        _draw_histogram(lower, model.adversarial)
        lower.set_xlabel("confidence (%)")
        lower.set_ylabel("images (%)")
        lower.set_xlim(0, 100)
        canvas.legend(loc="outside upper left", ncols=4, columnspacing=1, handlelength=1.4)

    return Chart(
        name=name,
        kind="reliability",
        place=place,
        title=title,
        description="Above, accuracy by confidence; on the dotted line they agree, and below it "
        f"the model is overconfident (bins of {FEWEST_IMAGES} images or more). Below, the "
        "confidence of right and of wrong predictions on adversarial images.",
        draw=draw,
        height=4.2,
    )


def _chart(
    name: str,
    place: Place,
    models: Sequence[OutputStatistics],
    *,
    title: str,
    description: str,
    draw: "Callable[[Canvas], None]",
) -> Chart:
    return Chart(
        name=name,
        kind="calibration",
        place=place,
        title=title,
        description=description + describe_cut(len(models)),
        draw=draw,
        height=FRAME + ROW * min(len(models), MOST_ROWS),
    )


def _finish(canvas: "Canvas", axes: "Axes", models: Sequence[OutputStatistics], label: str) -> None:
    """Label the rows and the axis of a chart of points."""
    label_rows(axes, name_models(models))
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:
        canvas.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1)


def _draw_points(axes: "Axes", figures: Sequence[Figure | None], label: str, style: int) -> None:
    color, marker = (BLUE, ORANGE)[style], MARKERS[style]
    offset = 0.12 * (2 * style - 1) if label else 0.0
    known = [(i + offset, figure) for i, figure in enumerate(figures) if figure is not None]
    bounds = [figure.interval or (figure.mean, figure.mean) for _, figure in known]
    places = [place for place, _ in known]
    lows, highs = [low for low, _ in bounds], [high for _, high in bounds]
    axes.hlines(places, lows, highs, color=color, linewidth=1.2, alpha=0.6)
    means = [figure.mean for _, figure in known]
    axes.plot(means, places, marker, color=color, label=shorten(label) or None)


def _draw_reliability(axes: "Axes", bins: Reliability, label: str, color: str, marker: str) -> None:
    known = bins.count >= FEWEST_IMAGES
    x, y = 100 * bins.confidence[known], 100 * bins.accuracy[known]
    axes.plot(x, y, color=color, marker=marker, markersize=4, label=label, clip_on=False)


def _draw_histogram(axes: "Axes", model: PredictionStatistics) -> None:
    right, wrong = model.histogram_right, model.histogram_wrong
    total = max(1, int(right.sum() + wrong.sum()))
    width = 100 / len(right)
    lefts = [width * i for i in range(len(right))]
    shares = [100 * right / total, 100 * wrong / total]
    look: dict[str, Any] = {"width": width, "align": "edge", "linewidth": 0}
    axes.bar(lefts, shares[0], color=GREEN, label="right", **look)
    axes.bar(lefts, shares[1], bottom=shares[0], color=INK, alpha=0.45, label="wrong", **look)
