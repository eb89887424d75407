"""What the outputs of models say, in sentences: calibration, and the two observations behind ADR.

They are those of Wu, Wang and Chen (ICLR 2024, section 3): robust models are better calibrated,
less confident where they are wrong, and change their outputs less under an attack.
"""

from collections.abc import Callable, Iterator, Sequence

from adrbench.report.cell_text import cut
from adrbench.report.figures.calibration import name_model
from adrbench.report.grouping import shown_groups
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.statistics import Figure


def describe_outputs(models: Sequence[OutputStatistics]) -> Iterator[str]:
    """Yield sentences on models of one data set and threat model, on those of the most seeds.

    They are about the attack that the most models have.
    """
    shown = shown_groups([model.group for model in models])
    models = [model for model in models if model.group in shown]
    if not models:
        return
    suites = [model.suite for model in models]
    suite = max(suites, key=suites.count)
    largest = max((model.n, len(model.seeds)) for model in models if model.suite == suite)
    chosen = [one for one in models if (one.n, len(one.seeds)) == largest and one.suite == suite]
    where = f"on adversarial images ({cut(suite)})"
    ece = [(one.adversarial.ece, one) for one in chosen]
    yield from _compare(ece, f"The calibration error {where} is", "{:.1f} %", _describe_confidence)
    wrong = [(one.adversarial.confidence_wrong, one) for one in chosen]
    yield from _compare(
        wrong, f"Where predictions {where} are wrong, mean confidence is", "{:.0f} %"
    )
    yield from _compare(
        [(one.kl, one) for one in chosen],
        f"The divergence of adversarial from clean outputs ({cut(suite)}) is",
        "{:.3f} nats",
    )


def _compare(
    values: Sequence[tuple[Figure | None, OutputStatistics]],
    beginning: str,
    form: str,
    add: Callable[[OutputStatistics], str] | None = None,
) -> Iterator[str]:
    """Yield a sentence on the lowest and the highest of some figures, if there are any."""
    known = [(figure, model) for figure, model in values if figure is not None]
    if not known:
        return
    known.sort(key=lambda pair: pair[0].mean)
    ends = [known[0]] if len(known) == 1 else [known[0], known[-1]]
    words = ("",) if len(known) == 1 else ("lowest", "highest")
    parts = [
        f"{word} for {name_model(model)}: {_show(figure, form)}{add(model) if add else ''}".strip()
        for word, (figure, model) in zip(words, ends, strict=True)
    ]
    yield f"{beginning} {', '.join(parts)}."


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
    return f" ({'over' if excess > 0 else 'under'}confident by {abs(excess):.1f} points)"
