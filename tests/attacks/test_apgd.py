"""The loop of APGD has the outcomes of the official one, and does not make a device wait."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import apgd
from adrbench.attacks.apgd import replace_apgd_loop
from adrbench.attacks.autoattack import OfficialAttack, Version
from adrbench.attacks.early_exit import add_early_exit
from adrbench.attacks.finite_logits import FiniteLogits
from adrbench.config.threat import ThreatModel
from attack_loops import (
    Unstable,
    assert_replaces_only,
    assert_same,
    attack,
    count_per_step,
    make_images,
    make_net,
)

THREATS = {
    "Linf": (ThreatModel(eps=0.004), ThreatModel(eps=0.05)),
    "L2": (ThreatModel(norm="L2", eps=0.1), ThreatModel(norm="L2", eps=0.6)),
}
NAMES = ("apgd-ce", "apgd-dlr", "apgd-t")


def make_stage(
    name: str, threat: ThreatModel, seed: int = 0, version: Version = "standard"
) -> OfficialAttack:
    return OfficialAttack(name, threat=threat, num_classes=5, seed=seed, version=version)


def replace_loop(official: Any, model: FiniteLogits) -> None:
    replace_apgd_loop(official)


def exit_early(official: Any, model: FiniteLogits) -> None:
    add_early_exit(official, model)


def replace_and_exit_early(official: Any, model: FiniteLogits) -> None:
    replace_apgd_loop(official)
    add_early_exit(official, model)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 7)])
def test_examples_and_batches_are_the_official_ones(
    seed: int, n: int, name: str, norm: str
) -> None:
    """Attacks without targets have two restarts."""
    net = make_net(3, 16, 16)
    x = make_images(n, 3, 16, 16, seed=seed)
    y = net(x).argmax(1)
    for threat in THREATS[norm]:
        settings = {"n_iter": 50} if name == "apgd-t" else {"n_restarts": 2}
        assert_same(make_stage(name, threat, seed), net, x, y, replace_loop, **settings)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr"])
def test_means_over_several_passes_are_the_official_ones(name: str, norm: str) -> None:
    net = make_net(3, 16, 16)
    x = make_images(4, 3, 16, 16, seed=3)
    stage = make_stage(name, THREATS[norm][0], version="rand")
    sizes = assert_same(stage, net, x, net(x).argmax(1), replace_loop, eot_iter=3)
    assert len(sizes) == 1 + 101 * 3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", NAMES)
def test_some_images_are_fooled_and_some_are_not(name: str, norm: str) -> None:
    """With and without early exit; the first is misclassified without an attack."""
    settings = {"n_iter": 50}
    net = make_net(3, 16, 16)
    x = make_images(12, 3, 16, 16, seed=4)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    stage = make_stage(name, THREATS[norm][0])
    assert_same(stage, net, x, y, replace_loop, **settings)
    with torch.no_grad():
        survivors = int(
            (net(attack(stage, net, x, y, replace_loop, **settings)).argmax(1) == y).sum()
        )
    assert 0 < survivors < 11

    theirs, ours = (
        attack(stage, net, x, y, replace, **settings)
        for replace in (exit_early, replace_and_exit_early)
    )
    assert torch.equal(theirs, ours)


@pytest.mark.parametrize("name", NAMES)
def test_images_need_not_be_square(name: str) -> None:
    net = make_net(1, 8, 11)
    x = make_images(5, 1, 8, 11, seed=3)
    assert_same(make_stage(name, THREATS["L2"][1]), net, x, net(x).argmax(1), replace_loop)


@pytest.mark.filterwarnings("ignore:some images had a gradient of exactly zero")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", NAMES)
def test_logits_that_are_not_finite_fool_their_image_alone(name: str, value: float) -> None:
    net = Unstable(make_net(3, 16, 16), value)
    x = make_images(9, 3, 16, 16, seed=6)
    y = net.model(x).argmax(1)
    assert_same(make_stage(name, THREATS["Linf"][0]), net, x, y, replace_loop, n_iter=40)


class Flat(nn.Module):
    """Logits rounded to steps, so that gradients vanish."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :5] + torch.linspace(1, 0, 5)


@pytest.mark.parametrize("name", ["apgd-dlr", "apgd-t"])
def test_vanishing_gradients_are_a_warning_as_in_the_official_loop(name: str) -> None:
    x, y = make_images(3, 3, 4, 4, seed=0), torch.zeros(3, dtype=torch.int64)
    with pytest.warns(UserWarning, match="gradient of exactly zero"):
        attack(make_stage(name, THREATS["Linf"][0]), Flat(), x, y, replace_loop, n_iter=2)


def test_the_loop_replaces_only_the_version_that_it_reproduces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_replaces_only(apgd, make_stage("apgd-ce", THREATS["Linf"][0]), replace_loop, monkeypatch)


@pytest.mark.parametrize(
    ("name", "norm", "official", "ours"),
    [
        ("apgd-ce", "Linf", (69.7, 3.2, 0), (32.3, 1, 0)),
        ("apgd-ce", "L2", (95.7, 3.2, 0), (55.3, 1, 0)),
        ("apgd-t", "Linf", (97.7, 3.2, 1), (58.3, 1, 0)),
        ("apgd-t", "L2", (124.3, 4.3, 1), (81.3, 1, 0)),
    ],
)
def test_launches_waits_and_transfers_of_an_iteration(
    name: str, norm: str, official: tuple[float, ...], ours: tuple[float, ...]
) -> None:
    """With early exit, in a mean over iterations of which one in ten checks the step size."""
    stage = make_stage(name, THREATS[norm][0])
    for replace, expected in ((exit_early, official), (replace_and_exit_early, ours)):
        counts = count_per_step(stage, replace, "n_iter", 60, 90)
        targets = 4 if name == "apgd-t" else 1
        assert [round(count / targets, 1) for count in counts] == [*expected]
