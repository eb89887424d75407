"""`adrbench.train`: train or resume a run from Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from adrbench.checkpoints.format import BEST, LAST
from adrbench.checkpoints.restore import load_model
from adrbench.config.component_plugins import all_component_settings
from adrbench.config.declare import Setting
from adrbench.config.method import Weights
from adrbench.config.presets import DEFAULT_METHOD
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.data import Dataset
from adrbench.display.training import TrainingDisplay
from adrbench.errors import UsageError, unknown_name
from adrbench.models.foreign import Builder
from adrbench.results.records import TrainRecord
from adrbench.runtime.launch import open_context
from adrbench.training.callbacks import Callbacks
from adrbench.training.plan import RunPlaces, make_plan, make_request

#: What messages call the types of settings.
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "numbers",
}


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run: its directory, with `best.pt` and `last.pt`, and its record.

    `arch` is the architecture that the network was built from.
    """

    directory: Path
    record: TrainRecord
    arch: str | Builder

    def load_model(self, weights: Weights | None = None, *, last: bool = False) -> nn.Module:
        """Return the best (or the last) model of the run in eval mode on the CPU.

        It takes images (N, C, H, W) in [0, 1]. `weights` is "student" or "average", or None for
        the weights that the method deploys.

        Raises:
            CheckpointError: when the run has no such weights.

        """
        config = TrainConfig.from_json(self.record.config)
        is_own = callable(self.arch) or (":" in config.arch and not config.arch.startswith("timm:"))
        path = self.directory / (LAST if last else BEST)
        return load_model(path, weights, arch=self.arch if is_own else None)


def train(
    dataset: str | Dataset,
    *,
    method: str = DEFAULT_METHOD,
    arch: str | Builder | None = None,
    activation: str = "relu",
    name: str | None = None,
    out: str | Path = "checkpoints",
    results: str | Path = "results",
    data_dir: str | Path = "data",
    save_minutes: float = 5,
    device: str = "auto",
    force: bool = False,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train a model as `adrbench train` does, or resume an interrupted run.

    Args:
        dataset: The name or path of a data set, or an `adrbench.Dataset`.
        method: Tokens joined by +, such as "adr+wa" (see `adrbench list methods`).
        arch: A name (see `adrbench list archs`), `timm:NAME`, `package.module:attribute`, or a
            callable `(num_classes, in_channels) -> nn.Module` whose network takes pixels in
            [0, 1]; "small-cnn" for digits and "resnet18" otherwise by default.
        activation: "relu" or "silu", if the architecture supports a choice.
        name: The name of the run; by default composed of data set, architecture, method and seed.
        out: Parent of the run directory.
        results: Directory for the record.
        data_dir: Directory of CIFAR (downloaded if missing) and TinyImageNet.
        save_minutes: Minutes between saves within an epoch; each epoch is saved in any case.
        device: "auto", "cpu", "cuda" or "cuda:K".
        force: Whether to start over if a run of that name exists.
        progress: Whether to show the progress on stderr, as the command line does.
        callbacks: Called as the run progresses, for example to log it; replaces `progress`.
        **settings: Hyperparameters, named like their flags with underscores: `epochs=5`,
            `eps=8/255`, `milestones=(0.5, 0.75)`. A preset supplies the others.

    Raises:
        UsageError: for an unknown name or setting, or a value that is not allowed.
        DataError: for missing or broken data.
        AdrbenchError: when the directory contains another run, another process is writing to it, or
            the loss becomes non-finite.
        Interrupted: on Ctrl-C, once the run is saved; the same call resumes it.

    Example:
        >>> import adrbench
        >>> run = adrbench.train("digits", method="adr+wa", epochs=5)  # doctest: +SKIP
        >>> model = run.load_model("average")  # doctest: +SKIP

    """
    with open_context(device) as context:
        if not isinstance(dataset, str | Dataset):
            raise UsageError(
                f"dataset is a {type(dataset).__name__}: give a name, a path or an "
                "adrbench.Dataset."
            )
        if not isinstance(save_minutes, int | float):
            raise UsageError(f"save_minutes is {save_minutes!r:.40}: give a number of minutes.")
        request, architecture = make_request(
            dataset, method=method, arch=arch, activation=activation, given=check_given(settings)
        )
        places = RunPlaces(
            name=name, checkpoints=Path(out), results=Path(results), save_minutes=save_minutes
        )
        plan = make_plan(
            request,
            architecture,
            dataset=dataset,
            data_dir=Path(data_dir),
            places=places,
            context=context,
        )
        console = Console(stderr=True, quiet=not progress)
        with TrainingDisplay(console, plan.name) as display:
            record = plan.run(context, force=force, callbacks=callbacks or display)
        return TrainedRun(directory=plan.directory, record=record, arch=arch or plan.config.arch)


def check_given(settings: dict[str, Any]) -> dict[str, object]:
    """Return the settings whose given value differs from the default.

    Raises:
        UsageError: for an unknown name, or a value of another type.

    """
    known = {**train_settings(), **all_component_settings()}
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    given = {name: _as_declared(known[name], value) for name, value in settings.items()}
    return {name: value for name, value in given.items() if value != known[name].default}


def _as_declared(setting: Setting, value: Any) -> Any:
    """Return a value with the type that the setting is stored with."""
    if value is None and setting.is_optional:
        return None
    try:
        if setting.kind is tuple and isinstance(value, list | tuple):
            return tuple(float(one) for one in value)
        setting.check_type(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{setting.name} is {value!r:.40}: give {KINDS[setting.kind]}.") from error
    return float(value) if setting.kind is float else value
