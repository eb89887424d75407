"""Models in float16 and bfloat16: near float32 at any size of gradients, and the fallback to it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.stages import Stage
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import to_float
from adrbench.evaluation.judge import judge
from adrbench.models.frozen import freeze, logits_and_gradient, relative_difference
from adrbench.models.graphed import GraphedModel
from adrbench.models.reduced import (
    Fallback,
    GradientScaling,
    find_last_linear,
    find_scale,
    reduce_precision,
)
from adrbench.runtime.arithmetic import (
    GRADIENT_TOLERANCES,
    TOLERANCES,
    Arithmetic,
    full_precision,
    searching_in,
)
from tiny import build_trained, make_images, train_small_net

ARCHS = ("small-cnn", "preact-resnet18", "wrn-10-1")
N = 4


def batch(n: int = N, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def frozen() -> nn.Module:
    """Return a small frozen model."""
    return freeze(build_trained("small-cnn"), batch()).model


@pytest.fixture(scope="module")
def half(frozen: nn.Module) -> GradientScaling:
    """Return the same model in float16."""
    return reduce_precision(frozen, "float16", batch())


def gradient_of(model: nn.Module, x: Tensor, d_logits: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x), x, d_logits)
    return gradient


def random_d_logits(n: int = N) -> Tensor:
    return torch.randn(n, 10, generator=torch.Generator().manual_seed(1))


def relative_errors(found: Tensor, expected: Tensor) -> Tensor:
    """Return the L2 error of each image's gradient, relative to its L2 norm, (N,)."""
    errors: Tensor = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return errors


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("arch", ARCHS)
def test_logits_and_gradients_are_near_those_of_float32(arch: str, name: Arithmetic) -> None:
    x = batch()
    frozen = freeze(build_trained(arch), x).model
    before = copy.deepcopy(frozen.state_dict())
    reduced = reduce_precision(frozen, name, x)
    others = batch(6, seed=1)
    logits, gradient = logits_and_gradient(reduced, others)
    exact_logits, exact_gradient = logits_and_gradient(frozen, others)
    assert logits.dtype == gradient.dtype == torch.float32
    logits_tolerance, gradient_tolerance = TOLERANCES[name], GRADIENT_TOLERANCES[name]
    assert 0 < relative_difference(exact_logits, logits) < logits_tolerance
    assert (gradient - exact_gradient).norm() < gradient_tolerance * exact_gradient.norm()
    assert {p.dtype for p in frozen.parameters()} == {torch.float32}
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    convolutions = [module for module in reduced.modules() if isinstance(module, nn.Conv2d)]
    assert {layer.weight.dtype for layer in convolutions} == {getattr(torch, name)}


def test_the_last_linear_layer_computes_in_float32(frozen: nn.Module, half: nn.Module) -> None:
    found = find_last_linear(frozen, batch())
    assert found is not None
    assert found.out_features == 10
    last = find_last_linear(half.network, batch())  # type: ignore[arg-type]
    assert last is not None
    assert last.weight.dtype == torch.float32
    logits = half(batch())
    assert not torch.equal(logits, logits.half().float())


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e8])
def test_gradients_of_any_size_have_the_same_precision(
    size: float, frozen: nn.Module, half: GradientScaling
) -> None:
    x, d_logits = batch(), size * random_d_logits()
    errors = relative_errors(gradient_of(half, x, d_logits), gradient_of(frozen, x, d_logits))
    assert errors.max() < 0.02
    if size != 1:
        unscaled = gradient_of(half.network, x, d_logits)
        assert not unscaled.isfinite().all() or (unscaled == 0).all()


def test_each_image_has_a_scale_of_its_own(frozen: nn.Module, half: GradientScaling) -> None:
    """In one batch, gradients of 1e8, 1, 1e-12 and 0 do not affect one another."""
    x = batch()
    d_logits = random_d_logits() * torch.tensor([1e8, 1, 1e-12, 0]).view(-1, 1)
    found = gradient_of(half, x, d_logits)
    assert relative_errors(found, gradient_of(frozen, x, d_logits))[:3].max() < 0.02
    assert (found[3] == 0).all()


def test_an_image_whose_logit_gradient_is_not_finite_does_not_affect_others(
    half: GradientScaling,
) -> None:
    d_logits = random_d_logits()
    expected = gradient_of(half, batch(), d_logits)
    d_logits[1, 2] = torch.inf
    found = gradient_of(half, batch(), d_logits)
    assert not found[1].isfinite().all()
    torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]])


@pytest.mark.parametrize(
    ("largest", "scale"),
    [
        (1.0, 2.0**5),  # to 32
        (1.999, 2.0**5),
        (2.0, 2.0**4),
        (-3e8, 2.0**-23),  # 2^28 < 3e8 < 2^29
        (2.0**-40, 2.0**45),
        (2.0**-126, 2.0**126),  # a larger scale has no normal reciprocal
        (2.0**-140, 2.0**126),  # a subnormal number
        (3e38, 2.0**-122),
        (0.0, 1.0),
        (float("inf"), 1.0),
        (float("nan"), 1.0),
    ],
)
def test_scales_are_powers_of_two_by_the_largest_entry(largest: float, scale: float) -> None:
    gradient = torch.tensor([[0.0, largest, 0.0], [1.0, 1.0, 1.0]])
    assert find_scale(gradient).tolist() == [scale, 2.0**5]


def test_scaling_changes_no_bit_of_a_float32_gradient(frozen: nn.Module) -> None:
    x, d_logits = batch(), random_d_logits()
    scaled = GradientScaling(frozen)
    assert torch.equal(scaled(x), frozen(x))
    assert torch.equal(gradient_of(scaled, x, d_logits), gradient_of(frozen, x, d_logits))


