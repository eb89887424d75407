"""Footnotes on the figures of a seed group, and the notes under a table."""

from collections.abc import Collection, Iterable, Sequence

from adrbench.config.components import DEFAULTS
from adrbench.report.datasets import TEST_SIZES
from adrbench.report.grouping import FINAL_PRECISION, Attack, SeedGroup
from adrbench.report.naming import is_known
from adrbench.report.statistics import Figure
from adrbench.report.tables import Cell, Row

#: Longer lists of seeds or runs are replaced by their number.
MOST_LISTED = 5
SEEDS_NOTE = "±: standard deviation over training seeds."
SHARED_NOTE = (
    "Rows that differ only in {} may be student and EMA weights of the same runs."
).format(DEFAULTS["averaging"])
INTERVALS_NOTE = "[low, high]: 95 % Wilson interval over the test images."


def group_footnotes(group: SeedGroup, attacks: Sequence[Attack] | None = None) -> tuple[str, ...]:
    """Return all deviations of `group` from a plain measurement on a complete published test set.

    Footnotes on attacks are restricted to `attacks`, if given, whose suite the row itself names.
    Footnotes by which rows differ come from `distinguish_training` and similar functions.
    """
    found = [
        *_data_footnotes(group),
        *_weights_footnotes(group),
        *_seed_footnotes(group, group.attacks if attacks is None else attacks),
        *_warning_footnotes(
            group, tuple(group.records) if attacks is None else attacks, attacks is None
        ),
    ]
    return tuple(dict.fromkeys(found))


def distinguish_test_images(groups: Iterable[SeedGroup]) -> dict[str, tuple[str, ...]]:
    """Return a footnote by data hash, if rows of one size were measured on different images."""
    hashes: dict[tuple[str, int, int], set[str]] = {}
    for group in groups:
        size = (group.identity.split, group.identity.n, group.identity.num_test)
        hashes.setdefault(size, set()).add(group.identity.data_sha256)
    return {
        sha256: (f"on data with sha256 {sha256[:12]}",)
        for found in hashes.values()
        if len(found) > 1
        for sha256 in found
    }


def distinguish_weights(groups: Iterable[SeedGroup]) -> dict[str, tuple[str, ...]]:
    """Return a footnote by `ModelIdentity.weights`, if several third-party ones have one name."""
    hashes: dict[tuple[str, str, str], set[str]] = {}
    for group in groups:
        name = (group.identity.arch, group.method, group.selection)
        hashes.setdefault(name, set()).add(group.identity.weights)
    return {
        weights: (_describe_weights(weights, found),)
        for found in hashes.values()
        if len(found) > 1
        for weights in found
        if weights
    }


def _describe_weights(weights: str, others: Collection[str]) -> str:
    """Return in which fingerprints weights differ from others of the same name."""
    sha256, _, code = weights.partition("+")
    differ = len({other.partition("+")[0] for other in others}) > 1
    have_other_code = len({other.partition("+")[2] for other in others}) > 1
    described = [f"weights and normalization with sha256 {sha256[:12]}"] if differ else []
    described += [f"code of the network {code[:12] or 'unknown'}"] if have_other_code else []
    return ", ".join(described)


