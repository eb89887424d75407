"""Weights trained by other code: find the state dict, strip wrappers, fit it strictly.

Nothing is dropped silently and nothing is loaded in part: a state dict fits the model entirely,
or the model stays as it was and one sentence says what does not fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.checkpoints.state_dicts import read_contents
from adrbench.config.method import Weights
from adrbench.errors import CheckpointError, UsageError
from adrbench.models.normalize import normalization_buffers

BATCH_COUNTER = "num_batches_tracked"
SHOWN = 3

Normalization = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class ForeignReport:
    """What `load_foreign` found.

    `entry` is where in the file the weights stood ("" for a bare state dict), `other_entries`
    which further weights it holds; `mean` and `std` are what the model now normalises with.
    """

    entry: str
    other_entries: tuple[str, ...]
    normalization_in_file: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_foreign(
    state: object,
    model: nn.Module,
    *,
    normalize: Normalization | None,
    weights: Weights | None = None,
) -> ForeignReport:
    """Fill `model`, made by `build_model`, from the loaded content of somebody else's file.

    `state` is a state dict, bare or under a usual name (`state_dict`, `model`, `model_ema`, ...),
    with any stack of usual prefixes (`module.`, `model.`, ...). `normalize` is (mean, std) per
    channel in pixels of [0, 1], for networks whose normalisation is not in the file; where both
    are absent the model keeps its own. `weights` chooses where a file holds a student and an
    average, as the published ADR checkpoints do; by default the student.

    Raises `CheckpointError` when the weights do not fit entirely, and then changes nothing.
    """
    contents = read_contents(state, weights)
    expected = model.state_dict()
    in_channels = len(expected["mean"])
    found = _file_normalization(contents.normalization, in_channels)
    constants = {name: expected[name] for name in ("mean", "std")}
    if normalize is not None:
        constants = dict(
            zip(constants, normalization_buffers(*normalize, in_channels), strict=True)
        )
        if max(normalize[0], default=0.0) > 1:
            raise UsageError(
                f"normalisation mean {tuple(normalize[0])} is not in pixels of [0, 1]: "
                "divide mean and std by 255."
            )
    if found:
        if normalize is not None:
            _check_agreement(found, constants)
        constants = found
    _check_fit(contents.network, expected, type(model).__name__)
    counters = {key: value for key, value in expected.items() if key.endswith(BATCH_COUNTER)}
    model.load_state_dict({**counters, **contents.network, **constants}, strict=True)
    return ForeignReport(
        entry=contents.entry,
        other_entries=contents.other_entries,
        normalization_in_file=bool(found),
        mean=_numbers(constants["mean"]),
        std=_numbers(constants["std"]),
    )


def _file_normalization(found: dict[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Return the file's `mean` and `std` as (C, 1, 1), or nothing where it holds neither."""
    if not found:
        return {}
    if len(found) == 1:
        present, absent = ("mean", "std") if "mean" in found else ("std", "mean")
        raise CheckpointError(
            f"the state dict holds a normalisation {present} but no {absent}: "
            "add the missing one, or remove both and pass --normalize."
        )
    channels = in_channels
    for name, value in found.items():
        if tuple(value.shape) not in {(channels,), (channels, 1, 1), (1, channels, 1, 1)}:
            raise CheckpointError(
                f"the state dict's normalisation {name} has shape {tuple(value.shape)}, "
                f"but the model takes {channels} channels: expected ({channels},), "
                f"({channels}, 1, 1) or (1, {channels}, 1, 1)."
            )
    mean, std = found["mean"].flatten().tolist(), found["std"].flatten().tolist()
    if max(mean) > 1:
        raise CheckpointError(
            f"the state dict's normalisation mean {_numbers(found['mean'])} is not in pixels of "
            "[0, 1]: divide its mean and std by 255 and save it again."
        )
    try:
        buffers = normalization_buffers(mean, std, channels)
    except UsageError as error:
        raise CheckpointError(f"the state dict's {error}") from None
    return dict(zip(("mean", "std"), buffers, strict=True))


def _check_agreement(found: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    if all(torch.allclose(found[name], given[name].to(found[name]), atol=1e-6) for name in found):
        return
    inside, outside = (
        f"mean {_numbers(constants['mean'])} std {_numbers(constants['std'])}"
        for constants in (found, given)
    )
    raise CheckpointError(
        f"the file normalises with {inside} but --normalize says {outside}: "
        "leave --normalize out to use the file's own."
    )


def _check_fit(network: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Raise unless `network` holds exactly the weights of `expected`, in its shapes."""
    wanted = {key: value for key, value in expected.items() if key not in ("mean", "std")}
    missing = [key for key in wanted if key not in network and not key.endswith(BATCH_COUNTER)]
    unexpected = [key for key in network if key not in wanted]
    common = [key for key in wanted if key in network]
    reshaped = [key for key in common if network[key].shape != wanted[key].shape]
    retyped = [
        key for key in common if network[key].is_floating_point() != wanted[key].is_floating_point()
    ]
    problems = [
        _list_some("missing", [f"{key} {_shape(wanted[key])}" for key in missing]),
        _list_some("unexpected", [f"{key} {_shape(network[key])}" for key in unexpected]),
        _list_some(
            "of another shape",
            [f"{key} {_shape(network[key])} instead of {_shape(wanted[key])}" for key in reshaped],
        ),
        _list_some("of another type", [f"{key} {network[key].dtype}" for key in retyped]),
    ]
    if any(problems):
        raise CheckpointError(
            f"the state dict does not fit {name}{_explain(network, wanted)}: "
            f"{'; '.join(filter(None, problems))}; "
            "choose the architecture, data set and number of classes that it was trained with."
        )
    broken = [key for key in common if not bool(network[key].isfinite().all())]
    if broken:
        raise CheckpointError(
            f"the state dict holds values that are not finite, {len(broken)} entries from "
            f"{broken[0]} on: its training diverged or the file is damaged; use another one."
        )


def _explain(network: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Name the number of classes or of channels where that is what differs."""
    reasons = []
    classes, channels = _classifier(network), _stem(network)
    own_classes, own_channels = _classifier(wanted), _stem(wanted)
    if classes is not None and own_classes is not None and len(classes) != len(own_classes):
        reasons.append(f"it has {len(classes)} classes and the model {len(own_classes)}")
    if (
        channels is not None
        and own_channels is not None
        and channels.shape[1] != own_channels.shape[1]
    ):
        reasons.append(
            f"it takes {channels.shape[1]} input channels and the model {own_channels.shape[1]}"
        )
    return f" ({', '.join(reasons)})" if reasons else ""


def _classifier(network: Mapping[str, Tensor]) -> Tensor | None:
    """Return the last weight matrix (classes, features)."""
    return next((value for value in reversed(list(network.values())) if value.ndim == 2), None)


def _stem(network: Mapping[str, Tensor]) -> Tensor | None:
    """Return the first convolution's weight (out, in, height, width)."""
    return next((value for value in network.values() if value.ndim == 4), None)


def _list_some(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _numbers(value: Tensor) -> tuple[float, ...]:
    return tuple(round(number, 6) for number in value.flatten().tolist())
