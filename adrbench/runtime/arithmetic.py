"""The arithmetic of training and of attacks: its names, and the contexts that switch to it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from adrbench.errors import UsageError, argument

if TYPE_CHECKING:
    import torch

#: float32 has TF32 off; tf32 rounds the inputs of matrix products and convolutions to 10 bits of
#: mantissa; bfloat16 and float16 compute those, and what is between them, in 16 bits.
Arithmetic = Literal["float32", "tf32", "bfloat16", "float16"]
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)
FLOAT32: Literal["float32"] = "float32"
SIXTEEN_BITS: frozenset[Arithmetic] = frozenset({"bfloat16", "float16"})
#: What a user can ask for: an arithmetic, or the one that suits the device.
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
AUTO: Literal["auto"] = "auto"
PRECISIONS: tuple[Precision, ...] = (AUTO, *ARITHMETICS)
#: Gradients of weights underflow in float16, and training in it is no faster than in bfloat16.
TRAINING_PRECISIONS: tuple[Precision, ...] = (AUTO, "float32", "tf32", "bfloat16")

#: The largest relative difference that rounding causes between two ways to compute the same logits,
#: such as at two batch sizes. A ResNet-18 has 1e-6, 1e-3, 1e-3 and 5e-3 (2026).
TOLERANCES: Mapping[Arithmetic, float] = {
    "float32": 1e-4,
    "tf32": 1e-2,
    "bfloat16": 5e-2,
    "float16": 1e-2,
}
#: The largest differences of image gradients between two ways to compute them, one of them perhaps
#: in float32, relative to their L2 norm. In float32 rounding causes about 1e-6, and more where it
#: moves an activation across the kink of a ReLU. A ResNet-18 has 1e-2 in float16 and 3e-2 in
#: bfloat16 (2026).
GRADIENT_TOLERANCES: Mapping[Arithmetic, float] = {
    "float32": 1e-2,
    "tf32": 0.2,
    "bfloat16": 0.5,
    "float16": 0.2,
}
#: The arithmetics of searches that are ranked together: their outcomes are judged in float32 and
#: differ by no more than those of two memory layouts.
RANKED: frozenset[str] = frozenset({FLOAT32, "tf32"})


class _Search:
    """The arithmetic of the current search.

    Like the switches of TF32, it is the same in all threads of the process: autograd runs the
    backward passes of a GPU in threads of its own.
    """

    arithmetic: Arithmetic = FLOAT32


#: The compute capability of the first NVIDIA GPUs with TF32 and bfloat16, Ampere.
AMPERE = (8, 0)


def has_tensor_cores(device: "torch.device") -> bool:
    """Return whether `device` is an NVIDIA GPU that computes in TF32 and bfloat16."""
    import torch

    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


def choose_for_training(precision: Precision, device: "torch.device") -> Arithmetic:
    """Return the arithmetic of training steps on `device`: for "auto", bfloat16 if it is fast.

    Raises:
        UsageError: for an arithmetic that the device lacks.

    """
    return _choose(precision, device, automatic="bfloat16")


def choose_for_search(precision: Precision, device: "torch.device") -> Arithmetic:
    """Return the arithmetic in which attacks search on `device`: for "auto", TF32 if it has that.

    Raises:
        UsageError: for an arithmetic that the device lacks.

    """
    return _choose(precision, device, automatic="tf32")


def _choose(precision: Precision, device: "torch.device", automatic: Arithmetic) -> Arithmetic:
    """Return an arithmetic of `device`: for "auto", `automatic` if it has that, else float32."""
    is_ampere = has_tensor_cores(device)
    if precision == AUTO:
        return automatic if is_ampere else FLOAT32
    if precision == "tf32" and not is_ampere:
        raise UsageError(
            f"{argument('precision')} is 'tf32': {device} does not have it, only NVIDIA GPUs from "
            "Ampere on do: choose auto, float32 or bfloat16."
        )
    return precision


@contextmanager
def computing_in(arithmetic: Arithmetic, device_type: str) -> Iterator[None]:
    """Compute in `arithmetic` within the context, on weights and inputs in float32.

    In 16 bits, PyTorch's autocast converts the inputs of each layer. Its cache of converted weights
    is off, because weight perturbation changes the weights within a step.
    """
    import torch

    if arithmetic in SIXTEEN_BITS:
        dtype = getattr(torch, arithmetic)
        with torch.autocast(device_type, dtype=dtype, cache_enabled=False):
            yield
    else:
        with _tf32(allowed=arithmetic == "tf32"):
            yield


@contextmanager
def searching_in(arithmetic: Arithmetic) -> Iterator[None]:
    """Mark the search of an attack in `arithmetic`, and allow TF32 if that is it.

    Models in 16 bits convert their inputs themselves; what else the attack computes is in float32.
    """
    before, _Search.arithmetic = _Search.arithmetic, arithmetic
    try:
        with _tf32(allowed=arithmetic == "tf32"):
            yield
    finally:
        _Search.arithmetic = before


def arithmetic_of_search() -> Arithmetic:
    """Return the arithmetic of the current search, float32 outside of one."""
    return _Search.arithmetic


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 with TF32 off within the context."""
    with _tf32(allowed=False):
        yield


@contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    """Turn TF32 on or off within the context, for matrix products and convolutions on GPUs."""
    import torch

    # Not the newer fp32_precision switches: with those set per operator, torch 2.15 raises
    # wherever cudnn.allow_tf32 is read.
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    _set_switches(switches, [allowed] * len(switches))
    try:
        yield
    finally:
        _set_switches(switches, before)


def _set_switches(switches: Sequence[Any], values: Sequence[bool]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*TF32"
        )  # some versions recommend the newer switches
        for switch, value in zip(switches, values, strict=True):
            switch.allow_tf32 = value
