"""From a request to a complete configuration: the given settings over a preset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adrbench.config.component_plugins import all_component_settings
from adrbench.config.declare import flag, settings_of
from adrbench.config.method import Method, parse_method
from adrbench.config.presets import Preset, Source, find_preset
from adrbench.config.settings import TrainConfig, check_values
from adrbench.config.threat import NORMS
from adrbench.errors import unknown_name
from adrbench.runtime.arithmetic import AUTO

GIVEN = Source(name="given", text="given")
DEFAULT = Source(name="default", text="default")
AUTOMATIC = Source(
    name="automatic",
    text="chosen for the device and the length of a new run; a resumed run keeps its own",
)


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A request for a run.

    `given` holds the settings that were given, by name, with values of their declared types; a
    preset supplies the others. Settings of components that the method lacks are ignored.

    Raises:
        UsageError: for a method that does not exist, or the first given setting that is wrong.

    """

    dataset: str
    method: str
    arch: str
    activation: str = TrainConfig.activation
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        norm = self.given.get("norm", TrainConfig.norm)
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
        parse_method(self.method)
        check_values({**self.used, "method": self.method})

    @property
    def parsed_method(self) -> Method:
        """The method's components."""
        return parse_method(self.method)

    @property
    def ignored(self) -> list[str]:
        """The names of the given settings that the method does not use."""
        used = self.parsed_method.settings
        return [
            name for name in all_component_settings() if name in self.given and name not in used
        ]

    @property
    def used(self) -> Mapping[str, Any]:
        """The given settings that the run uses."""
        ignored = self.ignored
        return {name: value for name, value in self.given.items() if name not in ignored}

    @property
    def val_size(self) -> int | None:
        """The number of images to hold out, None for the default."""
        chooses_on_test = self.given.get("select") == "test"
        size: int | None = self.given.get("val_size", 0 if chooses_on_test else None)
        return size

    @property
    def split_seed(self) -> int:
        """The seed that draws the images to hold out."""
        seed: int = self.given.get("split_seed", self.given.get("seed", TrainConfig.seed))
        return seed

    def without(self, name: str) -> "TrainRequest":
        """Return the request without a setting that was given."""
        given = {other: value for other, value in self.given.items() if other != name}
        return replace(self, given=given)

    def resolve(self, dataset: str, *, num_train: int, val_size: int) -> TrainConfig:
        """Return the configuration for the data set whose short name is `dataset`.

        `num_train` is its number of training images, of which `val_size` are held out.
        """
        given = self.used
        preset = self._find_preset(dataset, num_train)
        flags = [flag(name) for name in preset.values if name in given]
        source = "; ".join([preset.source, *([f"given: {', '.join(flags)}"] if flags else [])])
        return TrainConfig.of(
            dataset=self.dataset,
            arch=self.arch,
            method=str(self.parsed_method),
            activation=self.activation,
            **{**preset.values, **given, "val_size": val_size, "preset": source},
        )

    def find_sources(self, dataset: str, *, num_train: int) -> dict[str, Source]:
        """Return where the value of each setting of the run comes from, by the setting's name.

        The arguments are those of `resolve`.
        """
        preset = self._find_preset(dataset, num_train)
        declared = {**settings_of(TrainConfig), **self.parsed_method.settings}
        defaults = {
            name: AUTOMATIC if one.is_automatic else DEFAULT for name, one in declared.items()
        }
        given = {name: GIVEN for name, value in self.given.items() if value != AUTO}
        sources = {**defaults, **preset.sources, **given}
        return {name: sources[name] for name in declared}

    def _find_preset(self, dataset: str, num_train: int) -> Preset:
        return find_preset(
            dataset,
            self.arch,
            self.parsed_method,
            norm=self.given.get("norm", TrainConfig.norm),
            activation=self.activation,
            num_train=num_train,
        )
