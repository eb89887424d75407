"""The loop of Square has the outcomes of the official one, and makes a device wait once a query."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import square
from adrbench.attacks.autoattack import OfficialAttack, Version, configure
from adrbench.attacks.autoattack_package import is_known_source, isolated
from adrbench.attacks.finite_logits import FiniteLogits
from adrbench.attacks.square import FINGERPRINT, MODULES, UniformNumbers, replace_square_loop
from adrbench.config.threat import ThreatModel
from device_work import DeviceWork, LinearUncounted, per_step

CPU = torch.device("cpu")


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


def attack(
    model: nn.Module, x: Tensor, y: Tensor, *, ours: bool, queries: int, **settings: Any
) -> Tensor:
    """Return what the official object returns, with its own loop or with ours."""
    stage = OfficialAttack("square", num_classes=5, **settings)
    finite = FiniteLogits(model, x, y)
    with isolated(CPU), torch.no_grad():
        official = configure(stage, finite, CPU)
        official.n_queries = queries
        if ours:
            replace_square_loop(official, finite)
        x_adv: Tensor = official.perturb(x.clone(), y.clone())
    return x_adv


def assert_same(
    model: nn.Module, x: Tensor, y: Tensor, *, queries: int = 120, **settings: Any
) -> list[int]:
    """Compare the examples and all batches of both loops; return the sizes of the batches."""
    recordings = Recording(model), Recording(model)
    theirs, ours = (
        attack(recording, x, y, ours=is_ours, queries=queries, **settings)
        for recording, is_ours in zip(recordings, (False, True), strict=True)
    )
    assert torch.equal(theirs, ours)
    batches, others = recordings[0].batches, recordings[1].batches
    assert len(batches) == len(others)
    assert all(torch.equal(one, other) for one, other in zip(batches, others, strict=True))
    return [len(batch) for batch in batches]


THREATS = {
    "Linf": (ThreatModel(eps=0.004), ThreatModel(eps=0.08)),
    "L2": (ThreatModel(norm="L2", eps=0.02), ThreatModel(norm="L2", eps=0.9)),
}


@pytest.mark.parametrize("version", ["standard", "plus"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 9)])
def test_examples_and_batches_are_the_official_ones(
    seed: int, n: int, norm: str, version: Version
) -> None:
    net = make_net(3, 16, 16)
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    y = net(x).argmax(1)
    for threat in THREATS[norm]:
        assert_same(net, x, y, threat=threat, seed=seed, version=version)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [("Linf", (1, 8, 8)), ("Linf", (1, 16, 10)), ("L2", (1, 8, 8)), ("L2", (2, 10, 11))],
)
def test_images_may_have_other_shapes(norm: str, shape: tuple[int, int, int]) -> None:
    net = make_net(*shape)
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(3))
    assert_same(net, x, net(x).argmax(1), threat=THREATS[norm][1], seed=3)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_leave_the_batch_as_they_are_fooled(norm: str) -> None:
    """The first, which is misclassified without an attack, before it."""
    net = make_net(3, 16, 16)
    x = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    sizes = assert_same(net, x, y, threat=THREATS[norm][1], seed=0)
    assert sizes[:2] == [12, 11]
    assert len({*sizes[2:-1]}) > 2


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_batch_that_is_fooled_at_the_start_needs_no_query(norm: str) -> None:
    """The passes are those before, on and after the first candidates."""
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))

    class Fragile(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            is_clean = (images == x).flatten(1).all(1)
            return torch.stack([is_clean.float(), torch.full((3,), 0.5)], dim=1)

    sizes = assert_same(Fragile(), x, torch.zeros(3).long(), threat=THREATS[norm][0], seed=1)
    assert sizes == [3, 3, 3]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_logits_that_are_not_finite_fool_their_image_alone(norm: str, value: float) -> None:
    net = Unstable(make_net(3, 16, 16), value)
    x = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    sizes = assert_same(net, x, net.model(x).argmax(1), threat=THREATS[norm][1], seed=1)
    assert len(set(sizes)) > 2


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_outcomes_do_not_depend_on_how_many_numbers_are_drawn_at_once(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(square, "BLOCK", 7)
    net = make_net(3, 16, 16)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    assert_same(net, x, net(x).argmax(1), threat=THREATS[norm][1], seed=2, queries=60)


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
    assert is_known_source(MODULES, FINGERPRINT), "compare the new version's loop with ours"
    monkeypatch.setattr(square, "FINGERPRINT", "another")
    stage = OfficialAttack("square", threat=ThreatModel(eps=0.1), num_classes=5, seed=0)
    model = LinearUncounted(5, 4, lead=1)
    official = configure(stage, model, CPU)
    replace_square_loop(official, FiniteLogits(model, torch.zeros(0), torch.zeros(0)))
    assert official.attack_single_run.__func__ is type(official).attack_single_run


@pytest.mark.parametrize(
    ("norm", "official", "ours"),
    [("Linf", (71, 7, 4), (15, 1, 0)), ("L2", (221, 30, 7), (51, 1, 0))],
)
def test_launches_waits_and_transfers_of_a_query(
    norm: str, official: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    """While no image is fooled, with images whose finite logits are checked in every pass."""

    def count(queries: int, *, is_ours: bool) -> DeviceWork:
        model = LinearUncounted(5, 3 * 16 * 16, lead=1e4)
        x, y = torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
        threat, work = THREATS[norm][0], DeviceWork()
        with work:
            attack(model, x, y, ours=is_ours, queries=queries, threat=threat, seed=0)
        return work

    for is_ours, expected in ((False, official), (True, ours)):
        few, many = count(60, is_ours=is_ours), count(80, is_ours=is_ours)
        assert per_step(few, many, 20) == expected
