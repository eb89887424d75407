"""A run before it starts: its settings, data set, architecture and paths, from a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adrbench.config.component_plugins import load_plugin_components
from adrbench.config.presets import Source
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import SAVE_MINUTES, TrainConfig
from adrbench.data import Dataset, load_dataset, steps_per_epoch
from adrbench.errors import UsageError, argument
from adrbench.models.architectures import Architecture, find_activation, find_architecture
from adrbench.models.foreign import Builder
from adrbench.printable import get_logger
from adrbench.runtime.context import Context
from adrbench.runtime.launch import rank_zero_first
from adrbench.training.automatic import adopt, check_resumable, decide
from adrbench.training.checkpointer import read_settings
from adrbench.training.run_names import check_run_name, run_name
from adrbench.training.state import Run, prepare_run

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunPlaces:
    """Where a run's files go, and how often its state is saved; `name` is None for the default.

    Raises:
        UsageError: for an invalid directory name, or a negative number of minutes.

    """

    name: str | None = None
    checkpoints: Path = Path("checkpoints")
    results: Path = Path("results")
    save_minutes: float = SAVE_MINUTES

    def __post_init__(self) -> None:
        if not self.save_minutes >= 0:
            raise UsageError(
                f"{argument('save_minutes')} is {self.save_minutes:g}: give a number of minutes, "
                "at least 0."
            )
        if self.name is not None:
            check_run_name(self.name, self.results)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with everything that it needs; `request` omits settings that the data set ignores."""

    request: TrainRequest
    config: TrainConfig
    dataset: Dataset
    architecture: Architecture
    name: str
    directory: Path
    record: Path
    save_minutes: float

    def find_sources(self) -> dict[str, Source]:
        """Return where the value of each setting comes from, by the setting's name."""
        num_train = len(self.dataset.train) + len(self.dataset.val)
        return self.request.find_sources(self.dataset.name, num_train=num_train)

    def prepare(self, context: Context) -> Run:
        """Return the run, ready to be built, without writing anything."""
        return prepare_run(self.config, self.dataset, self.directory, context, self.architecture)


def default_arch(dataset: str) -> str:
    """Return the default architecture of a run on `dataset`."""
    return "small-cnn" if dataset == "digits" else "resnet18"


def make_plan(
    dataset: str | Dataset,
    *,
    method: str,
    arch: str | Builder | None,
    activation: str,
    given: Mapping[str, object],
    data_dir: Path,
    places: RunPlaces,
    context: Context,
    force: bool = False,
    load: Callable[..., Dataset] = load_dataset,
) -> Plan:
    """Load the data set with `load`, and complete the given settings for that many images.

    What is "auto" is decided for the device, or as in the interrupted run unless `force`.
    Logs a warning for each setting that is ignored and each unusable plugin.

    Raises:
        UsageError: for an unknown name or a setting that is not allowed.
        ImportPathError: when the architecture cannot be imported.
        DataError: for missing or broken data.

    """
    name = dataset if isinstance(dataset, str) else dataset.name
    architecture = find_architecture(arch or default_arch(name))
    request = TrainRequest(
        dataset=name,
        method=method,
        arch=architecture.name,
        activation=find_activation(architecture, activation),
        given=given,
    )
    for problem in load_plugin_components().problems.values():
        logger.warning(problem)
    for setting in request.ignored:
        logger.warning(f"{argument(setting)} is ignored: method {method} does not use it.")
    with rank_zero_first(context.process_group):
        loaded = load(
            dataset, data_dir=data_dir, val_size=request.val_size, seed=request.split_seed
        )
    if "split_seed" in request.given and not loaded.val_is_drawn:
        logger.warning(
            f"{argument('split_seed')} is ignored: no validation images are drawn from the "
            "training images."
        )
        request = request.without("split_seed")
    num_val = len(loaded.val)
    num_train = len(loaded.train) + num_val
    config = request.resolve(loaded.name, num_train=num_train, val_size=num_val)
    name = places.name or run_name(config, loaded.name)
    check_run_name(name, places.results)
    directory = places.checkpoints / name
    stored = None if force else read_settings(directory)
    if stored:
        config = adopt(config, stored)
        if config.precision == stored.precision:
            check_resumable(config, context.device, directory)
    return Plan(
        request=request,
        config=decide(
            config,
            context.device,
            steps_per_epoch=steps_per_epoch(len(loaded.train), config.batch_size),
            processes=context.process_group.size,
        ),
        dataset=loaded,
        architecture=architecture,
        name=name,
        directory=directory,
        record=places.results / f"train-{name}.json",
        save_minutes=places.save_minutes,
    )
