"""The tables of robust accuracy by class, and of confusions between classes.

Human-readable formats show a few classes and pairs, the same for all methods; JSON and CSV have
all.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from adrbench.report import columns as c
from adrbench.report.footnotes import figure_notes
from adrbench.report.grouping import Task
from adrbench.report.outputs.statistics import OutputStatistics, PredictionStatistics
from adrbench.report.outputs.tables import Comparable, RowMaker, compare_by_method, make_table
from adrbench.report.run_settings import Settings
from adrbench.report.statistics import Figure, accuracy
from adrbench.report.tables import Row, Table

#: Of more classes, those with the lowest robust accuracy are shown.
MOST_CLASSES = 10
#: The most frequent confusions on adversarial images are shown.
MOST_PAIRS = 5
ROBUST_NOTE = "robust: images on which no step of the attack succeeded, as in robust accuracy."
PAIRS_NOTE = f"the {MOST_PAIRS} most frequent on adversarial images; JSON and CSV have all."
CONFUSION_NOTE = (
    "clean, adversarial: % of the images of the class; adversarial images are those with which the "
    "attack ended."
)


def class_table(
    task: Task, statistics: Sequence[OutputStatistics], intervals: bool, settings: Settings
) -> Table:
    """Return the clean and robust accuracy of each model on each class."""
    rows = RowMaker(statistics, settings)
    made: list[Row] = []
    for comparable in compare_by_method(statistics):
        shown = _least_robust(comparable)
        clean = [one.clean_by_class for one in comparable]
        for label in range(len(comparable[0].class_sizes)):
            made += [
                rows.make(
                    one,
                    is_shown=label in shown,
                    **{c.CLASS.key: one.class_names[label]},
                    n=int(one.class_sizes[label]),
                    clean=by_class[label],
                    robust=one.robust_by_class[label],
                )
                for one, by_class in zip(comparable, clean, strict=True)
            ]
    notes = [ROBUST_NOTE, *figure_notes(made, intervals)]
    if not all(row.is_shown for row in made):
        notes.append(f"the {MOST_CLASSES} least robust classes; JSON and CSV have all.")
    return make_table(
        task,
        statistics,
        name="per-class robust accuracy",
        title="Accuracy by class (%)",
        columns=c.CLASSES,
        rows=made,
        notes=notes,
    )


def confusion_table(
    task: Task, statistics: Sequence[OutputStatistics], intervals: bool, settings: Settings
) -> Table:
    """Return how often each class is taken for each other, on clean and adversarial images.

    Pairs that do not occur have no row.
    """
    rows = RowMaker(statistics, settings)
    made: list[Row] = []
    for comparable in compare_by_method(statistics):
        shown = _most_confused(comparable)
        sides = (side for one in comparable for side in (one.clean, one.adversarial))
        others = sorted({pair for side in sides for pair in side.confusion_by_seed})
        for pair in dict.fromkeys((*shown, *others)):
            made += _confusion_rows(rows, comparable, pair, is_shown=pair in shown)
    return make_table(
        task,
        statistics,
        name="confusion",
        title="Most frequent confusions (%)",
        columns=c.CONFUSION,
        rows=made,
        notes=(CONFUSION_NOTE, *figure_notes(made, intervals), PAIRS_NOTE),
    )


def _confusion_rows(
    rows: RowMaker, comparable: Comparable, pair: tuple[int, int], *, is_shown: bool
) -> Iterator[Row]:
    label, predicted = pair
    for one in comparable:
        yield rows.make(
            one,
            is_shown=is_shown,
            **{c.CLASS.key: one.class_names[label]},
            predicted=one.class_names[predicted],
            n=int(one.class_sizes[label]),
            clean=_share(one, one.clean, pair),
            adversarial=_share(one, one.adversarial, pair),
        )


def _share(
    one: OutputStatistics, side: PredictionStatistics, pair: tuple[int, int]
) -> Figure | None:
    """Return how often a label is taken for a class, in percent of the images of the label."""
    counts = side.confusion_by_seed.get(pair, (0,) * len(one.seeds))
    return _accuracy(one.seeds, counts, int(one.class_sizes[pair[0]]))


@lru_cache(maxsize=2**16)
def _accuracy(seeds: tuple[int | None, ...], counts: tuple[int, ...], n: int) -> Figure | None:
    """Return the figure of counts by seed; most of the many pairs of classes share few counts."""
    return accuracy(dict(zip(seeds, counts, strict=True)), n)


def _least_robust(comparable: Comparable) -> set[int]:
    """Return the classes with the lowest robust accuracy, averaged over models."""
    sums: dict[int, list[float]] = {}
    for one in comparable:
        for label, figure in enumerate(one.robust_by_class):
            sums.setdefault(label, []).extend([figure.mean] if figure else [])
    means = {label: sum(own) / len(own) if own else 100.0 for label, own in sums.items()}
    return set(sorted(means, key=means.__getitem__)[:MOST_CLASSES])


def _most_confused(comparable: Comparable) -> list[tuple[int, int]]:
    """Return the pairs of label and prediction with the most adversarial images, largest first."""
    totals: Counter[tuple[int, int]] = Counter()
    for one in comparable:
        for (label, predicted), counts in one.adversarial.confusion_by_seed.items():
            if label != predicted:
                totals[label, predicted] += sum(counts)
    return sorted(totals, key=lambda pair: (-totals[pair], pair))[:MOST_PAIRS]
