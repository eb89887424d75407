"""Method components: the parts that fill a method's slots, and their settings.

Declarations do not import torch, so the command line and the report can use them; the builder of a
component is imported when a run starts. To add a component, write its builder in
`adrbench/methods/` and add it to `COMPONENTS`; components of plugins are loaded in
`config.component_plugins`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from adrbench.config.declare import Setting, setting, settings_of

Slot = Literal["objective", "targets", "averaging", "perturbation"]
#: The slots in the order of the canonical spelling.
SLOTS: tuple[Slot, ...] = ("objective", "targets", "averaging", "perturbation")


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a component that has none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One component of a training method.

    `settings` is a frozen dataclass of `setting` fields, each with a default unless presets have
    a row for it. `builder` is "module:attribute", a callable
    `(context, settings) -> part` where `context` is an `adrbench.methods.slots.BuildContext`.
    `needs` are other slots that it requires; `implies` are general settings that it changes.
    `symbols` are short names, for displays, of the numbers that it anneals. `decay_setting` names
    the setting that is the decay per step of an exponential moving average. `stores_null` marks the
    components of the first version: runs without them store their settings as null, and the
    fingerprints of settings include that.

    Example:
        >>> from dataclasses import dataclass
        >>> from adrbench import Component, setting
        >>> @dataclass(frozen=True, kw_only=True)
        ... class SmoothingSettings:
        ...     smoothing: float = setting(default=0.1, low=0, high=1, help="Share of uniform.")
        >>> component = Component(
        ...     token="smooth",
        ...     slot="targets",
        ...     summary="smoothed labels",
        ...     builder="my_package.smoothing:build",
        ...     settings=SmoothingSettings,
        ... )

    """

    token: str
    slot: Slot
    summary: str
    builder: str
    settings: type = NoSettings
    needs: tuple[Slot, ...] = ()
    implies: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, str] = field(default_factory=dict)
    decay_setting: str = ""
    stores_null: bool = False


@dataclass(frozen=True, kw_only=True)
class TradesSettings:
    """The settings of TRADES."""

    beta: float = setting(low=0, high=1e6, help="TRADES: weight of the consistency term.")


@dataclass(frozen=True, kw_only=True)
class ADRSettings:
    """The settings of ADR: the start and end values of its two annealed parameters."""

    temperature_high: float = setting(
        low=1e-6, high=1e6, help="ADR: softmax temperature of the teacher at the start."
    )
    temperature_low: float = setting(
        low=1e-6, high=1e6, help="ADR: softmax temperature of the teacher at the end."
    )
    interpolation_low: float = setting(
        low=0, high=1, help="ADR: interpolation factor lambda at the start."
    )
    interpolation_high: float = setting(
        low=0, high=1, help="ADR: interpolation factor lambda at the end."
    )


@dataclass(frozen=True, kw_only=True)
class EMASettings:
    """The settings of the exponential moving average."""

    ema_decay: float = setting(low=0, high=1, help="EMA: decay per step (ADR's teacher, WA).")


@dataclass(frozen=True, kw_only=True)
class AWPSettings:
    """The settings of adversarial weight perturbation."""

    awp_rho: float = setting(low=0, high=1e6, help="AWP: relative size of the weight perturbation.")


COMPONENTS: dict[str, Component] = {
    component.token: component
    for component in (
        Component(
            token="standard",
            slot="objective",
            summary="cross-entropy on clean images; no attack while training",
            builder="adrbench.methods.standard:build",
        ),
        Component(
            token="at",
            slot="objective",
            summary="PGD adversarial training (Madry et al. 2018); the default objective",
            builder="adrbench.methods.adversarial_training:build",
        ),
        Component(
            token="trades",
            slot="objective",
            summary="clean cross-entropy + beta KL(clean || adversarial) (Zhang et al. 2019)",
            builder="adrbench.methods.trades:build",
            settings=TradesSettings,
            stores_null=True,
        ),
        Component(
            token="adr",
            slot="targets",
            summary="annealed self-distilled soft labels (Wu et al., ICLR 2024)",
            builder="adrbench.methods.adr:build",
            settings=ADRSettings,
            stores_null=True,
            needs=("averaging",),
            symbols={"temperature": "tau", "interpolation": "lambda"},
        ),
        Component(
            token="wa",
            slot="averaging",
            summary="validate and deploy the averaged (EMA) weights",
            builder="adrbench.methods.ema:build",
            settings=EMASettings,
            decay_setting="ema_decay",
            stores_null=True,
        ),
        Component(
            token="awp",
            slot="perturbation",
            summary="adversarial weight perturbation (Wu et al. 2020)",
            builder="adrbench.methods.awp:build",
            settings=AWPSettings,
            stores_null=True,
            implies={"nesterov": False},
        ),
    )
}
#: What fills a slot that a method leaves open and needs.
DEFAULTS: dict[Slot, str] = {"objective": "at", "averaging": "wa"}


def null_settings() -> list[str]:
    """Return the names of the settings that runs without their component store as null."""
    return [
        name
        for component in COMPONENTS.values()
        if component.stores_null
        for name, one in settings_of(component.settings).items()
        if not one.is_later
    ]


@cache
def component_settings() -> Mapping[str, Setting]:
    """Return the settings of all built-in components by name."""
    return {
        name: one
        for component in COMPONENTS.values()
        for name, one in settings_of(component.settings).items()
    }
