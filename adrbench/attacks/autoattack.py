"""The official AutoAttack, one attack at a time (Croce and Hein 2020).

Each stage runs the attack object that the official package configures, so hyperparameters, random
draws and outcomes are the official ones. The loop over batches of survivors is ours, and so are
loops inside attacks that would keep a GPU waiting.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from adrbench.attacks.apgd import replace_apgd_loop
from adrbench.attacks.autoattack_package import describe_package, import_package, isolated
from adrbench.attacks.early_exit import add_early_exit
from adrbench.attacks.fab import replace_fab_loop
from adrbench.attacks.finite_logits import FiniteLogits
from adrbench.attacks.pgd import LabelLoss, cross_entropy_sum, margin
from adrbench.attacks.square import replace_square_loop
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, unknown_name

Version = Literal["standard", "plus", "rand"]

#: version -> the official order of its attacks.
ATTACKS: dict[Version, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
#: version -> the name of its suite.
SUITE_NAMES: dict[Version, str] = {
    "standard": "autoattack",
    "plus": "autoattack-plus",
    "rand": "autoattack-rand",
}
TARGET_CLASSES = 9
#: The forward passes of one run of an attack on a batch of which no image is fooled (pyautoattack
#: 0.2.0), and the restarts or passes per gradient that a version multiplies them by.
PASSES = {"apgd-ce": 101, "apgd-dlr": 101, "apgd-t": 102, "fab": 202, "fab-t": 203, "square": 5002}
RUNS: dict[Version, int] = {"standard": 1, "plus": 5, "rand": 20}
#: The fewest classes an attack supports: the DLR loss uses the third highest logit, its targeted
#: form the fourth.
MIN_CLASSES = {"apgd-t": 4, "apgd-dlr": 3, "fab-t": 3}


@dataclass(frozen=True)
class OfficialAttack:
    """One attack of the official AutoAttack package (Croce and Hein 2020), as a stage of a suite.

    `name` is one of those in `ATTACKS[version]`, such as "apgd-t" or "square", or "fab". Arguments
    that are omitted are taken from the evaluation (see `bind`).

    Raises:
        UsageError: for an unknown name or version, or, when it is bound, for too few classes.

    Example:
        >>> OfficialAttack("square").version
        'standard'

    """

    name: str
    _: KW_ONLY
    threat: ThreatModel | None = None
    num_classes: int | None = None
    seed: int | None = None
    version: Version = "standard"

    #: The official attacks draw their noise for a whole batch.
    batch_dependent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        known = dict.fromkeys(name for names in ATTACKS.values() for name in names)
        if self.name not in known:
            raise unknown_name("attack", self.name, known)
        if self.version not in ATTACKS:
            raise unknown_name("version of AutoAttack", self.version, ATTACKS)

    @property
    def label_loss(self) -> LabelLoss | None:
        """The loss whose gradients are checked in place of its own, None for Square.

        The DLR loss and FAB use differences of logits, like the margin.
        """
        if self.name == "square":
            return None
        return cross_entropy_sum if self.name == "apgd-ce" else margin

    @property
    def for_randomized(self) -> bool:
        """Whether it is made for models whose outputs vary from pass to pass."""
        return self.version == "rand"

    @property
    def review(self) -> Callable[[Mapping[str, float]], None] | None:
        """The check of the accuracies, for Square: see `review_square`."""
        return review_square if self.name == "square" else None

    @staticmethod
    def inspect(model: nn.Module, x: Tensor) -> None:
        """Make the official check for gradients inside the forward pass: see `check_dynamic`."""
        check_dynamic(model, x)

    def describe_parameters(self) -> dict[str, Any]:
        """Return what identifies the attack in records, besides its name."""
        assert self.num_classes is not None
        return {
            "version": self.version,
            "package": describe_package(),
            "num_targets": min(TARGET_CLASSES, self.num_classes - 1),
        }

    def bind(self, threat: ThreatModel, num_classes: int, seed: int) -> "OfficialAttack":
        """Return this attack with missing threat model, classes and seed filled in."""
        num_classes = self.num_classes or num_classes
        needed = MIN_CLASSES.get(self.name, 2)
        if num_classes < needed:
            raise UsageError(
                f"{self.name} needs at least {needed} classes, but the model has {num_classes}."
            )
        return replace(
            self,
            threat=self.threat or threat,
            num_classes=num_classes,
            seed=seed if self.seed is None else self.seed,
        )

    @property
    def num_passes(self) -> int:
        """The number of forward passes on a batch in which the attack succeeds on no image."""
        if self.name == "square":
            return PASSES[self.name] + 1
        is_targeted = self.name.endswith("-t")
        num_targets = min(TARGET_CLASSES, (self.num_classes or 10) - 1)
        return PASSES[self.name] * (num_targets if is_targeted else RUNS[self.version]) + 1

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Attack images `x` (N, C, H, W) in [0, 1] with labels `y` (N,); `indices` are unused.

        The noise depends on the seed and on the whole batch, as in the official code.
        """
        del indices
        with isolated(x.device), torch.no_grad():
            attack, finite = self._prepare(model, x, y)
            # With several passes per gradient, one misclassification does not decide the outcome.
            if getattr(attack, "eot_iter", None) == 1:
                add_early_exit(attack, finite)
            x_adv: Tensor = attack.perturb(x.clone(), y.clone())
        return x_adv

    @property
    def maximize(self) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None:
        """The search for iterates of the highest loss, of APGD on cross-entropy alone.

        The other attacks follow several losses, minimize a distance, or end with a success.
        """
        return self._maximize if self.name == "apgd-ce" else None

    def _maximize(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return the iterate of the highest loss for each image; arguments as in `perturb`.

        This is the official code's `best_loss` mode, without early exit. That mode draws from the
        current state of torch's generator; here, it draws the noise of an attack on the whole
        batch.
        """
        del indices
        with isolated(x.device), torch.no_grad():
            attack, _ = self._prepare(model, x, y)
            torch.random.manual_seed(attack.seed)
            x_adv: Tensor = attack.perturb(x.clone(), y.clone(), best_loss=True)
        return x_adv

    def _prepare(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Any, FiniteLogits]:
        """Return the official attack on images `x` with our loop, and the model that it calls."""
        finite = FiniteLogits(model, x, y)
        attack = configure(self, finite, x.device)
        if self.name == "square":
            replace_square_loop(attack, finite)
        elif self.name in ("fab", "fab-t"):
            replace_fab_loop(attack, finite)
        else:
            replace_apgd_loop(attack)
        return attack, finite


def configure(stage: OfficialAttack, model: nn.Module, device: torch.device) -> Any:
    """Return the official attack object of one stage, with the official settings."""
    if stage.threat is None or stage.num_classes is None:
        raise UsageError(f"{stage.name} has no threat model: bind it, or give it to evaluate().")
    constructor = import_package().AutoAttack
    quiet = {"verbose": False} if "verbose" in inspect.signature(constructor).parameters else {}
    ensemble = constructor(
        model,
        norm=stage.threat.norm,
        eps=stage.threat.eps,
        seed=stage.seed or 0,
        version=stage.version,
        device=device,
        **quiet,
    )
    num_targets = min(TARGET_CLASSES, stage.num_classes - 1)
    ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = num_targets
    # Without a logger the official checks issue Python warnings, which `isolated` collects.
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
    """Return the attacks that can run with `num_classes` classes, and why the others cannot.

    With two classes FAB has a single target class, so its untargeted form replaces FAB-T.
    """
    runnable: list[str] = []
    left_out: list[str] = []
    for name in names:
        min_classes = MIN_CLASSES.get(name, 2)
        if num_classes >= min_classes:
            runnable.append(name)
            continue
        is_replaced = name == "fab-t" and "fab" not in names
        if is_replaced:
            runnable.append("fab")
        left_out.append(
            f"{name} was skipped: it needs at least {min_classes} classes, "
            f"but the model has {num_classes}"
            + ("; untargeted fab ran instead." if is_replaced else ".")
        )
    return runnable, left_out


def check_dynamic(model: nn.Module, x: Tensor) -> None:
    """Issue a ReliabilityWarning if the forward pass of a model on `x` computes gradients.

    `reliability_checks` has no equivalent of this official check.
    """
    checks = import_module(f"{import_package().__name__}.checks")
    with isolated(x.device), torch.no_grad():
        checks.check_dynamic(model, x)


def review_square(accuracies: Mapping[str, float]) -> None:
    """Issue a ReliabilityWarning if Square succeeds where the white-box attacks failed.

    `accuracies` maps "clean" and each stage, in order, to the accuracy after it, in [0, 1].
    """
    checks = import_module(f"{import_package().__name__}.checks")
    with isolated(torch.device("cpu")):
        checks.check_square_sr(dict(accuracies))