def fallback(search: nn.Module, exact: nn.Module) -> nn.Module:
    return Fallback(search, exact)


def alone(search: nn.Module, exact: nn.Module) -> nn.Module:
    return search


@pytest.mark.parametrize("wrap", [alone, fallback])
def test_a_graph_serves_several_backward_passes(
    wrap: Callable[[nn.Module, nn.Module], nn.Module], frozen: nn.Module, half: nn.Module
) -> None:
    model = wrap(half, frozen)
    one, other = batch().requires_grad_(), batch(seed=5).requires_grad_()
    logits, other_logits = model(one), model(other)
    for label in (3, 0):
        for x, output in ((one, logits), (other, other_logits)):
            (found,) = torch.autograd.grad(output[:, label].sum(), x, retain_graph=True)
            d_logits = F.one_hot(torch.full((N,), label), 10).float()
            torch.testing.assert_close(found, gradient_of(half, x.detach(), d_logits))
    with torch.no_grad():
        torch.testing.assert_close(model(one), logits)


def test_gradients_are_zero_where_logits_do_not_depend_on_images() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 10)

    found = gradient_of(GradientScaling(Constant()), batch(), random_d_logits())
    assert (found == 0).all()


class Amplified(nn.Module):
    """A network whose activations, in float16, overflow for images brighter than a half."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 8 * 8, 10)
        self.last = nn.Linear(10, 10)
        with torch.no_grad():
            self.first.weight.fill_(1000)
            self.last.weight.mul_(1e-4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x.flatten(1)))
        return logits


def test_batches_that_overflow_are_repeated_in_float32() -> None:
    torch.manual_seed(0)
    exact = Amplified().eval().requires_grad_(False)
    dark = batch() / 8
    search = reduce_precision(exact, "float16", dark)
    model = Fallback(search, exact)
    x, d_logits = batch(), random_d_logits()
    assert not search(x).isfinite().all()
    assert torch.equal(model(x), exact(x))
    assert model.repeated == 1
    assert torch.equal(gradient_of(model, x, d_logits), gradient_of(exact, x, d_logits))
    assert model.repeated == 2
    assert torch.equal(model(dark), search(dark))
    assert model.repeated == 2


class Overflowing(nn.Module):
    """Has the logits of `network`, and a first image gradient of infinity."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(0), torch.inf))  # type: ignore[no-untyped-call]
        logits: Tensor = self.network(x)
        return logits


def test_gradients_that_overflow_are_repeated_in_float32(frozen: nn.Module) -> None:
    model = Fallback(Overflowing(frozen), frozen)
    x = batch().requires_grad_()
    logits = model(x)
    assert torch.equal(logits, frozen(x))
    assert model.repeated == 0
    logits[:, 0] *= 2  # attacks may change logits in place
    for repeated in (1, 2):
        d_logits = repeated * random_d_logits()
        (found,) = torch.autograd.grad(logits, x, d_logits, retain_graph=True)
        d_logits[:, 0] *= 2
        assert torch.equal(found, gradient_of(frozen, x.detach(), d_logits))
        assert model.repeated == repeated


class OwnWeight(nn.Module):
    """Multiplies activations by a weight outside of any layer, which stays in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(192, 10)
        self.weight = nn.Parameter(torch.randn(10, 10))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x.flatten(1)), self.weight)


class Precise(nn.Module):
    """Depends on digits of its inputs that float16 does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(1000 * self.first(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (OwnWeight(), "it cannot compute in float16 (.*dtype.*)"),
        (Precise(), "its logits in float16 differ from those in float32 by .* more than 0.01"),
        (Amplified(), "its logits or gradients in float16 are not finite"),
    ],
)
def test_models_that_cannot_be_reduced_are_refused_with_a_reason(
    model: nn.Module, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        reduce_precision(model.eval().requires_grad_(False), "float16", batch())


@pytest.mark.parametrize("suite", ["pgd-20", "apgd-ce"])
def test_attacks_have_the_outcomes_of_float32(suite: str) -> None:
    images = make_images(40, classes=5, size=8)
    x, y = to_float(images.pixels), images.labels
    exact = freeze(train_small_net(images, classes=5), x).model
    threat = ThreatModel(eps=0.05)
    config = AttackConfig(suite=suite, batch_size=len(x))
    (stage,) = build_suite(config, threat, 5).stages
    survives = survivors(stage, exact, exact, threat, x, y)
    search = Fallback(reduce_precision(exact, "float16", x), exact)
    assert torch.equal(survivors(stage, search, exact, threat, x, y), survives)
    assert 0 < survives.sum() < len(x)


def survivors(
    stage: Stage, search: nn.Module, exact: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor
) -> Tensor:
    x_adv = stage.perturb(search, x, y, torch.arange(len(x), device=x.device))
    return judge(exact, threat, x, x_adv, y, attack=stage.name).survives


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.usefixtures("nothing_logged")
def test_cuda_graphs_replay_reduced_models(name: Arithmetic) -> None:
    x = batch(20).cuda()
    with full_precision():
        for arch in ARCHS:
            exact = freeze(build_trained(arch).cuda(), x).model
            reduced = reduce_precision(exact, name, x)
            graphed = GraphedModel(reduced, x, len(x))
            model = Fallback(graphed, exact)
            sizes = torch.logspace(-12, 8, len(x)).view(-1, 1)
            d_logits = (random_d_logits(len(x)) * sizes).cuda()
            for _ in range(3):
                with searching_in(name):
                    torch.testing.assert_close(model(x), reduced(x), rtol=1e-2, atol=1e-2)
                    found, expected = (gradient_of(one, x, d_logits) for one in (model, reduced))
                assert relative_errors(found, expected).max() < 0.05
            assert graphed.passes
            assert model.repeated == 0
