"""A component that the package does not know takes part everywhere, from one declaration."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.config import components
from adrbench.config.components import COMPONENTS, Component
from adrbench.config.declare import setting
from adrbench.config.method import parse_method
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.errors import UsageError
from adrbench.methods.build import build_method
from adrbench.methods.losses import cross_entropy
from adrbench.methods.slots import BuildContext, OneHot, Values
from adrbench.results.history import Criterion
from adrbench.training.step import train_step


@dataclass(frozen=True, kw_only=True)
class ScaledSettings:
    loss_scale: float = setting(low=0, high=10, help="SCALED: factor of the loss.")


@dataclass(frozen=True, kw_only=True)
class SmoothSettings:
    smoothing: float = setting(low=0, high=1, help="SMOOTH: share of the uniform distribution.")
    corners: tuple[float, ...] = setting(default=(0.5,), is_later=True, help="SMOOTH: a list.")
    limit: float | None = setting(default=None, low=0, high=1, help="SMOOTH: a limit, if any.")


@dataclass(frozen=True)
class Scaled:
    """Clean cross-entropy times a number."""

    scale: float
    criterion: Criterion = "clean"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x.new_empty(0)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        return self.scale * cross_entropy(model(x), targets)


class Smooth(OneHot):
    """Smoothed labels."""

    def __init__(self, num_classes: int, smoothing: float) -> None:
        super().__init__(num_classes)
        self.smoothing = smoothing

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        rows = super().__call__(x, y, values)
        return (1 - self.smoothing) * rows + self.smoothing / self.num_classes


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register a new objective and new targets, as one line of the table each."""
    module: Any = ModuleType("somewhere")
    module.build_scaled = lambda context, settings: Scaled(settings.loss_scale)
    module.build_smooth = build_smooth
    monkeypatch.setitem(sys.modules, "somewhere", module)
    for component in (
        Component(
            token="scaled",
            slot="objective",
            summary="clean cross-entropy times a number",
            builder="somewhere:build_scaled",
            settings=ScaledSettings,
        ),
        Component(
            token="smooth",
            slot="targets",
            summary="smoothed labels",
            builder="somewhere:build_smooth",
            settings=SmoothSettings,
            implies={"flip": True},
        ),
    ):
        monkeypatch.setitem(COMPONENTS, component.token, component)
    clear()
    yield
    monkeypatch.undo()
    clear()


def build_smooth(context: BuildContext, settings: SmoothSettings) -> Smooth:
    return Smooth(context.num_classes, settings.smoothing)


def clear() -> None:
    components.component_settings.cache_clear()
    train_settings.cache_clear()


def resolve(method: str, **given: Any) -> TrainConfig:
    request = TrainRequest(dataset="digits", method=method, arch="small-cnn", given=given)
    return request.resolve("digits", num_train=1437, val_size=143)


@pytest.mark.usefixtures("registered")
def test_its_settings_are_declared_checked_and_stored() -> None:
    assert {"loss_scale", "smoothing"} <= set(train_settings())
    config = resolve("smooth+scaled+wa", loss_scale=2.0, smoothing=0.1)
    assert config.method == "scaled+smooth+wa"
    assert config.flip is True, "the targets imply it"
    stored = config.to_json()
    assert (stored["loss_scale"], stored["smoothing"], stored["beta"]) == (2.0, 0.1, None)
    assert TrainConfig.from_json(stored) == config
    assert config.sha256() != config.with_settings(loss_scale=3.0).sha256()
    assert config.differences(config.with_settings(method="at", loss_scale=None)) == [
        ("method", "scaled+smooth+wa", "at"),
        ("loss_scale", 2.0, None),
    ]
    with pytest.raises(UsageError, match="--loss-scale is 11: give a number from 0 to 10"):
        resolve("scaled", loss_scale=11)
    with pytest.raises(UsageError, match="method scaled needs --loss-scale"):
        resolve("scaled")
    with pytest.raises(UsageError, match="two tokens for its targets, adr and smooth"):
        parse_method("adr+smooth")