def unknown_method_notes(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a note on methods that this installation does not know, such as those of a plugin."""
    unknown = dict.fromkeys(
        group.identity.method
        for group in groups
        if not group.identity.weights and not is_known(group.identity.method)
    )
    return (
        [f"with components that are not installed here: {', '.join(unknown)}."] if unknown else []
    )


def superseded_notes(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a note for each group in which a seed was evaluated more than once."""
    notes = []
    for group in groups:
        if group.superseded:
            count = len(group.superseded)
            runs = sorted({record.run for record in group.superseded})
            origin = ", ".join(runs) if len(runs) <= MOST_LISTED else f"{len(runs)} runs"
            notes.append(
                f"{group.method}, {group.selection}: {count} older "
                f"{'record' if count == 1 else 'records'} of the same seed and suite left out "
                f"(from {origin})."
            )
    return notes


def shared_run_notes(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a note if student and EMA weights of one run are separate rows."""
    weights: dict[str, set[str]] = {}
    for group in groups:
        for by_seed in group.records.values():
            for record in by_seed.values():
                weights.setdefault(record.run, set()).add(record.weights)
    return [SHARED_NOTE] if any(len(found) > 1 for found in weights.values()) else []


def figure_notes(rows: Iterable[Row], intervals: bool) -> list[str]:
    """Return the notes on the kinds of figures that occur in `rows`."""
    cells: list[Cell] = [cell for row in rows for cell in row.cells.values()]
    figures = [cell for cell in cells if isinstance(cell, Figure)]
    notes = [SEEDS_NOTE] if any(figure.std is not None for figure in figures) else []
    if intervals and any(figure.interval for figure in figures):
        notes.append(INTERVALS_NOTE)
    return notes


def _data_footnotes(group: SeedGroup) -> list[str]:
    identity = group.identity
    found = []
    num_whole = TEST_SIZES.get(group.dataset, 0)
    if not identity.published_test_set:
        found.append("own test set: not comparable with published figures")
    if identity.split != "test":
        found.append(f"measured on the {identity.split} split")
    if identity.n != identity.num_test:
        found.append(f"first {identity.n} of {identity.num_test} test images")
    elif not identity.published_test_set and identity.n < num_whole:
        found.append(f"on {identity.n} given images, not the whole test set ({num_whole:,} images)")
    if group.selection == "best" and group.selected_on == "test":
        found.append("best epoch chosen on the test split: optimistic")
    if identity.precision != FINAL_PRECISION:
        found.append(f"evaluated in {identity.precision}, not {FINAL_PRECISION}")
    if identity.searched != FINAL_PRECISION:
        found.append(f"attacks searched in {identity.searched}, not {FINAL_PRECISION}")
    return found


def _weights_footnotes(group: SeedGroup) -> list[str]:
    """Name the weights where the seed was trained more than once with another result."""
    if not group.identity.training_run:
        return []
    records = [record for by_seed in group.records.values() for record in by_seed.values()]
    named = {(record.run, record.weights_sha256[:8], record.epoch) for record in records}
    shown = ", ".join(
        f"run {run}, weights {sha256}" + ("" if epoch is None else f", epoch {epoch}")
        for run, sha256, epoch in sorted(named, key=str)
    )
    return [f"one of several sets of weights of seed {records[0].seed}: {shown}"]


def _seed_footnotes(group: SeedGroup, attacks: Sequence[Attack]) -> list[str]:
    seeds = group.seeds
    found = [
        f"{attack.suite} on {len(by_seed)} of {len(seeds)} seeds"
        for attack in attacks
        if len(by_seed := group.records[attack]) < len(seeds)
    ]
    differing = [
        seed
        for seed in seeds
        if len({r[seed].clean_correct for r in group.records.values() if seed in r}) > 1
    ]
    if differing:
        found.append(f"clean count differs between suites ({_seeds(differing)}): newest shown")
    return found


def _warning_footnotes(
    group: SeedGroup, attacks: Sequence[Attack], names_suites: bool
) -> list[str]:
    """Return each warning once for all suites that issued it for the same seeds."""
    seeds_of: dict[tuple[str, str], dict[int | None, None]] = {}
    for attack in attacks:
        by_seed = group.records[attack]
        for seed in group.seeds:
            warnings = by_seed[seed].warnings if seed in by_seed else ()
            for warning in dict.fromkeys(warnings):
                seeds_of.setdefault((warning, attack.suite), {})[seed] = None
    suites_of: dict[tuple[str, str], list[str]] = {}
    for (warning, suite), seeds in seeds_of.items():
        where = "" if [*seeds] == [None] else f" ({_seeds([*seeds])})"
        suites_of.setdefault((warning, where), []).append(suite)
    return [
        f"warning{' from ' + ', '.join(suites) if names_suites else ''}{where}: {warning}"
        for (warning, where), suites in suites_of.items()
    ]


def _seeds(seeds: list[int | None]) -> str:
    if len(seeds) > MOST_LISTED:
        return f"{len(seeds)} seeds"
    shown = ", ".join("unknown" if seed is None else str(seed) for seed in seeds)
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {shown}"
