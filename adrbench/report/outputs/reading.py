"""Reading the files of outputs of a report, one at a time: only what the statistics need stays."""

from collections.abc import Sequence

import numpy as np

from adrbench.errors import RecordError
from adrbench.printable import get_logger
from adrbench.report.attack_labels import label_attacks
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.outputs.summary import SeedSummary, combine_seeds, summarize_seed
from adrbench.results.outputs import OutputsFinder
from adrbench.results.records import AttackRecord

logger = get_logger(__name__)


def read_statistics(
    groups: Sequence[SeedGroup], finder: OutputsFinder
) -> tuple[OutputStatistics, ...]:
    """Return the statistics of each of `groups` under each attack that has outputs, in their order.

    A file that is damaged, has changed or does not belong to its record is left out with a warning;
    a missing one is left out without.
    """
    found = []
    labels = label_attacks(groups).labels
    for group in groups:
        for attack in (one for one in labels if one in group.records):
            summaries = _read_seeds(group, attack, finder)
            if summaries:
                found.append(combine_seeds(group, attack, labels[attack], summaries))
    return tuple(found)


def _read_seeds(
    group: SeedGroup, attack: Attack, finder: OutputsFinder
) -> dict[int | None, SeedSummary]:
    """Return the summary of each seed with outputs; all have the same images as the first."""
    by_seed = group.records[attack]
    found: dict[int | None, SeedSummary] = {}
    for seed in group.seeds:
        summary = _read(by_seed[seed], finder) if seed in by_seed else None
        if summary is None:
            continue
        first = next(iter(found.values()), summary)
        if np.array_equal(first.class_sizes, summary.class_sizes):
            found[seed] = summary
        else:
            logger.warning(f"left out: the outputs of {by_seed[seed].run} are on other images.")
    return found


def _read(record: AttackRecord, finder: OutputsFinder) -> SeedSummary | None:
    if record.outputs is None:
        return None
    try:
        outputs = finder.read(record.outputs)
        return None if outputs is None else summarize_seed(outputs, record)
    except RecordError as error:
        logger.warning(f"left out: {error}")
    except ValueError as error:
        logger.warning(f"left out: {record.outputs.name} is not usable: {error}.")
    except MemoryError:
        logger.warning(f"left out: {record.outputs.name} needs more memory than there is.")
    return None
