"""Loops of official attacks and those of ours that replace them, on the same images."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.autoattack import OfficialAttack, configure
from adrbench.attacks.autoattack_package import is_known_source, isolated
from adrbench.attacks.finite_logits import FiniteLogits
from device_work import DeviceWork, LinearUncounted, per_step

CPU = torch.device("cpu")
#: What makes an official attack object on a model run a loop of ours.
Replace = Callable[[Any, FiniteLogits], None]


class Recording(nn.Module):
    """Keeps a copy of every batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(x.clone())
        logits: Tensor = self.model(x)
        return logits


class Unstable(nn.Module):
    """Logits of `model`, of which one is not finite for about every fiftieth image."""

    def __init__(self, model: nn.Module, value: float) -> None:
        super().__init__()
        self.model = model
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        is_bad = (1e4 * x.flatten(1).mean(1)).frac() < 0.02
        spoiled = logits.clone()
        spoiled[:, 1] = self.value
        return torch.where(is_bad[:, None], spoiled, logits)


def make_net(channels: int, height: int, width: int) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    net = nn.Sequential(*layers)
    net(torch.zeros(1, channels, height, width))
    return net.requires_grad_(False)


def make_images(n: int, *shape: int, seed: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def attack(
    stage: OfficialAttack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    replace: Replace | None,
    **settings: Any,
) -> Tensor:
    """Return what the official object with these settings returns, with its own loop if None."""
    finite = FiniteLogits(model, x, y)
    with isolated(CPU), torch.no_grad():
        official = configure(stage, finite, CPU)
        for name, value in settings.items():
            setattr(official, name, value)
        if replace is not None:
            replace(official, finite)
        x_adv: Tensor = official.perturb(x.clone(), y.clone())
    return x_adv


def record(
    stage: OfficialAttack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    replace: Replace | None,
    **settings: Any,
) -> tuple[Tensor, list[Tensor]]:
    """Return what `attack` returns, and the batches that the model received."""
    recording = Recording(model)
    x_adv = attack(stage, recording, x, y, replace, **settings)
    return x_adv, recording.batches


def assert_same(
    stage: OfficialAttack, model: nn.Module, x: Tensor, y: Tensor, replace: Replace, **settings: Any
) -> list[int]:
    """Compare the examples and all batches of both loops; return the sizes of the batches."""
    theirs, expected = record(stage, model, x, y, None, **settings)
    ours, batches = record(stage, model, x, y, replace, **settings)
    assert torch.equal(theirs, ours)
    assert len(expected) == len(batches)
    assert all(torch.equal(one, other) for one, other in zip(expected, batches, strict=True))
    return [len(batch) for batch in batches]


def assert_replaces_only(
    module: ModuleType, stage: OfficialAttack, replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that the loop of `module` is for the installed package, and for no other version."""
    is_known = is_known_source(module.MODULES, module.FINGERPRINT)
    assert is_known, "compare the new version's loop with ours"
    monkeypatch.setattr(module, "FINGERPRINT", "another")
    model = LinearUncounted(5, 4, lead=1)
    official = configure(stage, model, CPU)
    replace(official, FiniteLogits(model, torch.zeros(0), torch.zeros(0)))
    assert official.attack_single_run.__func__ is type(official).attack_single_run


def count_per_step(
    stage: OfficialAttack, replace: Replace | None, setting: str, few: int, many: int
) -> tuple[float, ...]:
    """Return the launches, waits and transfers per step, while no image is fooled.

    `setting` is the number of steps. A step includes the check that logits are finite. The boundary
    is at distances of 0.06 (Linf) and 1.3 (L2).
    """
    work = DeviceWork(), DeviceWork()
    for steps, counter in zip((few, many), work, strict=True):
        model = LinearUncounted(5, 3 * 16 * 16, lead=50)
        x, y = make_images(4, 3, 16, 16, seed=0), torch.zeros(4, dtype=torch.int64)
        with counter:
            attack(stage, model, x, y, replace, **{setting: steps})
    return per_step(*work, many - few)
