"""Objectives, weight perturbation and averaging: references, properties, equivalences."""

import copy
import dataclasses
import itertools
import math
import re
import threading
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.components import COMPONENTS, Component
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import BatchNormMode, TrainConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.methods.awp import AWP
from adrbench.methods.build import build_method
from adrbench.methods.ema import EMA
from adrbench.methods.inner_attack import InnerAttack
from adrbench.methods.losses import cross_entropy, divergence, log_softmax
from adrbench.methods.slots import NoAveraging, NoPerturbation
from adrbench.methods.trades import Trades, nearby_start
from adrbench.training.optimizer import build_optimizer
from adrbench.training.step import train_step
from messages import assert_one_line

STEPS = 4
OBJECTIVES = [token for token, one in COMPONENTS.items() if one.slot == "objective"]


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def tiny_batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.rand(6, 1, 4, 4, generator=generator)
    return x, torch.randint(3, (6,), generator=generator)


def tiny_config(method: str, **changes: Any) -> TrainConfig:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    values: dict[str, Any] = {**preset.values, "val_size": 1, "steps": 2, **changes}
    return TrainConfig.of(dataset="digits", arch="small-cnn", method=method, **values)


def batch_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def train_steps(config: TrainConfig) -> tuple[nn.Module, nn.Module | None]:
    model = tiny_model().train()
    slots = build_method(config, model, num_classes=3, total_steps=STEPS)
    optimizer = build_optimizer(config, model)
    for step in range(STEPS):
        x, y = tiny_batch(step)
        noise = slots.objective.draw(x, torch.Generator().manual_seed(step))
        values = {"lr": config.lr, **slots.targets.annealed(step)}
        train_step(model, slots, optimizer, x, y, noise=noise, values=values)
    return model, slots.averaging.model


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for key, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, other.state_dict()[key]), key


METHODS = [
    "+".join([objective, *chosen])
    for objective in OBJECTIVES
    for count in range(4)
    for chosen in itertools.combinations(("adr", "wa", "awp"), count)
]


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=lambda one: one.token)
def test_every_component_has_a_builder(component: Component) -> None:
    module, _, name = component.builder.partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("method", METHODS)
def test_every_combination_trains(method: str) -> None:
    before = tiny_model()
    model, average = train_steps(tiny_config(method))
    for key, value in model.named_parameters():
        assert value.isfinite().all()
        assert not torch.equal(value, before.get_parameter(key)), key
    assert (average is not None) == ("adr" in method or "wa" in method)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_adr_with_lambda_zero_equals_the_plain_objective(objective: str) -> None:
    off = {"interpolation_low": 0.0, "interpolation_high": 0.0}
    with_adr, _ = train_steps(tiny_config(f"{objective}+adr", **off))
    plain, _ = train_steps(tiny_config(objective))
    assert_same_weights(with_adr, plain)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_awp_with_rho_zero_equals_no_perturbation(objective: str) -> None:
    """The second pass uses the same weights, so its gradients equal those of the first."""
    with_awp, _ = train_steps(tiny_config(f"{objective}+awp", awp_rho=0.0))
    plain, _ = train_steps(tiny_config(objective, nesterov=False))
    assert_same_weights(with_awp, plain)


def test_wa_does_not_change_the_student() -> None:
    with_wa, average = train_steps(tiny_config("at+wa"))
    plain, _ = train_steps(tiny_config("at"))
    assert_same_weights(with_wa, plain)
    assert average is not None


def test_one_awp_step_by_hand() -> None:
    """Loss (w - 1)^2 / 2 at w = 3: gradient 2; with rho 0.1, w moves by 0.1 * 3 / 2 * 2 = 0.3.

    The gradient at 3.3 is 2.3, the returned loss is the unperturbed 2, and w is restored to 3.
    """
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 3.0)
    loss = AWP(rho=0.1).backward(model, lambda: (model.weight - 1).square().sum() / 2)
    assert loss.item() == 2.0
    assert model.weight.item() == 3.0
    assert model.weight.grad is not None
    assert model.weight.grad.item() == pytest.approx(2.3, abs=1e-12)


def test_awp_restores_the_weights_bitwise_even_when_the_loss_raises() -> None:
    model = tiny_model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    momenta = model[1].momentum  # type: ignore[index]
    x, y = tiny_batch()
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert not torch.equal(model[0].weight, before["0.weight"])  # type: ignore[index]
            raise RuntimeError("no loss")
        return F.cross_entropy(model(x), y)

    with pytest.raises(RuntimeError, match="no loss"):
        AWP(rho=0.5).backward(model, closure)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key]), key
    assert model[1].momentum == momenta  # type: ignore[index]


def test_awp_returns_a_perturbed_loss_that_is_not_finite() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    loss = AWP(rho=0.1).backward(
        model, lambda: model.weight.sum() * (torch.inf if model.weight.item() > 3 else 1.0)
    )
    assert loss.isinf()


def test_the_second_pass_of_awp_does_not_change_the_running_statistics() -> None:
    x, y = tiny_batch()
    statistics = []
    for perturbation in (AWP(rho=0.5), NoPerturbation()):
        model = tiny_model().train()
        perturbation.backward(model, partial(batch_loss, model, x, y))
        statistics.append(model[1].running_mean.clone())  # type: ignore[index]
    assert torch.equal(*statistics)


def test_the_ema_matches_its_closed_form() -> None:
    """After n updates: d^n w_0 + (1 - d) sum_i d^(n - i) w_i; BatchNorm statistics too."""
    decay = 0.9
    model = tiny_model().double()
    ema = EMA(model, decay)
    states = [{k: v.clone() for k, v in model.state_dict().items()}]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
        ema.update(model)
        states.append({k: v.clone() for k, v in model.state_dict().items()})
    for key, value in ema.model.state_dict().items():
        if not value.is_floating_point():
            continue
        expected = decay**5 * states[0][key]
        for index in range(1, 6):
            expected = expected + (1 - decay) * decay ** (5 - index) * states[index][key]
        torch.testing.assert_close(value, expected)


