"""Names in tables: networks, methods, and what the labels of several runs have in common."""

from collections.abc import Iterable
from functools import cache

from adrbench.config.components import COMPONENTS, DEFAULTS
from adrbench.config.method import WEIGHTS, parse_method
from adrbench.errors import AdrbenchError
from adrbench.results.baselines import zoo_architecture
from adrbench.results.migrations import label_from_run_name
from adrbench.results.records import AttackRecord, TrainRecord

ZOO_PREFIX = "robustbench:"
#: Characters between the parts of a label, such as "lr0.02-s0".
SEPARATORS = "-_ "


def method_name(record: AttackRecord) -> str:
    """Return the method that the weights represent, or the run's name for third-party weights."""
    method = _method_of_weights(record.method, record.weights) if record.weights in WEIGHTS else ""
    return method or record.run


@cache
def _method_of_weights(method: str, weights: str) -> str:
    try:
        return parse_method(method).row(weights)
    except AdrbenchError:
        return _row_of_unknown(method, weights)


def _row_of_unknown(method: str, weights: str) -> str:
    """Return the stored spelling of a method that is unknown here, with or without averaging."""
    averaging = DEFAULTS["averaging"]
    tokens = [token for token in method.split("+") if token]
    if weights == "average" and tokens and averaging not in tokens:
        tokens.append(averaging)
    return "+".join(token for token in tokens if weights == "average" or token != averaging)


def canonical_name(method: str) -> str:
    """Return the canonical spelling of a method; a name that is none stays as it is."""
    return str(parse_method(method)) if is_known(method) else method


@cache
def is_known(method: str) -> bool:
    """Return whether this installation has every component of a method."""
    try:
        parse_method(method)
    except AdrbenchError:
        return False
    return True


def network_name(record: AttackRecord) -> str:
    """Return the network's name; records of the model zoo store the name of the entry instead."""
    if record.run.startswith(ZOO_PREFIX):
        return zoo_architecture(record.run.removeprefix(ZOO_PREFIX)) or record.arch
    return with_activation(record.arch, record.activation)


def with_activation(arch: str, activation: str) -> str:
    """Return the name of a network and, unless it is ReLU, of its activation."""
    return arch if activation == "relu" else f"{arch} ({activation})"


def with_label(method: str, label: str) -> str:
    """Return a method with the label of its runs, if they have one."""
    return f"{method} ({label})" if label else method


def short_label(record: AttackRecord | TrainRecord) -> str:
    """Return the label of a record without what rows show anyway: data set, method and seed.

    It is "softer" for a run that the user called `digits-softer-adr+wa-seed0`.
    """
    return label_from_run_name(
        record.label,
        dataset=record.dataset,
        arch=record.arch,
        activation="",
        method=record.method,
        seed=record.seed,
    )


def common_label(labels: Iterable[str]) -> str:
    """Return what several labels share, up to their last common separator.

    "lr0.02-s0" and "lr0.02-s1" share "lr0.02"; one label alone is returned as it is.
    """
    distinct = sorted(set(labels))
    if len(distinct) == 1:
        return distinct[0]
    first, last = distinct[0], distinct[-1]  # in order, so that these differ the earliest
    pairs = enumerate(zip(first, last, strict=False))
    length = next((i for i, (one, other) in pairs if one != other), min(len(first), len(last)))
    common = first[:length]
    is_whole_part = all(label[len(common) :][:1] in ("", *SEPARATORS) for label in distinct)
    if not is_whole_part:
        common = common[: max(common.rfind(separator) for separator in SEPARATORS) + 1]
    return common.rstrip(SEPARATORS)


@cache
def method_order(method: str) -> tuple[int, ...]:
    """Return the sort key of a method; names that are no method come last."""
    try:
        return parse_method(method).order
    except AdrbenchError:
        return (len(COMPONENTS),)
