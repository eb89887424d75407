"""Hyperparameters as one table, each row with its source.

Rows are applied from top to bottom: every row that fits the data set, architecture, method and
norm overrides the rows above it. The published rows are those of the configuration files of the
published ADR code (yuyuwu5/ADR at 515da0e); a row of our own gives its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from adrbench.config.method import Method


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a value comes from: a `name` for a column, and the whole `text`."""

    name: str
    text: str


PUBLISHED = Source(name="published ADR", text="published ADR configurations (yuyuwu5/ADR, 515da0e)")
#: objective -> the architectures it was published with, all with ReLU.
PUBLISHED_ARCHS: dict[str, tuple[str, ...]] = {
    "at": ("resnet18", "wrn-34-10"),
    "trades": ("resnet18",),
}

#: The method of `adrbench train` without --method.
DEFAULT_METHOD = "adr+wa+awp"
#: A user's own training set with fewer images is the data set "small", others are "large".
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
    """Values for the runs that fit: `None` in a condition, or the glob `*`, fits anything.

    `has` and `lacks` are tokens of the method, the objective's included.
    """

    values: Mapping[str, Any]
    source: Source = PUBLISHED
    dataset: str = "*"
    arch: str = "*"
    norm: str | None = None
    has: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    has_average: bool | None = None

    def fits(self, dataset: str, arch: str, method: Method, norm: str) -> bool:
        """Return whether this row applies to a run."""
        return (
            fnmatch(dataset, self.dataset)
            and fnmatch(arch, self.arch)
            and self.norm in (None, norm)
            and self.has <= method.tokens
            and not self.lacks & method.tokens
            and self.has_average in (None, method.has_average)
        )


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The values for one run, the source of each, and the text of all sources, to be stored."""

    values: Mapping[str, Any]
    sources: Mapping[str, Source]
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
RICE_2020 = Source(
    name="Rice et al. 2020",
    text="L2 radius and step of Rice et al. 2020 (eps 128/255, alpha 15/255)",
)
DIGITS = Source(name="ours for digits", text="our own: 8x8 images, seconds per epoch on a CPU")
SHARP = Source(
    name="ours for ADR",
    text="our own: with CIFAR-10's temperature and lambda the targets of digits are nearly uniform",
)
SMALL = Source(
    name="ours for small sets",
    text="our own: few steps per epoch need smaller batches and a shorter average",
)


def tokens(spelling: str) -> frozenset[str]:
    """Return the tokens of a condition."""
    return frozenset(spelling.split("+"))


ROWS: tuple[Row, ...] = (
    Row(values=EVERYWHERE),
    Row(values={"ema_decay": 0.995}, has_average=True),
    Row(values={"beta": 6.0}, has=tokens("trades")),
    Row(values={"awp_rho": 0.005}, has=tokens("awp")),
    Row(values=adr((2.5, 2.0), (0.70, 0.95)), has=tokens("adr"), lacks=tokens("awp")),
    Row(values=adr((2.5, 1.5), (0.70, 0.85)), has=tokens("adr+awp")),
    Row(values=adr((1.5, 1.0), (0.70, 0.95)), dataset="cifar100", has=tokens("adr")),
    Row(
        values=adr((2.0, 1.0), (0.70, 0.85)),
        dataset="cifar100",
        has=tokens("at+adr+awp"),
    ),
    Row(values={"epochs": 80}, dataset="tiny-imagenet"),
    Row(values={"awp_rho": 0.001}, dataset="tiny-imagenet", has=tokens("awp")),
    Row(values=adr((2.0, 1.5), (0.50, 0.90)), dataset="tiny-imagenet", has=tokens("adr")),
    Row(
        values=adr((2.0, 1.5), (0.30, 0.90)),
        dataset="tiny-imagenet",
        arch="resnet18",
        has=tokens("at+adr+awp"),
    ),
    Row(values={"eps": 128 / 255, "alpha": 15 / 255}, norm="L2", source=RICE_2020),
    Row(values={"epochs": 60, "batch_size": 64, "lr": 0.05}, dataset="small", source=SMALL),
    Row(values={"ema_decay": 0.98}, dataset="small", has_average=True, source=SMALL),
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
    Row(values={"ema_decay": 0.98}, dataset="digits", has_average=True, source=DIGITS),
    Row(values=adr((1.0, 0.7), (0.30, 0.90)), dataset="digits", has=tokens("adr"), source=SHARP),
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
    """Return the hyperparameters for a run, from every row that fits it.

    `dataset` is the name of a built-in data set or, for a user's own, any other name;
    `num_train` is its number of training images.
    """
    known = {"cifar10", "cifar100", "tiny-imagenet", "digits"}
    family = dataset if dataset in known else "small" if num_train < SMALL_SET else "large"
    rows = [row for row in ROWS if row.fits(family, arch, method, norm)]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for row in rows:
        values |= row.values
        sources |= dict.fromkeys(row.values, row.source)
    applied = list(dict.fromkeys(row.source for row in rows))
    text = "; ".join(source.text for source in applied)
    published_archs = PUBLISHED_ARCHS.get(method.filled["objective"].token, ())
    was_published = family != "large" and activation == "relu" and arch in published_archs
    if applied == [PUBLISHED] and not was_published:
        text += f"; our own: carried over to {dataset} {arch} {method}"
        sources = dict.fromkeys(sources, Source(name="carried over", text=text))
    for component in method.components:
        implied = f"implied by {component.token}"
        sources |= dict.fromkeys(component.implies, Source(name=implied, text=implied))
    return Preset(values={**values, **method.implied}, sources=sources, source=text)
