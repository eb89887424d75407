"""What the outputs of models say, in sentences: calibration, and the two observations behind ADR.

They are those of Wu, Wang and Chen (ICLR 2024, section 3): robust models are better calibrated,
less confident where they are wrong, and change their outputs less under an attack.
"""

from collections.abc import Iterator, Sequence

from adrbench.config.method import parse_method
from adrbench.report import columns as c
from adrbench.report.cell_text import cut, format_cell
from adrbench.report.grouping import shown_groups
from adrbench.report.naming import is_known
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.page.answers import is_last_first
from adrbench.report.row_names import describe_epoch, name_models, name_rows
from adrbench.report.statistics import Figure
from adrbench.report.tables import Row, Table

#: At most this many differences are described.
MOST_NAMED = 4
#: What identifies the rows of one pair in both tables of differences.
_SAME = (c.ARCH, c.METHOD, c.AGAINST, c.CHECKPOINT, c.SUITE, c.N)
#: What differences are called in a sentence, by the keys of their columns.
_CHANGES = {
    "ece": "calibration error (points)",
    "confidence_wrong": "confidence where wrong",
    "confidence_right": "where right",
    "kl": "KL(clean, adversarial) (nats)",
}
_COLUMNS = {one.key: one for one in (*c.CALIBRATION_DIFFERENCES, *c.CONSISTENCY_DIFFERENCES)}
#: A smaller difference of confidence and accuracy, in points, is shown as none.
SMALLEST_EXCESS = 0.05


def describe_outputs(models: Sequence[OutputStatistics], tables: Sequence[Table]) -> Iterator[str]:
    """Yield sentences on the adversarial outputs of models of one data set and threat model.

    First come the differences between ADR and its control, from `tables`; then the lowest and the
    highest figures under the attack that the most models have, on the most images and seeds.
    """
    yield from _describe_differences(tables)
    epoch = ""
    last = [model for model in models if model.group.selection == "last"]
    if last and is_last_first(tables):
        models, epoch = last, ", last epoch"
    shown = shown_groups([model.group for model in models])
    models = [model for model in models if model.group in shown]
    if not models:
        return
    suites = [model.suite for model in models]
    suite = max(suites, key=suites.count)
    largest = max((model.n, len(model.seeds)) for model in models if model.suite == suite)
    chosen = [one for one in models if (one.n, len(one.seeds)) == largest and one.suite == suite]
    names = name_models(chosen)
    attack = f"{cut(suite)}{epoch}"
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


def _describe_differences(tables: Sequence[Table]) -> Iterator[str]:
    """Yield how ADR changes calibration, confidence and consistency, at the last epochs shown."""
    by_name = {table.name: table for table in tables}
    calibration = by_name.get("calibration differences")
    consistency = by_name.get("consistency differences")
    if calibration is None or consistency is None:
        return
    for row in _choose(calibration):
        same = [
            other
            for other in consistency.rows
            if all(other.cells.get(one.key) == row.cells.get(one.key) for one in _SAME)
        ]
        cells = {**(same[0].cells if same else {}), **row.cells}
        shown = [
            f"{label} {format_cell(figure, _COLUMNS[key], intervals=False)}"
            for key, label in _CHANGES.items()
            if isinstance(figure := cells.get(key), Figure)
        ]
        (name,) = name_rows([row])
        epoch = describe_epoch(row.cells.get(c.CHECKPOINT.key))
        suite = cut(str(row.cells.get(c.SUITE.key)))
        yield f"{name} on adversarial images ({suite}{epoch}): {'; '.join(shown)}."


def _choose(table: Table) -> list[Row]:
    """Return the rows of soft targets on adversarial images, at last epochs if there are any."""
    rows = [
        row
        for row in table.rows
        if row.cells.get(c.OUTPUTS.key) == "adversarial"
        and _has_soft_targets(str(row.cells.get(c.METHOD.key)).partition(" ")[0])
    ]
    last = [row for row in rows if row.cells.get(c.CHECKPOINT.key) == "last"]
    return (last or rows)[:MOST_NAMED]


def _has_soft_targets(method: str) -> bool:
    """Return whether a method that is known here replaces the labels, as ADR does."""
    return is_known(method) and "targets" in parse_method(method).filled


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
    if _are_apart(low, high):
        parts = f"lowest for {low_name}, {_show(low, form)}, highest for {high_name}, "
    else:
        parts = f"from {_show(low, form)} to "
    ending = "" if _are_apart(low, high) else ", with overlapping intervals"
    yield f"{what[0].upper()}{what[1:]}: {parts}{_show(high, form)}{ending}."


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
