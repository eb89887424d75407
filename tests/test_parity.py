"""Agreement with the published ADR code (yuyuwu5/ADR at 515da0e), step by step in float64.

Each golden file is one short run with every random draw recorded. It goes through the real
training step; loss, targets, adversarial examples, student and average must agree to 1e-10.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from adrbench.config.settings import TrainConfig
from adrbench.methods.build import build_method
from adrbench.methods.slots import Slots
from adrbench.training.optimizer import build_optimizer
from adrbench.training.state import learning_rate
from adrbench.training.step import StepResult, train_step
from benchmarks.reference.training_step import Trainer

TOLERANCE = 1e-10

Arrays = dict[str, npt.NDArray[Any]]


def recorded_model(in_channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    ).double()


def recorded_config(golden: dict[str, Any]) -> TrainConfig:
    objective = {"pgd": "at", "trades": "trades"}[golden["mode"]]
    tokens = [objective, *(token for token in ("adr", "awp") if golden[token]), "wa"]
    same: tuple[str, ...] = (
        "temperature_high",
        "temperature_low",
        "interpolation_low",
        "interpolation_high",
    )
    same += ("ema_decay", "awp_rho", "epochs", "lr", "momentum", "nesterov", "weight_decay")
    return TrainConfig.of(
        dataset="recorded",
        arch="recorded",
        method="+".join(tokens),
        batch_size=16,
        milestones=tuple(epoch / golden["epochs"] for epoch in golden["milestones_epochs"]),
        lr_factor=golden["lr_gamma"],
        eps=golden["eps"],
        alpha=golden["alpha"],
        steps=golden["attack_steps"],
        beta=golden["trades_beta"],
        crop_padding=0,
        flip=False,
        val_size=1,
        **{name: golden[name] for name in same},
    )


def load_state(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def assert_close(actual: Tensor, expected: npt.NDArray[Any], what: str) -> None:
    difference = np.abs(actual.detach().numpy() - expected).max()
    assert difference <= TOLERANCE, f"{what} differs by {difference}"


def assert_same_state(model: nn.Module, arrays: Arrays, prefix: str) -> None:
    expected = load_state(arrays, prefix)
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        if value.is_floating_point():
            assert_close(actual[key], value.numpy(), prefix + key)


def replay(arrays: Arrays) -> tuple[nn.Module, Slots, list[StepResult]]:
    golden = json.loads(str(arrays["config"]))
    config = recorded_config(golden)
    model = recorded_model(golden["in_channels"], golden["classes"])
    model.load_state_dict(load_state(arrays, "init/"))
    model.train()
    slots = build_method(
        config,
        model,
        num_classes=golden["classes"],
        total_steps=golden["epochs"] * golden["steps_per_epoch"],
    )
    optimizer = build_optimizer(config, model)
    lr = learning_rate(config, golden["steps_per_epoch"])
    results = []
    for step in range(len(arrays["x"])):
        x, y = torch.from_numpy(arrays["x"][step]), torch.from_numpy(arrays["y"][step])
        noise = arrays.get("start_noise")
        results.append(
            train_step(
                model,
                slots,
                optimizer,
                x,
                y,
                noise=torch.zeros_like(x) if noise is None else torch.from_numpy(noise[step]),
                values={"lr": lr(step), **slots.targets.annealed(step)},
            )
        )
    return model, slots, results


def test_training_step_reproduces_the_published_code(golden: Path) -> None:
    with np.load(golden) as stored:
        arrays: Arrays = {key: stored[key] for key in stored.files}
    model, slots, results = replay(arrays)
    assert_close(torch.stack([result.loss for result in results]), arrays["loss"], "loss")
    for name, result in (("first", results[0]), ("last", results[-1])):
        assert_close(result.x_adv, arrays[f"adv_{name}"], f"adv_{name}")
        if f"target_{name}" in arrays:
            assert_close(result.targets, arrays[f"target_{name}"], f"target_{name}")
    assert_same_state(model, arrays, "model/")
    assert slots.averaging.model is not None
    assert_same_state(slots.averaging.model, arrays, "ema/")


def test_the_plain_reference_of_the_benchmarks_does_too(golden: Path) -> None:
    with np.load(golden) as stored:
        arrays: Arrays = {key: stored[key] for key in stored.files}
    recorded = json.loads(str(arrays["config"]))
    model = recorded_model(recorded["in_channels"], recorded["classes"])
    model.load_state_dict(load_state(arrays, "init/"))
    step = 0

    def start(x: Tensor) -> Tensor:
        noise = arrays.get("start_noise")
        return x if noise is None else x + torch.from_numpy(noise[step])

    total_steps = recorded["epochs"] * recorded["steps_per_epoch"]
    trainer = Trainer(model, recorded_config(recorded), total_steps=total_steps, start=start)
    for step in range(len(arrays["x"])):
        x, y = torch.from_numpy(arrays["x"][step]), torch.from_numpy(arrays["y"][step])
        assert_close(trainer.step(x, y, step), arrays["loss"][step], "loss")
    assert trainer.average is not None
    assert_same_state(trainer.model, arrays, "model/")
    assert_same_state(trainer.average, arrays, "ema/")
