"""The official AutoAttack, run by its own package: the whole suite or one attack."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from adrbench.config.threat import ThreatModel
from adrbench.models.architectures import build_model

STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
WHOLE = "autoattack"
#: Weights in the package: an undefended ResNet-18 for CIFAR-10, without normalization.
WEIGHTS = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"


def load_undefended() -> nn.Module:
    """Return the undefended ResNet-18 of the package, in eval mode, on the CPU."""
    model = build_model("resnet18", num_classes=10)
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    constants = {name: value for name, value in model.state_dict().items() if name not in state}
    assert constants.keys() <= {"mean", "std"}, constants.keys()
    model.load_state_dict(state | constants)
    return model.eval()


def evaluate_officially(
    model: nn.Module, x: Tensor, y: Tensor, name: str, *, threat: ThreatModel, batch_size: int
) -> Tensor:
    """Attack images (N, C, H, W) with the package's own loop; return which are robust, (N,) bool.

    A single attack has the hyperparameters of the standard version; `version="custom"` would give
    APGD five restarts instead of one.
    """
    ensemble = pyautoattack.AutoAttack(
        model, norm=threat.norm, eps=threat.eps, seed=0, version="standard", device=x.device
    )
    if name != WHOLE:
        ensemble.attacks_to_run = [name]
    _, predicted = ensemble.run_standard_evaluation(x, y, batch_size=batch_size)
    robust: Tensor = predicted == y
    return robust.cpu()


@contextmanager
def shortened(share: float) -> Iterator[None]:
    """Give AutoAttacks that are constructed meanwhile `share` of their iterations and queries.

    This patches the package's constructor, from which adrbench takes its attacks too, so it
    shortens both sides alike. Nested shares multiply.
    """
    constructor = pyautoattack.AutoAttack.__init__

    @functools.wraps(constructor)
    def construct(ensemble: Any, *arguments: Any, **named: Any) -> None:
        constructor(ensemble, *arguments, **named)
        for attack in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
            attack.n_iter = max(1, round(attack.n_iter * share))
        ensemble.square.n_queries = max(1, round(ensemble.square.n_queries * share))

    pyautoattack.AutoAttack.__init__ = construct
    try:
        yield
    finally:
        pyautoattack.AutoAttack.__init__ = constructor
