"""Hyper-parameters as one table, each row with its source.

Rows are read from top to bottom; every row that fits the data set, architecture, method and norm
overrides what the rows above it said. The published rows are those of the configuration files
of the published ADR code (yuyuwu5/ADR at 515da0e); a row of our own says why it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from adrbench.config.method import Method

PUBLISHED = "published ADR configurations (yuyuwu5/ADR, 515da0e)"
#: objective -> the architectures it was published with, all with ReLU.
PUBLISHED_ARCHS: dict[str, tuple[str, ...]] = {
    "at": ("resnet18", "wrn-34-10"),
    "trades": ("resnet18",),
    "standard": (),
}

#: A training set of one's own below this many images is the data set "small", else "large".
SMALL_SET = 10_000


def adr(temperature: tuple[float, float], interpolation: tuple[float, float]) -> dict[str, float]:
    """Return ADR's four numbers: temperature high to low, interpolation low to high."""
    return {
        "temperature_high": temperature[0],
        "temperature_low": temperature[1],
        "interpolation_low": interpolation[0],
        "interpolation_high": interpolation[1],
    }


@dataclass(frozen=True, kw_only=True)
class Row:
    """Values for the runs that fit; `None` in a condition, or the glob `*`, fits anything."""

    values: Mapping[str, Any]
    source: str = PUBLISHED
    dataset: str = "*"
    arch: str = "*"
    norm: str | None = None
    objective: str | None = None
    adr: bool | None = None
    awp: bool | None = None
    averages: bool | None = None

    def fits(self, dataset: str, arch: str, method: Method, norm: str) -> bool:
        """Tell whether this row speaks of the given run."""
        return (
            fnmatch(dataset, self.dataset)
            and fnmatch(arch, self.arch)
            and self.norm in (None, norm)
            and self.objective in (None, method.objective)
            and self.adr in (None, method.adr)
            and self.awp in (None, method.awp)
            and self.averages in (None, method.averages)
        )


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The values for one run, and where they come from."""

    values: Mapping[str, Any]
    source: str


EVERYWHERE = {
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "milestones": (0.5, 0.75),
    "lr_factor": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "eps": 8 / 255,
    "alpha": 2 / 255,
    "steps": 10,
    "crop_padding": 4,
    "flip": True,
}
RICE_2020 = "L2 radius and step of Rice et al. 2020 (eps 128/255, alpha 15/255)"
DIGITS = "our own: 8x8 images, seconds per epoch on a CPU"
SHARP = "our own: a sharper teacher, see CONTRIBUTING.md"
SMALL = "our own: fewer steps per epoch want smaller batches and a shorter average"

ROWS: tuple[Row, ...] = (
    Row(values=EVERYWHERE),
    Row(values={"ema_decay": 0.995}, averages=True),
    Row(values={"beta": 6.0}, objective="trades"),
    Row(values={"awp_rho": 0.005, "nesterov": False}, awp=True),
    Row(values=adr((2.5, 2.0), (0.70, 0.95)), adr=True, awp=False),
    Row(values=adr((2.5, 1.5), (0.70, 0.85)), adr=True, awp=True),
    Row(values=adr((1.5, 1.0), (0.70, 0.95)), dataset="cifar100", adr=True),
    Row(
        values=adr((2.0, 1.0), (0.70, 0.85)),
        dataset="cifar100",
        objective="at",
        adr=True,
        awp=True,
    ),
    Row(values={"epochs": 80}, dataset="tiny-imagenet"),
    Row(values={"awp_rho": 0.001}, dataset="tiny-imagenet", awp=True),
    Row(values=adr((2.0, 1.5), (0.50, 0.90)), dataset="tiny-imagenet", adr=True),
    Row(
        values=adr((2.0, 1.5), (0.30, 0.90)),
        dataset="tiny-imagenet",
        arch="resnet18",
        objective="at",
        adr=True,
        awp=True,
    ),
    Row(values={"eps": 128 / 255, "alpha": 15 / 255}, norm="L2", source=RICE_2020),
    Row(values={"epochs": 60, "batch_size": 64, "lr": 0.05}, dataset="small", source=SMALL),
    Row(values={"ema_decay": 0.98}, dataset="small", averages=True, source=SMALL),
    Row(
        values={
            "epochs": 30,
            "batch_size": 64,
            "lr": 0.05,
            "crop_padding": 1,
            "flip": False,
        },
        dataset="digits",
        source=DIGITS,
    ),
    Row(values={"eps": 0.1, "alpha": 0.025}, dataset="digits", norm="Linf", source=DIGITS),
    Row(values={"ema_decay": 0.98}, dataset="digits", averages=True, source=DIGITS),
    Row(values=adr((1.0, 0.7), (0.30, 0.90)), dataset="digits", adr=True, source=SHARP),
)


def find_preset(
    dataset: str,
    arch: str,
    method: Method,
    *,
    norm: str = "Linf",
    activation: str = "relu",
    num_train: int,
) -> Preset:
    """Return the hyper-parameters for a run, from every row that fits it.

    `dataset` is a name of the data-set table or, for a set of one's own, any other name;
    `num_train` is its number of training images.
    """
    known = {"cifar10", "cifar100", "tiny-imagenet", "digits"}
    family = dataset if dataset in known else "small" if num_train < SMALL_SET else "large"
    rows = [row for row in ROWS if row.fits(family, arch, method, norm)]
    values: dict[str, Any] = {}
    for row in rows:
        values |= row.values
    sources = list(dict.fromkeys(row.source for row in rows))
    was_published = (
        family != "large" and activation == "relu" and arch in PUBLISHED_ARCHS[method.objective]
    )
    if sources == [PUBLISHED] and not was_published:
        sources.append(f"our own: carried over to {dataset} {arch} {method}")
    return Preset(values=values, source="; ".join(sources))
