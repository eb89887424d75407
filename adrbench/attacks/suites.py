"""Suites: named sequences of attacks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from adrbench.attacks.description import describe_stage
from adrbench.attacks.pgd import LabelLoss
from adrbench.attacks.stages import (
    Stage,
    bind_stage,
    find_inspections,
    find_loss,
    find_reviews,
    is_stage,
)
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.printable import is_printable


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Attacks that run in order, each on the images that the previous ones did not fool.

    `parameters` are plain values that identify the attacks in records, together with the user's
    code behind them; by default, they are descriptions of the stages (see `Stage`). `left_out` has
    one sentence for each attack that could not run.

    Raises:
        UsageError: for a stage without a name or `perturb`, two stages with the same name, or a
            name that cannot be printed.

    Example:
        >>> from adrbench import Suite
        >>> from adrbench.attacks import PGD
        >>> suite = Suite(name="two losses", stages=[PGD(), PGD(loss="margin")])
        >>> [stage.name for stage in suite.stages]
        ['pgd-20', 'pgd-20-margin']

    """

    name: str
    stages: Sequence[Stage]
    parameters: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        for stage in self.stages:
            if not is_stage(stage):
                raise UsageError(
                    f"suite {self.name!r} has the stage {stage!r:.60}, which is not an attack: "
                    "give objects with a name and perturb(model, x, y, indices)."
                )
        for name in (self.name, *(stage.name for stage in self.stages)):
            if not isinstance(name, str) or not name.strip() or not is_printable(name):
                raise UsageError(
                    f"{name!r} is not a valid name for a suite or attack: give a printable string."
                )
        counts = Counter(stage.name for stage in self.stages)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise UsageError(
                f"suite {self.name!r} has two stages called {repeated[0]!r}: give each its own "
                "name."
            )

    def bind(self, threat: ThreatModel, num_classes: int, seed: int) -> "Suite":
        """Return the suite with its stages bound to the threat model, classes and seed."""
        bound = [bind_stage(stage, threat, num_classes, seed) for stage in self.stages]
        return replace(self, stages=bound)

    def describe(self) -> dict[str, Any]:
        """Return the parameters of a bound suite with the code behind its stages, as JSON values.

        Records store them, and two suites of one name with the same ones are the same attack.
        """
        described = {stage.name: describe_stage(stage) for stage in self.stages}
        if self.parameters is None:
            order = [stage.name for stage in self.stages]
            return described | ({"order": order} if len(order) > 1 else {})
        codes = {name: one["code"] for name, one in described.items() if "code" in one}
        return {**self.parameters, **({"code": codes} if codes else {})}

    @property
    def batch_dependent(self) -> bool:
        """Whether the outcomes are reproducible only at the same batch size."""
        return any(getattr(stage, "batch_dependent", False) for stage in self.stages)

    @property
    def for_randomized(self) -> bool:
        """Whether a stage is made for models whose outputs vary from pass to pass."""
        return any(getattr(stage, "for_randomized", False) for stage in self.stages)

    @property
    def loss(self) -> LabelLoss | None:
        """The loss whose gradients the stages rely on, None if they use no gradients."""
        return find_loss(self.stages)

    def inspect(self, model: nn.Module, x: Tensor) -> None:
        """Issue the warnings of the stages about a model, based on a few images (N, C, H, W)."""
        for inspection in find_inspections(self.stages):
            inspection(model, x)

    def review(self, accuracies: Mapping[str, float]) -> None:
        """Issue the warnings of the stages about the accuracy after each stage, "clean" first."""
        for review in find_reviews(self.stages):
            review(accuracies)