def test_it_changes_no_fingerprint_of_other_runs(request: pytest.FixtureRequest) -> None:
    before = {method: resolve(method).sha256() for method in ("at", "trades+adr+wa+awp")}
    request.getfixturevalue("registered")
    assert "scaled" in COMPONENTS
    assert {method: resolve(method).sha256() for method in before} == before
    assert "loss_scale" not in resolve("at").to_json()


@pytest.mark.usefixtures("registered")
def test_a_later_setting_of_a_component_has_its_default_in_older_files() -> None:
    config = resolve("smooth", smoothing=0.1)
    assert config.method_settings == {"smoothing": 0.1, "corners": (0.5,)}
    stored = json.loads(json.dumps(config.to_json()))
    assert TrainConfig.from_json(stored) == config
    del stored["corners"]
    assert TrainConfig.from_json(stored) == config
    changed = config.with_settings(corners=(0.1, 0.2), limit=0.5)
    assert TrainConfig.from_json(json.loads(json.dumps(changed.to_json()))) == changed
    assert changed.sha256() != config.sha256()
    with pytest.raises(ValueError, match="field smoothing should be float"):
        TrainConfig.from_json(stored | {"smoothing": "much"})


@pytest.mark.usefixtures("registered")
def test_an_annealed_number_must_not_take_a_name_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("smooth", smoothing=0.1)
    monkeypatch.setattr(Smooth, "annealed", lambda self, step: {"lr": 0.5})
    with pytest.raises(ValueError, match="annealed numbers are called lr"):
        build_method(config, nn.Flatten(), num_classes=3, total_steps=1)


@pytest.mark.usefixtures("registered")
def test_it_is_built_and_trained_with() -> None:
    """The loss is twice the cross-entropy against smoothed labels, and a step follows it."""
    config = resolve("scaled+smooth", loss_scale=2.0, smoothing=0.3)
    slots = build_method(config, nn.Flatten(), num_classes=3, total_steps=1)
    x, y = torch.rand(2, 3, 1, 1), torch.tensor([0, 2])
    targets = slots.targets(x, y, {})
    torch.testing.assert_close(targets[0], torch.tensor([0.8, 0.1, 0.1]))
    loss = slots.objective.loss(nn.Flatten(), x, x, targets)
    torch.testing.assert_close(loss, 2 * cross_entropy(x.flatten(1), targets))
    linear = nn.Linear(3, 3)
    model = nn.Sequential(nn.Flatten(), linear)
    slots = build_method(config, model, num_classes=3, total_steps=1)
    expected = (
        linear.weight
        - 0.5 * torch.autograd.grad(2 * cross_entropy(model(x), targets), linear.weight)[0]
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=True)
    noise = slots.objective.draw(x, torch.Generator())
    train_step(model, slots, optimizer, x, y, noise=noise, values={"lr": 0.5})
    torch.testing.assert_close(linear.weight, expected)


@pytest.mark.usefixtures("registered")
def test_its_rows_are_ordered_after_what_they_add_to() -> None:
    spellings = ["scaled+smooth+wa", "scaled", "trades", "at", "scaled+smooth", "at+smooth"]
    in_order = sorted(spellings, key=lambda spelling: parse_method(spelling).order)
    assert in_order == ["at", "at+smooth", "trades", "scaled", "scaled+smooth", "scaled+smooth+wa"]
    assert str(parse_method("at+smooth")) == "smooth"
    assert parse_method("smooth").row("average") == "smooth+wa"


def test_nothing_outside_a_component_names_it() -> None:
    """Only its declaration, its module, the presets and the public names do, in any string."""
    package = Path(components.__file__).parents[1]
    tokens = set(COMPONENTS) - {"standard", "at"}
    names = tokens | set(components.component_settings())
    for path in package.rglob("*.py"):
        if path.name in ("components.py", "presets.py", "__init__.py"):
            continue
        if path.parent.name == "methods":
            continue
        tree = ast.parse(path.read_text())
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        words = {
            word
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if node not in docstrings
            for word in re.split(r"[^a-z_]+", node.value)
        }
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        # FAB's own beta, an attribute of the official attack.
        others = {"beta"} if path.name == "fab.py" else set()
        assert not (names - others) & {*words, *attributes}, path
