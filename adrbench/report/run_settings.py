"""The settings of runs, as far as they are recorded, and how rows differ in them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from adrbench.config.declare import flag, settings_of
from adrbench.config.method import parse_method
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, naming_flags
from adrbench.report.grouping import ModelIdentity, SeedGroup
from adrbench.report.validation_split import ValidationSplits, find_split
from adrbench.results.records import TrainRecord, count_processes

#: By the fingerprint of the settings without the seed, which attack records store too.
Settings = Mapping[str, TrainConfig]

#: Settings that identify a run and do not change how it trains, or change nothing but rounding.
IDENTITY = (
    *("dataset", "method", "seed", "preset"),
    *(name for name, one in settings_of(TrainConfig).items() if not one.is_fingerprinted),
)
UNRECORDED_IMAGES = "training images not recorded"


def read_runs(trained: Iterable[TrainRecord]) -> tuple[Settings, ValidationSplits]:
    """Return the settings and the validation splits of all runs whose settings can be read."""
    settings, splits = {}, {}
    for record in trained:
        config = read_config(record)
        if config is not None:
            sha256 = fingerprint(config, record)
            settings[sha256] = config
            images = record.training_images_sha256 or record.dataset
            splits[images, sha256] = find_split(config, record)
    return settings, splits


def read_config(record: TrainRecord) -> TrainConfig | None:
    """Return the settings of a run; None where this version cannot read them."""
    try:
        return TrainConfig.from_json(record.config)
    except (ValueError, AdrbenchError):
        return None


def fingerprint(config: TrainConfig, record: TrainRecord) -> str:
    """Return the fingerprint that attack records of the run store."""
    return config.sha256(count_processes(record.sessions))


def shared_settings(
    config: TrainConfig, methods: Iterable[str], apart: Collection[str] = ()
) -> tuple[tuple[str, Any], ...]:
    """Return the settings that runs of `methods` must share to be compared.

    They are those of every run and of the components that all `methods` have, but for those
    `apart`.
    """
    others = (name for method in methods for name in _of_others(method, [config]))
    own = {*IDENTITY, *others, *apart}
    return tuple((name, value) for name, value in config.values().items() if name not in own)


def distinguish_training(
    groups: Iterable[SeedGroup], settings: Settings
) -> dict[ModelIdentity, tuple[str, ...]]:
    """Return footnotes for rows of one network and method whose runs were trained differently.

    They give the settings that differ, as flags of `adrbench train`; without training records,
    for rows that look the same, where the settings are stored; and the training images that
    differ.
    """
    by_method: dict[tuple[str, str], list[SeedGroup]] = {}
    for group in groups:
        by_method.setdefault((group.identity.arch, group.identity.method), []).append(group)
    footnotes: dict[ModelIdentity, tuple[str, ...]] = {}
    for (_, method), rows in by_method.items():
        fingerprints = {row.identity.training for row in rows} - {""}
        known = {sha256: settings[sha256] for sha256 in fingerprints if sha256 in settings}
        is_known = len(known) == len(fingerprints)
        by_settings = (
            describe_differences(known, _of_others(method, known.values()))
            if is_known
            else _places(rows)
        )
        by_images = distinguish_images(row.identity.training_images for row in rows)
        recorded = {row.method for row in rows if row.identity.training_images}
        for row in rows:
            own = by_settings.get(row.identity.training, ())
            images = row.identity.training_images
            is_unclear = images != "" or row.method in recorded
            footnotes[row.identity] = own + (by_images.get(images, ()) if is_unclear else ())
    return footnotes


def distinguish_images(hashes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return a footnote for each fingerprint of training images, where there are several.

    "" stands for images that are not recorded.
    """
    known = set(hashes) - {""}
    shown = known if len(known) > 1 else ()
    footnotes: dict[str, tuple[str, ...]] = {
        sha256: (f"training images with sha256 {sha256[:12]}",) for sha256 in shown
    }
    return footnotes | ({"": (UNRECORDED_IMAGES,)} if known else {})


def _of_others(method: str, configs: Iterable[TrainConfig]) -> tuple[str, ...]:
    """Return the settings of runs that a row's method does not use: for a student, the EMA's."""
    try:
        used = parse_method(method).settings
    except AdrbenchError:
        return ()
    names = dict.fromkeys(name for config in configs for name in config.method_settings)
    return tuple(name for name in names if name not in used)


def describe_differences(
    known: Settings, ignored: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Return a footnote for each configuration, with the settings that differ between them."""
    apart = (*IDENTITY, *ignored)
    values = [config.values() for config in known.values()]
    every = dict.fromkeys(name for own in values for name in own)
    names = [
        name for name in every if name not in apart and len({own.get(name) for own in values}) > 1
    ]
    return {
        sha256: ("settings: " + ", ".join(spell(name, config) for name in names),)
        for sha256, config in known.items()
        if names
    }


def spell(name: str, config: TrainConfig) -> str:
    """Return the value of a setting as a flag of `adrbench train`."""
    value = config.values().get(name)
    declared = config.declared().get(name)
    with naming_flags():
        return declared.spell(value) if declared else f"{flag(name)} {value}"


def _places(rows: Iterable[SeedGroup]) -> dict[str, tuple[str, ...]]:
    """Return where the settings are stored, for rows that look the same and have several."""
    runs: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        of_method = runs.setdefault(row.method, {})
        of_method.setdefault(row.identity.training, set()).update(row.runs)
    return {
        sha256: (f"settings of {', '.join(sorted(names))}, in its config.json",)
        for of_method in runs.values()
        if len(of_method) > 1
        for sha256, names in of_method.items()
        if sha256
    }
