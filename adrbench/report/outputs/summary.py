"""From the outputs of the seeds of a model to their statistics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from adrbench.errors import RecordError
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.outputs.bootstrap import resample_sums
from adrbench.report.outputs.measures import (
    CALIBRATION,
    COMPARED,
    CONSISTENCY,
    NUM_BINS,
    Measure,
    Pair,
    find_bins,
)
from adrbench.report.outputs.predictions import Floats, Integers, Predictions
from adrbench.report.outputs.seed_values import SeedValues
from adrbench.report.outputs.statistics import (
    NUM_HISTOGRAM_BINS,
    OutputStatistics,
    PredictionStatistics,
    Reliability,
    figures_by_class,
)
from adrbench.report.statistics import Figure
from adrbench.results.outputs import Outputs
from adrbench.results.records import AttackRecord, unpack_outcomes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """The counts of one seed's predictions; `bins` are sums of images, confidences and outcomes."""

    bins: Floats  # (3, NUM_BINS)
    histogram_right: Integers
    histogram_wrong: Integers
    confusion: dict[tuple[int, int], int]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedSummary:
    """What is kept of one seed's outputs: the contributions to all measures, and counts.

    `contributions` (n, p) are those of clean, of adversarial, and of both outputs, side by side.
    `robust` are the robust images by class, None where the record has no outcomes.
    """

    contributions: Floats
    clean: _Counts
    adversarial: _Counts
    class_sizes: Integers
    class_names: tuple[str, ...]
    robust: Integers | None
    gallery: Outputs | None


def summarize_seed(outputs: Outputs, record: AttackRecord) -> SeedSummary:
    """Return the summary of the outputs that belong to `record`.

    Raises:
        ValueError: if they are not those of the record's images and classes, or not finite.

    """
    n, k = record.n, record.num_classes
    if (len(outputs.labels), outputs.num_classes) != (n, k):
        raise ValueError(
            f"it has {len(outputs.labels)} images of {outputs.num_classes} classes, "
            f"its record {n} of {k}"
        )
    clean = Predictions(outputs.clean_logits, outputs.labels)
    adversarial = Predictions(outputs.adversarial_logits, outputs.labels)
    pair = Pair(clean, adversarial, outputs.linf, outputs.l2)
    columns = [measure.contribute(one) for one in pair[:2] for measure in CALIBRATION.values()]
    columns += [measure.contribute(pair) for measure in CONSISTENCY.values()]
    return SeedSummary(
        contributions=np.concatenate(columns, axis=1),
        clean=_count(clean),
        adversarial=_count(adversarial),
        class_sizes=np.bincount(outputs.labels, minlength=k),
        class_names=outputs.class_names,
        robust=_count_robust(record, outputs.labels),
        gallery=_take_gallery(outputs),
    )


def combine_seeds(
    group: SeedGroup,
    attack: Attack,
    label: str,
    summaries: Mapping[int | None, SeedSummary],
) -> OutputStatistics:
    """Return the statistics of one model under `attack`, given the summary of each seed."""
    first = next(iter(summaries.values()))
    seeds = tuple(summaries)
    n, width = first.contributions.shape
    contributions = np.stack([one.contributions for one in summaries.values()], axis=1)  # (n, k, p)
    resampled = resample_sums(contributions.reshape(n, -1)).reshape(-1, len(seeds), width)
    columns = _Columns(contributions.sum(axis=0), resampled, seeds, n)
    robust = {seed: one.robust for seed, one in summaries.items() if one.robust is not None}
    sizes = first.class_sizes
    clean = _combine(columns, [one.clean for one in summaries.values()])
    adversarial = _combine(columns, [one.adversarial for one in summaries.values()])
    consistency = columns.take(CONSISTENCY)
    return OutputStatistics(
        group=group,
        attack=attack,
        suite=label,
        seeds=seeds,
        n=n,
        class_names=first.class_names or tuple(map(str, range(len(sizes)))),
        class_sizes=sizes,
        clean=clean,
        adversarial=adversarial,
        **_make_figures(consistency),
        by_seed=_keep_compared(consistency),
        robust_by_class=figures_by_class(robust, sizes),
        gallery=next((one.gallery for one in summaries.values() if one.gallery), None),
    )


