"""Finding state dicts in third-party files, and stripping prefixes from their keys.

A file holds one bare state dict, or several under names (such as a student and its average). Keys
may have prefixes such as `module.`, and normalization constants may be among the weights.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adrbench.checkpoints.pickle_machine import PickledObject
from adrbench.checkpoints.pickled_tensors import OddTensor
from adrbench.config.method import Weights
from adrbench.errors import CheckpointError, list_first

STUDENT_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "student",
    "weights",
)
AVERAGE_ENTRIES = (
    "model_ema",
    "ema",
    "ema_model",
    "ema_state_dict",
    "model_ema_state_dict",
    "state_dict_ema",
    "average",
)
PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.", "1.")
NORMALIZATION_NAMES = {"mean": "mean", "mu": "mean", "std": "std", "sigma": "std"}
#: A counter of torch.optim.swa_utils; it does not affect the model's outputs.
AVERAGING_COUNTER = "n_averaged"
MAX_LEVELS = 3
MAX_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A state dict without wrappers and prefixes, and its normalization constants separately."""

    entry: str
    other_entries: tuple[str, ...]
    network: dict[str, Tensor]
    normalization: dict[str, Tensor]


def read_contents(state: object, weights: Weights | None, *, own: Collection[str] = ()) -> Contents:
    """Return the state dict in `state` that `weights` selects, without its prefixes.

    `own` are the names, without prefixes, of the weights of the network: constants of that name are
    among its weights.

    Raises `CheckpointError` when there is none, or when the choice among several is ambiguous.
    """
    candidates = dict(_walk(state, ""))
    entry = _choose(state, candidates, weights)
    network: dict[str, Tensor] = {}
    normalization: dict[str, Tensor] = {}
    for key, value in candidates[entry].items():
        if isinstance(value, OddTensor):
            raise CheckpointError(
                f"the state dict contains {key!r:.80} as a {value.kind} tensor: save all as "
                "dense tensors of float32, bfloat16 or float16."
            )
        last = key.rsplit(".", 1)[-1]
        if last in NORMALIZATION_NAMES and not _is_own(key, own):
            name = NORMALIZATION_NAMES[last]
            if name in normalization:
                raise CheckpointError(
                    f"the state dict contains two normalizations ({key} is the second {name}): "
                    "remove the one that its network does not use."
                )
            normalization[name] = value
        elif key != AVERAGING_COUNTER:
            network[key] = value
    others = tuple(other for other in candidates if other != entry)
    return Contents(
        entry=entry,
        other_entries=others,
        network=strip_prefixes(network),
        normalization=normalization,
    )


def _walk(
    value: object, path: str, level: int = 0
) -> Iterator[tuple[str, Mapping[str, Tensor | OddTensor]]]:
    """Yield every state dict in `value` with its path, such as `checkpoint.state_dict`."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return
    if all(isinstance(item, Tensor | OddTensor) for item in value.values()):
        # A network has weights of two or more dimensions; the state of a loss scaler does not.
        if any(isinstance(item, OddTensor) or item.ndim >= 2 for item in value.values()):
            yield path, value
    elif level < MAX_LEVELS:
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if path else key, level + 1)


def _choose(state: object, candidates: Mapping[str, object], weights: Weights | None) -> str:
    """Return the path of the state dict to use; raise CheckpointError if it is not unique."""
    if not candidates and (whole := _find_object(state)):
        raise CheckpointError(
            f"the file contains its {whole} as a pickled object, which cannot be read without "
            "running code: save its state_dict() instead."
        )
    if not candidates:
        raise CheckpointError(
            f"the file contains no state dict, only {_describe(state)}: expected tensors by "
            f"parameter name, at the top level or under {', '.join(STUDENT_ENTRIES[:4])} or "
            f"{AVERAGE_ENTRIES[0]}."
        )
    if "" in candidates:
        return ""
    averages = [path for path in candidates if set(path.split(".")) & set(AVERAGE_ENTRIES)]
    students = [path for path in candidates if path not in averages]
    named = [path for entry in STUDENT_ENTRIES for path in students if path.split(".")[-1] == entry]
    if weights == "average":
        eligible = averages
    else:
        eligible = named[:1] or students or (averages if weights is None else [])
    if len(eligible) == 1:
        return eligible[0]
    wanted = f"the {weights} weights" if weights else "the weights"
    problem = "several state dicts that could be" if eligible else "no state dict that could be"
    raise CheckpointError(
        f"the file contains {problem} {wanted} ({list_first(list(candidates), MAX_SHOWN)}): "
        "save the intended one to a separate file."
    )


def _find_object(state: object) -> str | None:
    """Return the key under which a file stores a whole model instead of its state dict."""
    if not isinstance(state, Mapping):
        return None
    names = (*STUDENT_ENTRIES, *AVERAGE_ENTRIES)
    return next((name for name in names if isinstance(state.get(name), PickledObject)), None)


def find_retyped(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of `state` whose numbers are of another kind, such as integers or complex."""
    return [
        key
        for key, value in state.items()
        if key in expected and _kind(value.dtype) != _kind(expected[key].dtype)
    ]


def _kind(dtype: torch.dtype) -> tuple[bool, bool]:
    return dtype.is_floating_point, dtype.is_complex


def find_nonfinite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of `state` with NaN or infinite values."""
    return [key for key, value in state.items() if not _is_finite(value)]


def _is_finite(value: Tensor) -> bool:
    if not (value.is_floating_point() or value.is_complex()):
        return True
    if value.itemsize == 1:  # torch does not compute with numbers of 8 bits
        value = value.float()
    # A sum takes a fraction of the time, and is finite only if every number is.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def check_values(state: Mapping[str, object], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError if `state` contains values that a model's weights cannot have."""
    for key, value in state.items():
        if isinstance(expected.get(key), Tensor) and not isinstance(value, Tensor):
            raise ValueError(f"{key} is {_kind_of(value)}")
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if retyped := find_retyped(tensors, expected):
        key = retyped[0]
        raise ValueError(f"{key} is {tensors[key].dtype}, not {expected[key].dtype}")
    if nonfinite := find_nonfinite(tensors):
        raise ValueError(f"{nonfinite[0]} is not finite")


def _describe(state: object) -> str:
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    if not state:
        return "an empty table"
    entries = {key: f"{key!s:.80} ({_kind_of(value)})" for key, value in state.items()}
    others = [entries[key] for key, value in state.items() if not isinstance(value, Tensor)]
    if 0 < len(others) < len(entries):
        return f"{len(entries) - len(others)} tensors beside {list_first(others, MAX_SHOWN)}"
    return f"{len(entries)} other entries ({list_first(list(entries.values()), MAX_SHOWN)})"


def _kind_of(value: object) -> str:
    if isinstance(value, OddTensor):
        return f"{value.kind} tensor"
    return "object" if isinstance(value, PickledObject) else type(value).__name__


def _is_own(key: str, own: Collection[str]) -> bool:
    """Return whether a key, which may have prefixes, has one of the names `own`."""
    return any(key == name or key.endswith(f".{name}") for name in own)


def strip_prefixes(network: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove all prefixes that every key has, in any order and number."""
    shared, length = os.path.commonprefix(list(network)), 0  # noqa: RUF071 - these are no paths
    while prefix := next((one for one in PREFIXES if shared.startswith(one, length)), None):
        length += len(prefix)
    return {key[length:]: value for key, value in network.items()}
