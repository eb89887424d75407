"""The loop of Square has the outcomes of the official one, and makes a device wait once a query."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import square
from adrbench.attacks.autoattack import OfficialAttack, Version
from adrbench.attacks.autoattack_package import isolated
from adrbench.attacks.square import UniformNumbers, replace_square_loop
from adrbench.config.threat import ThreatModel
from attack_loops import (
    CPU,
    Unstable,
    assert_replaces_only,
    assert_same,
    count_per_step,
    make_images,
    make_net,
)

THREATS = {
    "Linf": (ThreatModel(eps=0.004), ThreatModel(eps=0.08)),
    "L2": (ThreatModel(norm="L2", eps=0.02), ThreatModel(norm="L2", eps=0.9)),
}


def assert_same_square(
    model: nn.Module, x: Tensor, y: Tensor, queries: int = 120, **settings: Any
) -> list[int]:
    stage = OfficialAttack("square", num_classes=5, **settings)
    return assert_same(stage, model, x, y, replace_square_loop, n_queries=queries)


@pytest.mark.parametrize("version", ["standard", "plus"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 9)])
def test_examples_and_batches_are_the_official_ones(
    seed: int, n: int, norm: str, version: Version
) -> None:
    net = make_net(3, 16, 16)
    x = make_images(n, 3, 16, 16, seed=seed)
    y = net(x).argmax(1)
    for threat in THREATS[norm]:
        assert_same_square(net, x, y, threat=threat, seed=seed, version=version)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [("Linf", (1, 8, 8)), ("Linf", (1, 16, 10)), ("L2", (1, 8, 8)), ("L2", (2, 10, 11))],
)
def test_images_may_have_other_shapes(norm: str, shape: tuple[int, int, int]) -> None:
    net = make_net(*shape)
    x = make_images(5, *shape, seed=3)
    assert_same_square(net, x, net(x).argmax(1), threat=THREATS[norm][1], seed=3)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_leave_the_batch_as_they_are_fooled(norm: str) -> None:
    """The first, which is misclassified without an attack, before it."""
    net = make_net(3, 16, 16)
    x = make_images(12, 3, 16, 16, seed=4)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    sizes = assert_same_square(net, x, y, threat=THREATS[norm][1], seed=0)
    assert sizes[:2] == [12, 11]
    assert len({*sizes[2:-1]}) > 2


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_batch_that_is_fooled_at_the_start_needs_no_query(norm: str) -> None:
    """The passes are those before, on and after the first candidates."""
    x = make_images(3, 3, 16, 16, seed=5)

    class Fragile(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            is_clean = (images == x).flatten(1).all(1)
            return torch.stack([is_clean.float(), torch.full((3,), 0.5)], dim=1)

    sizes = assert_same_square(Fragile(), x, torch.zeros(3).long(), threat=THREATS[norm][0], seed=1)
    assert sizes == [3, 3, 3]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_logits_that_are_not_finite_fool_their_image_alone(norm: str, value: float) -> None:
    net = Unstable(make_net(3, 16, 16), value)
    x = make_images(9, 3, 16, 16, seed=6)
    sizes = assert_same_square(net, x, net.model(x).argmax(1), threat=THREATS[norm][1], seed=1)
    assert len(set(sizes)) > 2


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_outcomes_do_not_depend_on_how_many_numbers_are_drawn_at_once(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(square, "BLOCK", 7)
    net = make_net(3, 16, 16)
    x = make_images(4, 3, 16, 16, seed=7)
    assert_same_square(net, x, net(x).argmax(1), threat=THREATS[norm][1], seed=2, queries=60)


def test_numbers_are_those_of_single_draws() -> None:
    with isolated(CPU):
        torch.manual_seed(5)
        expected = [torch.rand(count) for count in (1, 2, 70_000, 3, 4)]
        torch.manual_seed(5)
        numbers = UniformNumbers(CPU)
        assert torch.equal(numbers.take(1), expected[0])
        limits = torch.tensor([9.0, 0.0])
        assert numbers.take_integers(9, 0) == tuple((limits * expected[1]).long().tolist())
        signs = numbers.take_signs(7, 10_000)
        assert torch.equal(signs, (2 * expected[2] - 1).sign().view(7, 10_000))
        assert torch.equal(numbers.take(7), torch.cat(expected[3:]))


def test_the_loop_replaces_only_the_version_that_it_reproduces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = OfficialAttack("square", threat=ThreatModel(eps=0.1), num_classes=5, seed=0)
    assert_replaces_only(square, stage, replace_square_loop, monkeypatch)


@pytest.mark.parametrize(
    ("norm", "official", "ours"),
    [("Linf", (71, 7, 4), (14, 1, 0)), ("L2", (221, 30, 7), (50, 1, 0))],
)
def test_launches_waits_and_transfers_of_a_query(
    norm: str, official: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    stage = OfficialAttack("square", threat=THREATS[norm][0], num_classes=5, seed=0)
    assert count_per_step(stage, None, "n_queries", 60, 80) == official
    assert count_per_step(stage, replace_square_loop, "n_queries", 60, 80) == ours
