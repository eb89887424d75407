"""Migrations of records of older schemas, applied one after another when a record is read."""

import re
from collections.abc import Callable, Mapping
from typing import Any

#: The schema of new records.
SCHEMA = 4


def label_from_run_name(
    run: str, *, dataset: str, arch: str, activation: str, method: str, seed: int | None
) -> str:
    """Return the part of a run's name beyond dataset, architecture, method and seed.

    It is the label of a run that was made before labels were stored: "resnet18-long" for
    `cifar10-resnet18-long-at-seed0`, "" for `cifar10-resnet18-at-seed0`.
    """
    name = run.removeprefix(f"{dataset}-")
    name = re.sub(rf"[-_]?seed{seed}$", "", name)
    name = re.sub(rf"(^|-){re.escape(method)}$", "", name)
    return "" if name in (arch, f"{arch}-{activation}") else name


def _add_label(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of schema 2 with the two keys that schema 3 adds.

    Weights of unknown origin have no label: their run is named after their file.
    """
    config = record.get("config")
    activation = (config if isinstance(config, Mapping) else record).get("activation")
    is_third_party = record.get("kind") == "attack" and (
        record.get("weights") == "file" or record.get("seed") is None
    )
    label = label_from_run_name(
        str(record.get("run")),
        dataset=str(record.get("dataset")),
        arch=str(record.get("arch")),
        activation=str(activation),
        method=str(record.get("method")),
        seed=record.get("seed"),
    )
    return record | {"training_images_sha256": None, "label": "" if is_third_party else label}


#: schema -> the function that turns a record of that schema into one of the next.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda record: record,  # lacks `processes` and `sessions`, which have defaults
    2: _add_label,
    3: lambda record: record,  # lacks `run_id` and `clean_logits`, which have defaults
}
