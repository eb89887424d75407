"""Training runs that differ only in the seed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adrbench.config.settings import TrainConfig
from adrbench.report.naming import (
    common_label,
    method_order,
    short_label,
    with_activation,
    with_label,
)
from adrbench.report.run_settings import (
    describe_differences,
    distinguish_images,
    fingerprint,
    read_config,
)
from adrbench.results.records import TrainRecord


class Runs(NamedTuple):
    """The common identity of runs that differ only in the seed; `label` as in ModelIdentity."""

    dataset: str
    arch: str
    method: str
    label: str
    precision: str
    device: str
    settings: str
    training_images: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """The data set, network and method."""
        return self[:3]


def group_runs(trained: Iterable[TrainRecord]) -> dict[Runs, list[TrainRecord]]:
    """Return the runs of `trained` by what they have in common, in the order of tables."""
    grouped: dict[Runs, list[TrainRecord]] = {}
    for record in trained:
        config = read_config(record)
        key = Runs(
            dataset=record.dataset,
            arch=with_activation(record.arch, config.activation if config else "relu"),
            method=record.method,
            label="" if record.training_images_sha256 else short_label(record),
            precision=_arithmetic(record),
            device=record.device,
            settings=fingerprint(config, record) if config else record.run,
            training_images=record.training_images_sha256 or "",
        )
        grouped.setdefault(key, []).append(record)
    in_order = sorted(grouped, key=lambda key: (*key[:2], method_order(key.method), *key[2:]))
    return {key: grouped[key] for key in in_order}


def name_runs(key: Runs, records: Iterable[TrainRecord]) -> str:
    """Return the method of runs as tables show it, with the label that they share, if any."""
    return with_label(key.method, common_label(map(short_label, records)))


def distinguish_runs(
    grouped: Mapping[Runs, Sequence[TrainRecord]],
) -> dict[Runs, tuple[str, ...]]:
    """Return footnotes for runs of one data set, network and method that were trained otherwise."""
    configs: dict[tuple[str, str, str], dict[str, TrainConfig]] = {}
    for key, records in grouped.items():
        config = read_config(records[0])
        if config:
            configs.setdefault(key.kind, {})[key.settings] = config
    by_settings = {kind: describe_differences(known) for kind, known in configs.items()}
    by_images = {
        kind: distinguish_images(key.training_images for key in grouped if key.kind == kind)
        for kind in {key.kind for key in grouped}
    }
    return {
        key: by_settings.get(key.kind, {}).get(key.settings, ())
        + by_images[key.kind].get(key.training_images, ())
        for key in grouped
    }


def _arithmetic(record: TrainRecord) -> str:
    """Return the arithmetic of a run, and whether its steps were compiled in any session."""
    is_compiled = any(session.compiled for session in record.sessions)
    return f"{record.precision}, compiled" if is_compiled else record.precision
