"""A frozen form that is used for changing weights: as if it was made anew for each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.evaluation.evaluate import evaluate
from adrbench.models import refill
from adrbench.models.frozen import freeze
from adrbench.models.graphed import GraphedModel
from adrbench.models.refill import RefillingFreezer
from adrbench.runtime.arithmetic import full_precision
from logs import logged
from tiny import batch_norms, build_trained, make_images

ARCHS = ("small-cnn", "resnet18", "preact-resnet18", "wrn-10-1")


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def change(model: nn.Module, seed: int = 1) -> None:
    """Change all parameters and running statistics, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        noise = torch.randn(value.shape, generator=generator)
        value.mul_(1 + 0.1 * noise.to(value))
    for layer in batch_norms(model):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean += 0.1
        layer.running_var *= 1.1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Return the models that are frozen anew."""
    models: list[nn.Module] = []

    def noted(model: nn.Module, x: Tensor, formats: tuple[torch.memory_format, ...]) -> object:
        models.append(model)
        return freeze(model, x, formats)

    monkeypatch.setattr(refill, "freeze", noted)
    return models


@pytest.mark.parametrize("arch", ARCHS)
def test_a_refilled_form_is_bitwise_that_of_a_new_one(arch: str, made: list[nn.Module]) -> None:
    model, other, x = build_trained(arch).eval(), build_trained(arch).eval(), images()
    freezer = RefillingFreezer()
    form = freezer.freeze(model, x).model
    addresses = [value.data_ptr() for value in form.state_dict().values()]
    change(model)
    change(other, seed=2)
    for changed in (model, other, model):
        frozen, expected = freezer.freeze(changed, x), freeze(changed, x)
        assert frozen.model is form
        assert frozen.folded
        assert frozen.memory_format == expected.memory_format
        with torch.no_grad():
            assert torch.equal(form(x), expected.model(x))
    assert made == [model]
    assert [value.data_ptr() for value in form.state_dict().values()] == addresses


class Branching(nn.Module):
    """Negates its logits where a weight is negative: a trace has the branch of its time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_trained("small-cnn")
        self.register_buffer("sign", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits if self.is_positive else -logits

    @property
    def is_positive(self) -> bool:
        return bool(self.get_buffer("sign") > 0)


class Gated(nn.Module):
    """Cannot be traced, as it branches on pixels, so its form is a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_trained("small-cnn")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits if x.mean() > 0 else -logits


class Scaled(nn.Module):
    """Scales its logits by a plain number, which is no tensor to copy."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_trained("small-cnn")
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x) * self.scale
        return logits


def turn_negative(model: nn.Module) -> None:
    model.get_buffer("sign").neg_()


def double_the_scale(model: nn.Module) -> None:
    assert isinstance(model, Scaled)
    model.scale *= 2


@pytest.mark.parametrize(
    ("make", "change_model", "is_made_anew"),
    [
        (Branching, turn_negative, True),
        (Branching, change, False),
        (Scaled, double_the_scale, True),
        (Gated, change, False),
    ],
)
def test_a_form_is_used_again_only_where_it_is_the_model(
    make: Callable[[], nn.Module],
    change_model: Callable[[nn.Module], None],
    is_made_anew: bool,
    made: list[nn.Module],
) -> None:
    model, x = make().eval(), images()
    freezer = RefillingFreezer()
    freezer.freeze(model, x)
    for _ in range(2):
        change_model(model)
        with torch.no_grad():
            torch.testing.assert_close(
                freezer.freeze(model, x).model(x), model(x), rtol=1e-4, atol=1e-4
            )
    assert len(made) == (3 if is_made_anew else 1)


def test_weights_that_are_not_finite_are_attacked_as_they_are() -> None:
    model, x = build_trained("small-cnn").eval(), images()
    freezer = RefillingFreezer()
    freezer.freeze(model, x)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    assert freezer.freeze(model, x).model is model


def test_images_of_another_shape_get_a_form_of_their_own(made: list[nn.Module]) -> None:
    model = build_trained("small-cnn").eval()
    freezer = RefillingFreezer()
    for n in (4, 4, 3):
        freezer.freeze(model, images(n))
    assert made == [model, model]


def test_the_graphs_of_a_form_are_made_once() -> None:
    graphed: list[nn.Module] = []

    def note(model: nn.Module, x: Tensor) -> nn.Module:
        graphed.append(nn.Sequential(model))
        return graphed[-1]

    model, x = build_trained("wrn-10-1").eval(), images()
    freezer = RefillingFreezer(note)
    for seed in range(3):
        change(model, seed)
        assert freezer.freeze(model, x).model is graphed[0]
    assert len(graphed) == 1


@pytest.mark.gpu
@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("arch", ["small-cnn", "resnet18"])
def test_graphs_on_a_gpu_follow_the_weights(arch: str) -> None:
    model, x = build_trained(arch).cuda().eval(), images(40).cuda()
    freezer, seen = RefillingFreezer(), list[GraphedModel]()
    with full_precision():
        for seed in range(3):
            change(model, seed)
            form = freezer.freeze(model, x).model
            assert isinstance(form, GraphedModel)
            seen.append(form)
            for n in (40, 7):
                with torch.no_grad():
                    expected = freeze(model, x).model(x[:n])
                    torch.testing.assert_close(form(x[:n]), expected, rtol=1e-4, atol=1e-4)
    assert seen == [seen[0]] * 3
    assert len(seen[0].passes) == 2


@pytest.mark.gpu
def test_an_evaluation_on_a_gpu_has_the_outcomes_of_plain_passes() -> None:
    images = make_images(60, size=8).to("cuda")
    threat = ThreatModel(eps=0.03)
    suite = build_suite(AttackConfig(suite="pgd-5", batch_size=25), threat, 3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(8 * 36, 3)).cuda().eval()
    freezer = RefillingFreezer()
    with logged() as messages:
        for seed in range(3):
            change(model, seed)
            with_graphs, without = (
                evaluate(model, images, suite, threat, batch_size=25, freezer=one)
                for one in (freezer, None)
            )
            assert (with_graphs.robust != without.robust).sum() <= 1, "rounding may change one"
    assert messages == []