class _Columns:
    """Sums of contributions by seed (k, p) and by resample (r, k, p), taken measure by measure."""

    def __init__(self, sums: Floats, resampled: Floats, seeds: tuple[int | None, ...], n: int):
        self.sums, self.resampled = sums, resampled
        self.seeds, self.n = seeds, n
        self.position = 0

    def take(self, measures: Mapping[str, Measure[Any]]) -> dict[str, SeedValues]:
        """Return the values of the next `measures`, which contributed in this order."""
        return {name: self._take(measure) for name, measure in measures.items()}

    def _take(self, measure: Measure[Any]) -> SeedValues:
        columns = slice(self.position, self.position + measure.width)
        self.position += measure.width
        return SeedValues(
            measure=measure,
            seeds=self.seeds,
            n=self.n,
            values=measure.compute(self.sums[:, columns], self.n),
            resampled=measure.compute(self.resampled[:, :, columns], self.n),
        )


def _make_figures(values: Mapping[str, SeedValues]) -> dict[str, Figure | None]:
    return {name: own.figure() for name, own in values.items()}


def _keep_compared(values: Mapping[str, SeedValues]) -> dict[str, SeedValues]:
    """Return the values of the measures that are compared between methods."""
    return {name: own for name, own in values.items() if name in COMPARED}


def _combine(columns: _Columns, counts: Iterable[_Counts]) -> PredictionStatistics:
    own, values = list(counts), columns.take(CALIBRATION)
    images, confidence, outcomes = np.sum([one.bins for one in own], axis=0)
    mean = {
        name: np.divide(total, images, out=np.full(NUM_BINS, np.nan), where=images > 0)
        for name, total in (("confidence", confidence), ("accuracy", outcomes))
    }
    return PredictionStatistics(
        **_make_figures(values),
        by_seed=_keep_compared(values),
        reliability=Reliability(count=images.astype(np.int64), **mean),
        histogram_right=np.sum([one.histogram_right for one in own], axis=0),
        histogram_wrong=np.sum([one.histogram_wrong for one in own], axis=0),
        confusion_by_seed={
            pair: tuple(one.confusion.get(pair, 0) for one in own)
            for pair in dict.fromkeys(chain.from_iterable(one.confusion for one in own))
        },
    )


def _count(predictions: Predictions) -> _Counts:
    confidence, is_right = predictions.confidence, predictions.is_right
    bins = np.minimum(find_bins(confidence), NUM_BINS - 1)
    weights = (np.ones_like(confidence), confidence, is_right)
    return _Counts(
        bins=np.stack([np.bincount(bins, own, NUM_BINS) for own in weights]),
        histogram_right=_histogram(confidence[is_right]),
        histogram_wrong=_histogram(confidence[~is_right]),
        confusion=predictions.confusion(),
    )


def _histogram(confidence: Floats) -> Integers:
    counts: Integers = np.histogram(confidence, NUM_HISTOGRAM_BINS, range=(0, 1))[0]
    return counts


def _count_robust(record: AttackRecord, labels: Integers) -> Integers | None:
    """Return the number of robust images of each class, as the record counts them."""
    try:
        is_robust = unpack_outcomes(record.verdicts.robust, record.n)
    except RecordError:
        return None
    return np.bincount(labels[is_robust], minlength=record.num_classes)


def _take_gallery(outputs: Outputs) -> Outputs | None:
    """Return the outputs on the images that were kept."""
    m = len(outputs.images)
    names = ("labels", "clean_logits", "adversarial_logits", "linf", "l2")
    kept = {name: getattr(outputs, name)[:m].copy() for name in names}
    return replace(outputs, **kept) if m else None
