"""The official AutoAttack, one attack at a time (Croce and Hein 2020).

Each stage drives the attack object that the official package itself configures, so
hyper-parameters, code and random draws are the official ones; only the loop over batches of
survivors is ours. What the package does to the whole process (it reseeds torch's generator,
clears the tracer of debuggers and coverage, counts calls in module globals) stays in here.
"""

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adrbench.attacks.early_exit import add_early_exit
from adrbench.config.threat import ThreatModel
from adrbench.errors import AdrbenchError

Version = Literal["standard", "plus", "rand"]

#: version -> the official order of its attacks.
ATTACKS: dict[Version, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
TARGET_CLASSES = 9
#: The fewest classes an attack can run with: the DLR loss looks at the third highest logit, its
#: targeted form at the fourth.
FEWEST_CLASSES = {"apgd-t": 4, "apgd-dlr": 3, "fab-t": 3}


class ReliabilityWarning(UserWarning):
    """Something seen during an evaluation that makes its figure doubtful, in plain words."""


@dataclass(frozen=True, kw_only=True)
class OfficialAttack:
    """One attack of the official package, as a stage of a suite."""

    name: str
    threat: ThreatModel
    num_classes: int
    seed: int = 0
    version: Version = "standard"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Attack `x` (N, C, H, W) in [0, 1] of labels `y`; `indices` play no part.

        The noise depends on the seed and on the whole batch, as it does officially.
        """
        del indices
        with contained(x.device), torch.no_grad():
            attack = configure(self, model, x.device)
            # With several passes per gradient one wrong answer decides nothing yet.
            if getattr(attack, "eot_iter", None) == 1:
                add_early_exit(attack)
            x_adv: Tensor = attack.perturb(x.clone(), y.clone())
        return x_adv


def package() -> ModuleType:
    """Return the installed official package: its release, or the repository's own name for it.

    Raises:
        AdrbenchError: when neither is installed.

    """
    for name in ("pyautoattack", "autoattack"):
        if name in sys.modules or find_spec(name) is not None:
            return import_module(name)
    raise AdrbenchError("AutoAttack is not installed: run `pip install pyautoattack`.")


def package_version() -> str:
    """Return the name and version of the installed AutoAttack, as records keep it."""
    name = package().__name__
    return f"{name} {metadata.version(name)}"


def configure(stage: OfficialAttack, model: nn.Module, device: torch.device) -> Any:
    """Return the official attack object of one stage, as its package sets it up."""
    constructor = package().AutoAttack
    quiet = {"verbose": False} if "verbose" in inspect.signature(constructor).parameters else {}
    ensemble = constructor(
        model,
        norm=stage.threat.norm,
        eps=stage.threat.eps,
        seed=stage.seed,
        version=stage.version,
        device=device,
        **quiet,
    )
    num_targets = min(TARGET_CLASSES, stage.num_classes - 1)
    ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = num_targets
    # Without a logger the official checks raise Python warnings, which `contained` collects.
    ensemble.apgd.logger = ensemble.apgd_targeted.logger = None
    match stage.name:
        case "apgd-ce" | "apgd-dlr":
            ensemble.apgd.loss = stage.name.removeprefix("apgd-")
            return ensemble.apgd
        case "apgd-t":
            return ensemble.apgd_targeted
        case "fab-t":
            ensemble.fab.targeted = True
            ensemble.fab.n_restarts = 1
            return ensemble.fab
        case "fab":
            ensemble.fab.targeted = False
            return ensemble.fab
    return ensemble.square


def split_runnable(names: tuple[str, ...], num_classes: int) -> tuple[list[str], list[str]]:
    """Return the attacks that can run with `num_classes` classes, and a sentence for each other.

    With two classes FAB has one class to aim at, so its untargeted form stands in for FAB-T.
    """
    runnable: list[str] = []
    left_out: list[str] = []
    for name in names:
        fewest = FEWEST_CLASSES.get(name, 2)
        if num_classes >= fewest:
            runnable.append(name)
            continue
        stand_in = name == "fab-t" and "fab" not in names
        if stand_in:
            runnable.append("fab")
        left_out.append(
            f"{name} was left out: it needs at least {fewest} classes, the model has {num_classes}"
            + ("; untargeted fab ran instead." if stand_in else ".")
        )
    return runnable, left_out


def inspect_model(model: nn.Module, x: Tensor, y: Tensor, *, randomness: bool = True) -> None:
    """Run the official checks of a model on one batch, before it is attacked.

    Warns (ReliabilityWarning) when the outputs vary between passes, look like probabilities, or
    when the forward pass itself calls for gradients. `randomness=False` is for the version that
    is made for random models.
    """
    checks = import_module(f"{package().__name__}.checks")
    with contained(x.device), torch.no_grad():
        if randomness:
            checks.check_randomized(model, x, y, bs=len(x))
        checks.check_range_output(model, x)
        checks.check_dynamic(model, x)


def review_square(accuracies: Mapping[str, float]) -> None:
    """Warn when Square fooled images the white-box attacks before it could not.

    `accuracies` maps "clean" and each stage, in order, to the accuracy left after it.
    """
    checks = import_module(f"{package().__name__}.checks")
    with contained(torch.device("cpu")):
        checks.check_square_sr(dict(accuracies))


@contextmanager
def contained(device: torch.device) -> Iterator[None]:
    """Keep the package's side effects inside, and put its warnings into plain words."""
    checks = import_module(f"{package().__name__}.checks")
    tracer = sys.gettrace()
    counters = dict(checks.funcs)
    devices = [device] if device.type == "cuda" else []
    checks.funcs.update(dict.fromkeys(counters, 0))
    try:
        with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices):
            warnings.simplefilter("always")
            yield
    finally:
        checks.funcs.update(counters)
        sys.settrace(tracer)
    meanings = {warning: translate(str(warning.message)) for warning in caught}
    for other in (warning for warning, meaning in meanings.items() if meaning is None):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    for meaning in dict.fromkeys(meanings.values()):
        if meaning is not None:
            warnings.warn(ReliabilityWarning(meaning), stacklevel=3)


#: how an official message begins to be recognised -> what it means.
MEANINGS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        "randomized defense",
        lambda found: (
            "the model's outputs differ from one pass to the next, so gradients are noisy and "
            "the robust accuracy may be too high: use --suite autoattack-rand."
        ),
    ),
    (
        "output is a probability distribution",
        lambda found: (
            "the model's outputs look like probabilities: attacks need logits, a softmax at the "
            "end hides gradients and makes the robust accuracy too high."
        ),
    ),
    (
        r"zero gradient",
        lambda found: (
            "some images had a gradient of exactly zero, so gradient attacks could not move "
            "them: the robust accuracy may be too high (gradient masking)."
        ),
    ),
    (
        r"Square Attack has decreased the robust accuracy of ([\d.]+%)",
        lambda found: (
            f"Square, which needs no gradients, took {found[1]} off what the gradient attacks "
            "had left: gradients are probably masked and the robust accuracy is too high."
        ),
    ),
    (
        "dynamic defense",
        lambda found: (
            "the model computes gradients inside its forward pass: AutoAttack may not be enough, "
            "use an adaptive attack."
        ),
    ),
)


def translate(message: str) -> str | None:
    """Return an official warning in plain words; None for a warning of something else."""
    for pattern, meaning in MEANINGS:
        found = re.search(pattern, message)
        if found:
            return meaning(found)
    return None
