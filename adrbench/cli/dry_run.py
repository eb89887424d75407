"""`adrbench train --dry-run`: describe a run without taking a step or writing a file."""

import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints.settings_file import CONFIG
from adrbench.config.components import SLOTS
from adrbench.config.presets import Source
from adrbench.config.resolve import DEFAULT, GIVEN
from adrbench.config.settings import TrainConfig
from adrbench.data import DATASETS, Dataset, Images, load_dataset
from adrbench.data import Source as DataSource
from adrbench.data.find_source import stored_name
from adrbench.data.hold_out import hold_out
from adrbench.display.settings import WIDTH, list_settings, tabulate
from adrbench.errors import argument
from adrbench.printable import get_logger, printable
from adrbench.results.provenance import describe_device
from adrbench.runtime.context import Context
from adrbench.training.plan import Plan
from adrbench.training.state import Run, build_state

logger = get_logger(__name__)

#: name -> class of torchvision, of the data sets that are downloaded where they are missing.
CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
NUM_CIFAR_TRAIN = 50_000
CIFAR_SHAPE = (3, 32, 32)


class LoadOrAssume:
    """Loads a data set as `load_dataset` does, or assumes black images where CIFAR is missing.

    Those have CIFAR's published shapes, which suffice to describe a run, so nothing is downloaded.
    """

    def __init__(self) -> None:
        #: Whether images were assumed.
        self.has_assumed = False

    def __call__(
        self,
        dataset: str | Dataset,
        *,
        data_dir: Path,
        val_size: int | None = None,
        seed: int = 0,
    ) -> Dataset:
        """Return the data set, whose arguments are those of `load_dataset`."""
        source = DATASETS.get(dataset) if isinstance(dataset, str) else None
        if source is None or source.name not in CIFAR or is_cifar_in(data_dir, CIFAR[source.name]):
            return load_dataset(dataset, data_dir=data_dir, val_size=val_size, seed=seed)
        self.has_assumed = True
        return assume(source, data_dir, val_size=val_size, seed=seed)


def assume(source: DataSource, data_dir: Path, *, val_size: int | None, seed: int) -> Dataset:
    """Return a data set of black images with the published sizes of `source`, with a note."""
    logger.info(
        f"{source.name} is not in {data_dir} and is not downloaded for --dry-run, which assumes "
        "its published sizes."
    )
    assert source.num_test is not None
    assert source.mean is not None
    assert source.std is not None
    train, val = hold_out(black_images(NUM_CIFAR_TRAIN, source.num_classes), val_size, seed)
    return Dataset(
        name=source.name,
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
        published=True,
        train=train,
        val=val,
        test=black_images(source.num_test, source.num_classes),
        val_is_drawn=len(val) > 0,
    )


def is_cifar_in(data_dir: Path, class_name: str) -> bool:
    """Return whether the files of torchvision's data set `class_name` are present and intact."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    files: Any = getattr(datasets, class_name)
    return all(
        check_integrity(data_dir / files.base_folder / name, md5)
        for name, md5 in (*files.train_list, *files.test_list)
    )


def black_images(n: int, num_classes: int) -> Images:
    """Return `n` black images of CIFAR's shape, with labels of all classes."""
    return Images(torch.zeros(n, *CIFAR_SHAPE, dtype=torch.uint8), torch.arange(n) % num_classes)


def describe_plan(plan: Plan, context: Context, choices: Collection[str]) -> str:
    """Describe a run: its size and directory, and every setting with its source.

    `choices` are those of method, arch and activation that were given.

    Raises:
        UsageError: where the run could not start.

    """
    run = plan.prepare(context)
    rows = [*list_choices(run.config, choices), *list_settings(run.config, plan.find_sources())]
    lines = [line for name, text in summarize_run(run).items() for line in wrap(name, text)]
    return "\n".join(map(printable, [*lines, "", *tabulate(rows)]))


def summarize_run(run: Run) -> dict[str, str]:
    """Return the lines of the description by name."""
    config, dataset = run.config, run.dataset
    model = build_state(run).model
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    built = config.parsed_method().built
    components = [f"{slot} {built[slot].token}" for slot in SLOTS if slot in built]
    drawn = ", drawn from the training images" if dataset.val_is_drawn else ""
    total = config.epochs * run.steps_per_epoch
    return {
        "run": run.directory.name,
        "directory": str(run.directory),
        **describe_storage(config.dataset),
        "images": f"{len(dataset.train):,} for training; {len(dataset.val):,} for validation"
        f"{drawn}; {len(dataset.test):,} for testing",
        "steps": f"{run.steps_per_epoch:,} per epoch, {total:,} in all",
        "components": ", ".join(components),
        "network": f"{config.arch}, {num_parameters:,} parameters",
        "device": describe_device(run.context.device),
    }


def describe_storage(dataset: str) -> dict[str, str]:
    """Return the line on what is stored of a data set's path; none for another data set."""
    name = stored_name(dataset)
    if name == dataset:
        return {}
    return {"data set": f"{name} in checkpoints and records; its path only in {CONFIG}"}


def list_choices(config: TrainConfig, choices: Collection[str]) -> list[tuple[str, str, Source]]:
    """Return rows for `tabulate` of what determines the preset: data set, method, network."""
    values = {"method": config.method, "arch": config.arch, "activation": config.activation}
    return [
        ("DATASET", config.dataset, GIVEN),
        *(
            (argument(name), value, GIVEN if name in choices else DEFAULT)
            for name, value in values.items()
        ),
    ]


def wrap(name: str, text: str) -> list[str]:
    """Return a named line, wrapped between words."""
    indent = " " * 12
    return textwrap.wrap(
        f"{name:<{len(indent)}}{text}",
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
