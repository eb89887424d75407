"""Weights trained by other code: find the state dict, strip wrappers, load it strictly.

Nothing is dropped silently or loaded in part: either the whole state dict fits the model, or the
model is unchanged and the error lists what does not fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.checkpoints.state_dicts import (
    find_nonfinite,
    find_retyped,
    read_contents,
    strip_prefixes,
)
from adrbench.config.method import Weights
from adrbench.errors import CheckpointError, UsageError, argument, list_first
from adrbench.models.normalize import Normalized, normalization_buffers

#: The buffers of a model that `build_model` built and that are no weights.
CONSTANTS = ("mean", "std")
BATCH_COUNTER = "num_batches_tracked"
MAX_SHOWN = 3

Normalization = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The result of `load_third_party`.

    `entry` is the path of the weights in the file ("" for a bare state dict), `other_entries` are
    the paths of other weights in it.
    """

    entry: str
    other_entries: tuple[str, ...]
    normalization_in_file: bool


def load_third_party(
    state: object,
    model: nn.Module,
    *,
    normalize: Normalization | None,
    weights: Weights | None = None,
) -> LoadReport:
    """Load the content of a third-party file into `model`, which `build_model` built.

    For a network that is not built in, the weights are those of the `network` in its `Normalized`,
    including its own buffers named `mean` or `std`.

    `state` is a state dict, bare or under a common name (`state_dict`, `model`, `model_ema`, ...),
    with any sequence of common prefixes (`module.`, `model.`, ...). `normalize` is (mean, std) per
    channel for pixels in [0, 1], for networks whose normalization is not in the file; without
    either, the model keeps its own. `weights` selects the student (the default) or the average in
    a file with both, such as the published ADR checkpoints.

    Raises `CheckpointError` when the weights do not all fit; the model is then unchanged.
    """
    expected = model.state_dict()
    wanted = {key: value for key, value in expected.items() if key not in CONSTANTS}
    bare = strip_prefixes(wanted)
    contents = read_contents(state, weights, own=bare)
    in_channels = len(expected["mean"])
    found = _file_normalization(contents.normalization, in_channels)
    constants = {name: expected[name] for name in CONSTANTS}
    if normalize is not None:
        constants = dict(
            zip(constants, normalization_buffers(*normalize, in_channels), strict=True)
        )
        if max(normalize[0], default=0.0) > 1:
            raise UsageError(
                f"normalization mean {tuple(normalize[0])} is not for pixels in [0, 1]: "
                "divide mean and std by 255."
            )
    if found:
        if normalize is not None:
            _check_same_constants(found, constants)
        constants = found
    network = model.network if isinstance(model, Normalized) else model
    _check_fit(contents.network, bare, type(network).__name__)
    full = dict(zip(bare, wanted, strict=True))
    found_weights = {full[key]: value for key, value in contents.network.items()}
    counters = {key: value for key, value in expected.items() if key.endswith(BATCH_COUNTER)}
    model.load_state_dict({**counters, **found_weights, **constants}, strict=True)
    return LoadReport(
        entry=contents.entry,
        other_entries=contents.other_entries,
        normalization_in_file=bool(found),
    )


def count_classes(state: object, model: nn.Module, weights: Weights | None = None) -> int | None:
    """Return the number of classes of the weights that `load_third_party` would load.

    `model` is their architecture with any number of classes. None means that the weights do not
    determine it. Raises `CheckpointError` when `state` contains no such weights.
    """
    network = read_contents(state, weights).network
    return _num_classes(network, model.state_dict())


