"""The columns of every table, and the column of each attack in a table's records."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from adrbench.config.declare import format_eps
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.tables import Cell, Column


def _detail(key: str, label: str, align: Literal["left", "right"] = "left") -> Column:
    return Column(key=key, label=label, role="detail", align=align)


def _value(key: str, label: str, *, suite: str = "", decimals: int = 2) -> Column:
    return Column(key=key, label=label, role="value", align="right", suite=suite, decimals=decimals)


def _measure(key: str, label: str, decimals: int) -> Column:
    """Return the column of a measure of outputs, whose intervals have the decimals of its mean."""
    return replace(_value(key, label, decimals=decimals), interval_decimals=decimals)


def _difference(column: Column) -> Column:
    """Return the column of the difference of a measure, with its interval."""
    return replace(column, annotation="interval")


ARCH = Column(key="arch", label="arch")
METHOD = Column(key="method", label="method", carries_footnotes=True)
AGAINST = Column(key="against", label="against")
#: The epoch of weights that were not trained here is "file" in the machine-readable formats.
CHECKPOINT = Column(key="checkpoint", label="epoch", absent="file")
SEEDS = _detail("seeds", "seeds", align="right")
N = _detail("n", "n", align="right")
EXTRA_DATA = _detail("extra_data", "extra")
SOURCE = _detail("source", "source")
BEST_EPOCH = _detail("best_epoch", "best epoch")
CHOSEN_ON = Column(key="chosen_on", label="chosen on")
SUITE = Column(key="suite", label="suite")
DATASET = Column(key="dataset", label="dataset")
PRECISION = Column(key="precision", label="precision")
DEVICE = Column(key="device", label="device")
SECONDS = _value("seconds", "seconds", decimals=1)
CLEAN = _value("clean", "clean")
RANK = _value("rank", "rank")

#: The columns on the left of the robust-accuracy table; one per attack and the rank follow.
ACCURACY = (ARCH, METHOD, CHECKPOINT, SEEDS, N, CLEAN)
#: The columns on the left of the table by radius; one per radius follows.
RADIUS = (ARCH, METHOD, CHECKPOINT, SUITE, SEEDS, N, CLEAN)
OVERFITTING = (
    ARCH,
    METHOD,
    SEEDS,
    CHOSEN_ON,
    BEST_EPOCH,
    SUITE,
    _value("best", "best"),
    _value("last", "last"),
    _value("gap", "gap"),
)
ROBUSTBENCH = (
    _value("rank", "rank", decimals=0),
    _value("rank_in_arch", "in arch", decimals=0),
    Column(key="method", label="model", carries_footnotes=True),
    CLEAN,
    _value("robust", "robust", suite="autoattack"),
    EXTRA_DATA,
    SOURCE,
)
#: The columns of a leaderboard without our results.
LEADERBOARD = (
    _value("rank", "rank", decimals=0),
    Column(key="method", label="model", carries_footnotes=True),
    _detail("arch", "arch"),
    CLEAN,
    _value("robust", "autoattack", suite="autoattack"),
    EXTRA_DATA,
    _detail("source", "venue"),
)
PAPER = (
    METHOD,
    EXTRA_DATA,
    _value("clean", "paper clean"),
    _value("robust", "paper AA", suite="autoattack (torchattacks 3.3.0)"),
)
PAPER_OURS = (
    _value("our_clean", "our clean"),
    _value("our_robust", "our AA", suite="autoattack"),
)
PAIRED = (
    ARCH,
    METHOD,
    AGAINST,
    CHECKPOINT,
    SUITE,
    SEEDS,
    N,
    _difference(_value("difference", "difference", decimals=1)),
    _value("p", "p (m)"),
    _value("detectable", "detectable", decimals=1),
    replace(_value("robust", "robust"), annotation=None),
    replace(_value("reference", "reference"), annotation=None),
)
TRAINING = (
    DATASET,
    ARCH,
    METHOD,
    PRECISION,
    DEVICE,
    _detail("runs", "runs", align="right"),
    _value("num_train", "images", decimals=0),
    _value("epochs", "epochs", decimals=0),
    SECONDS,
    _value("images_per_second", "images/s", decimals=0),
)
EVALUATION = (
    DATASET,
    ARCH,
    SUITE,
    DEVICE,
    N,
    _detail("processes", "processes", align="right"),
    _value("evaluations", "evaluations", decimals=0),
    SECONDS,
)
OUTPUTS = Column(key="outputs", label="outputs")
_CALIBRATION = (
    _measure("ece", "ECE", 1),
    _measure("brier", "Brier", 3),
    _measure("nll", "NLL", 2),
    _measure("confidence_right", "right", 1),
    _measure("confidence_wrong", "wrong", 1),
)
_CONSISTENCY = (_measure("kl", "KL", 3), _measure("total_variation", "TV", 1))
CALIBRATION = (
    ARCH,
    METHOD,
    CHECKPOINT,
    SUITE,
    OUTPUTS,
    SEEDS,
    N,
    _measure("accuracy", "accuracy", 1),
    _measure("confidence", "confidence", 1),
    *_CALIBRATION,
)
CONSISTENCY = (
    ARCH,
    METHOD,
    CHECKPOINT,
    SUITE,
    SEEDS,
    N,
    *_CONSISTENCY,
    _measure("linf", "Linf", 3),
    _measure("l2", "L2", 3),
)
CALIBRATION_DIFFERENCES = (
    ARCH,
    METHOD,
    AGAINST,
    CHECKPOINT,
    SUITE,
    OUTPUTS,
    SEEDS,
    N,
    *map(_difference, _CALIBRATION),
)
CONSISTENCY_DIFFERENCES = (
    ARCH,
    METHOD,
    AGAINST,
    CHECKPOINT,
    SUITE,
    SEEDS,
    N,
    *map(_difference, _CONSISTENCY),
)
CLASS = Column(key="class", label="class")
CLASSES = (
    ARCH,
    METHOD,
    CHECKPOINT,
    SUITE,
    CLASS,
    SEEDS,
    N,
    replace(CLEAN, decimals=1),
    _value("robust", "robust", decimals=1),
)
CONFUSION = (
    ARCH,
    METHOD,
    CHECKPOINT,
    SUITE,
    CLASS,
    Column(key="predicted", label="predicted"),
    SEEDS,
    N,
    _value("clean", "clean", decimals=1),
    _value("adversarial", "adversarial", decimals=1),
)


def identity(group: SeedGroup) -> dict[str, Cell]:
    """Return the cells that identify the model of a row."""
    return {
        ARCH.key: group.identity.arch,
        METHOD.key: group.method,
        SEEDS.key: len(group.seeds),
        N.key: group.identity.n,
    }


def attack_columns(labels: Mapping[Attack, str]) -> dict[Attack, Column]:
    """Return a column for each attack, in the order of their `labels`."""
    return {a: _value(f"robust {label}", label, suite=label) for a, label in labels.items()}


def radius_column(eps: float) -> Column:
    """Return the column of the robust accuracy at `eps`, a fraction of 1."""
    label = format_eps(eps)
    return replace(_value(f"robust {label}", label), eps=eps)
