"""Figures of a model's outputs: reliability, confidence, and how an attack changes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adrbench.report.figures.chart import Chart
from adrbench.report.figures.points import FRAME, ROW, draw_points
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


#: What a series of points is of each model.
Measure = Callable[[OutputStatistics], Figure | None]


def ece_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return the expected calibration error of each model, clean and attacked."""
    return _points_chart(
        models,
        name,
        place,
        {"clean": lambda one: one.clean.ece, "adversarial": lambda one: one.adversarial.ece},
        axis="expected calibration error (%)",
        title="Calibration error",
        description="Difference between confidence and accuracy, over 15 bins of confidence: 0 is "
        "perfect.",
    )


def confidence_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return the mean confidence of each model where it is right and where it is wrong."""
    return _points_chart(
        models,
        name,
        place,
        {
            "right": lambda one: one.adversarial.confidence_right,
            "wrong": lambda one: one.adversarial.confidence_wrong,
        },
        axis="mean confidence (%)",
        title="Confidence where right and where wrong",
        description="Mean probability of the predicted class on adversarial images, apart for "
        "correct and incorrect predictions.",
    )


def consistency_chart(models: Sequence[OutputStatistics], name: str, place: Place) -> Chart:
    """Return how far an attack moves the outputs of each model."""
    return _points_chart(
        models,
        name,
        place,
        {"": lambda one: one.kl},
        axis="KL(clean, adversarial) (nats)",
        title="Consistency",
        description="Mean Kullback-Leibler divergence of the adversarial outputs from the clean "
        "ones: 0 means that the attack does not change them.",
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


def _points_chart(
    models: Sequence[OutputStatistics],
    name: str,
    place: Place,
    series: Mapping[str, Measure],
    *,
    axis: str,
    title: str,
    description: str,
) -> Chart:
    """Return a row of points for each model; one or two `series` have a label, or "" for none."""
    shown = models[:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        offsets = (-0.12, 0.12) if len(series) > 1 else (0.0,)
        for (label, measure), color, marker, offset in zip(
            series.items(), (BLUE, ORANGE), MARKERS, offsets, strict=False
        ):
            figures = [measure(one) for one in shown]
            draw_points(axes, figures, label=label, color=color, marker=marker, offset=offset)
        label_rows(axes, name_models(shown))
        axes.set_xlabel(axis)
        axes.set_xlim(left=0)
        if len(series) > 1:
            canvas.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1)

    return Chart(
        name=name,
        kind="calibration",
        place=place,
        title=title,
        description=f"{description} Lines are 95 % bootstrap intervals.{describe_cut(len(models))}",
        draw=draw,
        height=FRAME + ROW * len(shown),
    )


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
