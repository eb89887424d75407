"""The loop of FAB has the outcomes of the official one, and makes a device wait rarely."""

import pytest
import torch
from pyautoattack import fab_projections as official_projections
from torch import Tensor

from adrbench.attacks import fab
from adrbench.attacks.autoattack import OfficialAttack, Version
from adrbench.attacks.fab import replace_fab_loop
from adrbench.attacks.fab_projections import project_l2, project_linf
from adrbench.config.threat import ThreatModel
from attack_loops import (
    Unstable,
    assert_replaces_only,
    assert_same,
    attack,
    count_per_step,
    make_images,
    make_net,
    record,
)

THREATS = {
    "Linf": (ThreatModel(eps=0.01), ThreatModel(eps=0.08)),
    "L2": (ThreatModel(norm="L2", eps=0.1), ThreatModel(norm="L2", eps=0.9)),
}
#: The iterations of a run; some more than are checked together.
STEPS = 25


def make_stage(
    name: str, threat: ThreatModel, seed: int = 0, version: Version = "standard"
) -> OfficialAttack:
    return OfficialAttack(name, threat=threat, num_classes=5, seed=seed, version=version)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["fab-t", "fab"])
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 7)])
def test_examples_and_batches_are_the_official_ones(
    seed: int, n: int, name: str, norm: str
) -> None:
    """Untargeted FAB has random starts, five as in the version "plus"."""
    net = make_net(3, 16, 16)
    x = make_images(n, 3, 16, 16, seed=seed)
    y = net(x).argmax(1)
    for threat in THREATS[norm]:
        stage = make_stage(name, threat, seed, "plus" if name == "fab" else "standard")
        assert_same(stage, net, x, y, replace_fab_loop, n_iter=STEPS)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_some_images_are_fooled_and_some_are_not(norm: str) -> None:
    """The first is misclassified without an attack."""
    net = make_net(3, 16, 16)
    x = make_images(12, 3, 16, 16, seed=4)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    stage = make_stage("fab-t", THREATS[norm][0])
    sizes = assert_same(stage, net, x, y, replace_fab_loop, n_iter=STEPS)
    assert len({*sizes}) > 2
    with torch.no_grad():
        x_adv = attack(stage, net, x, y, replace_fab_loop, n_iter=STEPS)
        survivors = int((net(x_adv).argmax(1) == y).sum())
    assert 0 < survivors < 11


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_need_not_be_square(norm: str) -> None:
    net = make_net(1, 8, 11)
    x = make_images(5, 1, 8, 11, seed=3)
    stage = make_stage("fab-t", THREATS[norm][0])
    assert_same(stage, net, x, net(x).argmax(1), replace_fab_loop, n_iter=STEPS)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_examples_are_the_official_ones_where_logits_are_not_finite(
    norm: str, value: float
) -> None:
    """Iterations since the last check are repeated, once in the run of a target."""
    net = Unstable(make_net(3, 16, 16), value)
    x = make_images(5, 3, 16, 16, seed=3)
    y = net.model(x).argmax(1)
    stage = make_stage("fab-t", THREATS[norm][0])
    theirs, expected = record(stage, net, x, y, None, n_iter=STEPS)
    ours, batches = record(stage, net, x, y, replace_fab_loop, n_iter=STEPS)
    assert torch.equal(theirs, ours)
    assert 0 < len(batches) - len(expected) <= 4 * 2 * fab.CHECKED_TOGETHER


def make_hyperplanes(rows: int, pixels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points, w and b, with ties, pixels at the bounds, tiny and zero weights, and NaN."""
    torch.manual_seed(seed)
    points, w = torch.rand(rows, pixels), torch.randn(rows, pixels)
    points[::3] = (4 * points[::3]).round() / 4
    w[::2, ::3] = 0
    w[1::4] = (2 * w[1::4]).round()
    w[2] *= 1e-8
    w[3] = 0
    distance = torch.tensor([0, 1e-5, 1e-3, 0.1, 0.5]).repeat(rows)[:rows]
    b = (w * points).sum(1) + torch.randn(rows) * distance * w.abs().sum(1)
    w[4, 1], w[5, 2], b[6] = torch.nan, torch.inf, torch.nan
    return points, w, b


@pytest.mark.parametrize("pixels", [3, 16, 75, 3072])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_are_the_official_ones(norm: str, pixels: int) -> None:
    ours = {"linf": project_linf, "l2": project_l2}[norm]
    theirs = getattr(official_projections, f"projection_{norm}")
    for seed in range(10):
        planes = make_hyperplanes(40, pixels, seed)
        torch.testing.assert_close(ours(*planes), theirs(*planes), rtol=0, atol=0, equal_nan=True)


def test_a_projection_reaches_the_hyperplane() -> None:
    """From (0.5, 0.5) to x + y = 1.2, and to 0.8 x + 0.6 y = 0.9, two lines.

    In the maximum norm, both coordinates move by 0.1. In the L2 norm, the point moves by 0.2 along
    the normal, (0.8, 0.6).
    """
    point = torch.tensor([[0.5, 0.5]])
    step = project_linf(point, torch.tensor([[1.0, 1.0]]), torch.tensor([1.2]))
    torch.testing.assert_close(step, torch.tensor([[0.1, 0.1]]))
    step = project_l2(point, torch.tensor([[0.8, 0.6]]), torch.tensor([0.9]))
    torch.testing.assert_close(step, torch.tensor([[0.16, 0.12]]))


def test_the_loop_replaces_only_the_version_that_it_reproduces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_replaces_only(
        fab, make_stage("fab-t", THREATS["Linf"][0]), replace_fab_loop, monkeypatch
    )


@pytest.mark.parametrize(
    ("name", "norm", "official", "ours"),
    [
        ("fab-t", "Linf", (333, 19, 1), (123, 0.1, 0)),
        ("fab-t", "L2", (289, 21, 1), (151, 0.1, 0)),
        ("fab", "Linf", (350, 19, 3), (131, 0.1, 0)),
        ("fab", "L2", (306, 21, 3), (160, 0.1, 0)),
    ],
)
def test_launches_waits_and_transfers_of_an_iteration(
    name: str, norm: str, official: tuple[float, ...], ours: tuple[float, ...]
) -> None:
    """Examples are found in every iteration, outside the ball, with 5 classes and 768 pixels."""
    stage = make_stage(name, THREATS[norm][0])
    settings = ("n_iter", 20, 40)
    counts = [count_per_step(stage, replace, *settings) for replace in (None, replace_fab_loop)]
    targets = 4 if name == "fab-t" else 1
    per_target = [tuple(count / targets for count in one) for one in counts]
    assert per_target == [official, ours]