def _file_normalization(found: dict[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Return the file's `mean` and `std` as (C, 1, 1), or {} if it has neither."""
    if not found:
        return {}
    if len(found) == 1:
        present, absent = ("mean", "std") if "mean" in found else ("std", "mean")
        raise CheckpointError(
            f"the state dict contains a normalization {present} but no {absent}: "
            f"add the missing one, or remove both and give {argument('normalize')}."
        )
    channels = in_channels
    for name, value in found.items():
        if tuple(value.shape) not in {(channels,), (channels, 1, 1), (1, channels, 1, 1)}:
            raise CheckpointError(
                f"the state dict's normalization {name} has shape {tuple(value.shape)}, "
                f"but the model takes {channels} channels: expected ({channels},), "
                f"({channels}, 1, 1) or (1, {channels}, 1, 1)."
            )
        if value.is_complex():
            raise CheckpointError(
                f"the state dict's normalization {name} is {value.dtype}: save it as float32."
            )
    mean, std = found["mean"].flatten().tolist(), found["std"].flatten().tolist()
    if max(mean) > 1:
        raise CheckpointError(
            f"the state dict's normalization mean {_to_numbers(found['mean'])} is not for pixels "
            "in [0, 1]: divide its mean and std by 255 and save it again."
        )
    if min(mean) < 0 or max(std) > 1:
        raise CheckpointError(
            f"the state dict's normalization, mean {_to_numbers(found['mean'])} and std "
            f"{_to_numbers(found['std'])}, is not for pixels in [0, 1]: save one with numbers in "
            "[0, 1]."
        )
    try:
        buffers = normalization_buffers(mean, std, channels)
    except UsageError as error:
        raise CheckpointError(f"the state dict's {error}") from None
    return dict(zip(("mean", "std"), buffers, strict=True))


def _check_same_constants(found: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    if all(torch.allclose(found[name], given[name].to(found[name]), atol=1e-6) for name in found):
        return
    inside, outside = (
        f"mean {_to_numbers(constants['mean'])} std {_to_numbers(constants['std'])}"
        for constants in (found, given)
    )
    raise CheckpointError(
        f"the file normalizes with {inside} but {argument('normalize')} gives {outside}: "
        f"omit {argument('normalize')} to use the file's own."
    )


def _check_fit(network: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> None:
    """Raise CheckpointError unless `network` has exactly the weights and shapes of `wanted`."""
    missing = [key for key in wanted if key not in network and not key.endswith(BATCH_COUNTER)]
    unexpected = [key for key in network if key not in wanted]
    common = [key for key in wanted if key in network]
    reshaped = [key for key in common if network[key].shape != wanted[key].shape]
    retyped = [
        key
        for key in find_retyped(network, wanted)
        if network[key].is_complex() or not key.endswith(BATCH_COUNTER)
    ]
    problems = [
        _describe("missing", [f"{key:.80} {_shape(wanted[key])}" for key in missing]),
        _describe("unexpected", [f"{key:.80} {_shape(network[key])}" for key in unexpected]),
        _describe(
            "of another shape",
            [f"{key} {_shape(network[key])} instead of {_shape(wanted[key])}" for key in reshaped],
        ),
        _describe("of another type", [f"{key} {network[key].dtype}" for key in retyped]),
    ]
    if any(problems):
        raise CheckpointError(
            f"the state dict does not fit {name}{_explain_mismatch(network, wanted)}: "
            f"{'; '.join(filter(None, problems))}; "
            "choose the architecture, data set and number of classes that it was trained with."
        )
    if scaled := [key for key, value in network.items() if _is_float8(value)]:
        raise CheckpointError(
            f"the state dict contains {scaled[0]} in {network[scaled[0]].dtype}, whose scales are "
            "known only to the program that saved it: save the weights as float32, bfloat16 or "
            "float16."
        )
    if nonfinite := find_nonfinite(network):
        raise CheckpointError(
            f"the state dict contains values that are not finite in {len(nonfinite)} entries, the "
            f"first of them {nonfinite[0]}: its training diverged or the file is damaged; use "
            "another one."
        )


def _explain_mismatch(network: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return the differing numbers of classes or channels, in parentheses, or ""."""
    reasons = []
    for count, what in (
        (_num_classes, "has {} classes"),
        (_num_channels, "takes {} input channels"),
    ):
        found, own = count(network, wanted), count(wanted, wanted)
        if found is not None and own is not None and found != own:
            reasons.append(f"it {what.format(found)} and the model {own}")
    return f" ({', '.join(reasons)})" if reasons else ""


def _num_classes(network: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a network, whose classifier is named as in `model`.

    The last matrix of a model, (classes, features), is its classifier. The weights in a file are
    in any order, so one of another name counts only if there is no other matrix.
    """
    names = [key for key, value in network.items() if value.ndim == 2]
    name = next((key for key, value in reversed(list(model.items())) if value.ndim == 2), None)
    if name in names:
        return len(network[name])
    return len(network[names[0]]) if len(names) == 1 else None


def _num_channels(network: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> int | None:
    """Return the number of input channels of a network, whose stem is named as in `model`.

    The first convolution of a model, (out, in, height, width), is its stem.
    """
    name = next((key for key, value in model.items() if value.ndim == 4), None)
    stem = None if name is None else network.get(name)
    return stem.shape[1] if stem is not None and stem.ndim == 4 else None


def _is_float8(value: Tensor) -> bool:
    return value.is_floating_point() and value.element_size() == 1


def _describe(problem: str, names: Sequence[str]) -> str:
    return f"{len(names)} {problem}: {list_first(names, MAX_SHOWN)}" if names else ""


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _to_numbers(value: Tensor) -> tuple[float, ...]:
    return tuple(round(number, 6) for number in value.flatten().tolist())