def test_weights_that_two_layers_share_are_averaged_once() -> None:
    layers = [nn.Linear(2, 2, bias=False) for _ in range(2)]
    layers[1].weight = layers[0].weight
    model = nn.Sequential(*layers)
    with torch.no_grad():
        layers[0].weight.fill_(0)
        ema = EMA(model, 0.75)
        layers[0].weight.fill_(1)
    ema.update(model)
    assert [value.unique().tolist() for value in ema.model.state_dict().values()] == [[0.25]] * 2


def test_the_ema_shares_no_tensors_with_the_model_and_is_in_eval_mode() -> None:
    model = tiny_model().train()
    ema = EMA(model, 0.5)
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in ema.model.parameters()}
    assert NoAveraging().model is None


def test_the_ema_takes_a_wrapped_model() -> None:
    """The names of a wrapper's weights have a prefix."""
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.5)
    before = ema.model.state_dict()["bias"].clone()
    with torch.no_grad():
        model.bias.add_(1)
    ema.update(nn.ModuleDict({"module": model}))
    torch.testing.assert_close(ema.model.state_dict()["bias"], before + 0.5)


@pytest.mark.parametrize(
    ("model", "decay", "words"),
    [
        (3, 0.5, "model is a int: pass an nn.Module"),
        (nn.Linear(2, 2), 1.5, "decay is 1.5: give a number from 0 to 1"),
        (nn.Linear(2, 2), "0.9", "decay is '0.9'"),
        (nn.Linear(2, 2), math.nan, "decay is nan"),
        (nn.LazyLinear(2), 0.5, "weight has no shape yet"),
    ],
)
def test_invalid_arguments_of_an_ema_are_refused(model: Any, decay: Any, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        EMA(model, decay)
    assert_one_line(str(caught.value))


def test_a_model_that_cannot_be_copied_has_no_ema() -> None:
    model = nn.Linear(2, 2)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"copy\.deepcopy raised TypeError"):
        EMA(model, 0.5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (nn.Linear(3, 2), "weight of shape (2, 3) where the average has weight of shape (2, 2)"),
        (nn.Linear(2, 2, bias=False), "the model has 1 floating-point weights"),
        (nn.Linear(2, 2).double(), "weight is torch.float64 on cpu, but torch.float32 on cpu"),
        (nn.Linear(2, 2, device="meta"), "weight is torch.float32 on meta"),
        (
            nn.ParameterDict({"a": torch.ones(2, 2), "b": torch.ones(2)}),
            "the model has a of shape (2, 2) where the average has weight of shape (2, 2)",
        ),
    ],
)
def test_an_average_is_updated_with_its_own_model_only(other: nn.Module, words: str) -> None:
    ema = EMA(nn.Linear(2, 2), 0.5)
    before = copy.deepcopy(ema.model.state_dict())
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        ema.update(other)
    assert_one_line(str(caught.value))
    assert all(torch.equal(value, before[name]) for name, value in ema.model.state_dict().items())


def test_losses_equal_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    other = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    soft = torch.softmax(torch.randn(7, 5, generator=generator, dtype=torch.float64), 1)
    torch.testing.assert_close(cross_entropy(logits, soft), F.cross_entropy(logits, soft))
    expected = F.kl_div(other.log_softmax(1), logits.softmax(1), reduction="batchmean")
    torch.testing.assert_close(divergence(log_softmax(logits), log_softmax(other)), expected)
    assert log_softmax(logits.bfloat16()).dtype == torch.float32


def test_trades_differentiates_the_clean_side_too() -> None:
    """Detaching the clean logits keeps the value of the loss and changes its gradient."""
    x, y = tiny_batch()
    model = tiny_model().eval()
    crafting = InnerAttack(threat=ThreatModel(eps=0.1), steps=1, alpha=0.1, start=nearby_start())
    targets = F.one_hot(y, 3).float()
    x_adv = (x + 0.1).clamp(0, 1)
    loss = Trades(crafting, beta=6.0).loss(model, x, x_adv, targets)
    (full,) = torch.autograd.grad(loss, [model[0].weight])  # type: ignore[index]
    clean, adversarial = model(x), model(x_adv)
    detached = cross_entropy(clean, targets) + 6.0 * divergence(
        log_softmax(clean).detach(), log_softmax(adversarial)
    )
    (one_sided,) = torch.autograd.grad(detached, [model[0].weight])  # type: ignore[index]
    torch.testing.assert_close(loss, detached)
    assert not torch.allclose(full, one_sided)


@pytest.mark.parametrize(("mode", "updates"), [("train", True), ("eval", False)])
def test_the_inner_attack_updates_the_running_statistics_only_in_train_mode(
    mode: BatchNormMode, updates: bool
) -> None:
    config = dataclasses.replace(tiny_config("at"), crafting_mode=mode)
    model = tiny_model().train()
    slots = build_method(config, model, num_classes=3, total_steps=STEPS)
    before = model[1].running_mean.clone()  # type: ignore[index]
    x, y = tiny_batch()
    noise = slots.objective.draw(x, torch.Generator().manual_seed(0))
    x_adv = slots.objective.craft(model, x, F.one_hot(y, 3).float(), noise)
    assert torch.equal(before, model[1].running_mean) != updates  # type: ignore[index]
    assert model.training
    assert (x_adv - x).abs().max() <= config.eps + 1e-6
