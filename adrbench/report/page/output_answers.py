"""What the outputs of models say, in sentences: calibration, and the two observations behind ADR.

They are those of Wu, Wang and Chen (ICLR 2024, section 3): robust models are better calibrated,
less confident where they are wrong, and change their outputs less under an attack.
"""

from collections.abc import Iterator, Sequence

from adrbench.report.cell_text import cut
from adrbench.report.grouping import shown_groups
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.row_names import name_models
from adrbench.report.statistics import Figure

#: A smaller difference of confidence and accuracy, in points, is shown as none.
SMALLEST_EXCESS = 0.05


def describe_outputs(models: Sequence[OutputStatistics]) -> Iterator[str]:
    """Yield sentences on the adversarial outputs of models of one data set and threat model.

    They are about the attack that the most models have, on the most images and training seeds.
    """
    shown = shown_groups([model.group for model in models])
    models = [model for model in models if model.group in shown]
    if not models:
        return
    suites = [model.suite for model in models]
    suite = max(suites, key=suites.count)
    largest = max((model.n, len(model.seeds)) for model in models if model.suite == suite)
    chosen = [one for one in models if (one.n, len(one.seeds)) == largest and one.suite == suite]
    names = name_models(chosen)
    attack = cut(suite)
    yield from _compare(
        f"calibration error on adversarial images ({attack})",
        [
            (one.adversarial.ece, f"{name}{_describe_confidence(one)}")
            for one, name in zip(chosen, names, strict=True)
        ],
        "{:.1f} %",
    )
    yield from _compare(
        f"mean confidence where a prediction on them is wrong ({attack})",
        [
            (one.adversarial.confidence_wrong, f"{name}{_describe_right(one)}")
            for one, name in zip(chosen, names, strict=True)
        ],
        "{:.0f} %",
    )
    yield from _compare(
        f"divergence KL(clean, adversarial) of the outputs ({attack})",
        [(one.kl, name) for one, name in zip(chosen, names, strict=True)],
        "{:.3f} nats",
    )


def _compare(what: str, values: Sequence[tuple[Figure | None, str]], form: str) -> Iterator[str]:
    """Yield a sentence on the lowest and the highest of some figures with their names."""
    known = [(figure, name) for figure, name in values if figure is not None]
    if not known:
        return
    known.sort(key=lambda pair: pair[0].mean)
    (low, low_name), (high, high_name) = known[0], known[-1]
    if len(known) == 1:
        yield f"{what[0].upper()}{what[1:]}: {_show(low, form)} for {low_name}."
        return
    apart = "" if _are_apart(low, high) else "; their intervals overlap"
    yield (
        f"{what[0].upper()}{what[1:]}: lowest for {low_name}, {_show(low, form)}, highest for "
        f"{high_name}, {_show(high, form)}{apart}."
    )


def _are_apart(low: Figure, high: Figure) -> bool:
    return bool(low.interval and high.interval and low.interval[1] < high.interval[0])


def _show(figure: Figure, form: str) -> str:
    text = form.format(figure.mean)
    if figure.interval is None:
        return text
    low, high = (form.format(bound).split()[0] for bound in figure.interval)
    return f"{text} [{low}, {high}]"


def _describe_confidence(model: OutputStatistics) -> str:
    """Return whether the confidence of a model is above or below its accuracy, and by how much."""
    confidence, accuracy = model.adversarial.confidence, model.adversarial.accuracy
    if confidence is None or accuracy is None:
        return ""
    excess = confidence.mean - accuracy.mean
    if abs(excess) < SMALLEST_EXCESS:
        return " (confidence equals accuracy)"
    return f" ({'over' if excess > 0 else 'under'}confident by {abs(excess):.1f} points)"


def _describe_right(model: OutputStatistics) -> str:
    """Return the confidence of a model where it is right."""
    right = model.adversarial.confidence_right
    return "" if right is None else f" (where right: {right.mean:.0f} %)"
