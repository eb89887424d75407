"""Training networks that are not built in: resuming, their checkpoints, and what is refused."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import adrbench
from adrbench.checkpoints import format as checkpoints
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, load_dataset
from adrbench.errors import CheckpointError, UsageError
from adrbench.models.architectures import find_architecture
from adrbench.registry import UserCodeError
from adrbench.training import loop as training
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.run_names import run_name
from adrbench.training.state import build_state, prepare_run
from adrbench.training.step import Stepper
from messages import assert_one_line
from training_runs import CONTEXT, assert_same_run, make_config


class Net(nn.Module):
    """A network with dropout and LayerNorm, a frozen parameter and an unused one."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(8, num_classes)
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.full((8,), 0.5), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x).relu().mean((2, 3)))
        logits: Tensor = self.linear(self.dropout(self.scale * features))
        return logits


class Viewing(nn.Module):
    """A network that works only in the plain memory format."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3)
        self.linear = nn.Linear(8 * 36, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.conv(x).view(len(x), -1).relu())
        return logits


NET = find_architecture(Net)


def config_for(arch: type[nn.Module], method: str = "adr+wa+awp") -> TrainConfig:
    name = find_architecture(arch).name
    return make_config(method, epochs=2).with_settings(arch=name)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with three batches an epoch."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200), test=whole.test.first(50))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    training.train(config_for(Net), digits, directory, context=CONTEXT, architecture=NET)
    return directory


class KillAfter(NoCallbacks):
    """Ends a run after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("steps", [2, 5])
def test_a_network_with_dropout_resumes_bit_for_bit(
    steps: int, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(steps)  # the random state of the process has no effect
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(
            config_for(Net),
            digits,
            run,
            context=CONTEXT,
            architecture=NET,
            callbacks=KillAfter(steps),
            save_seconds=0,
        )
    training.train(config_for(Net), digits, run, context=CONTEXT, architecture=NET)
    assert_same_run(uninterrupted, run)


def test_dropout_draws_other_masks_in_every_step(digits: Dataset) -> None:
    """In the first pass of a step, the masks are those of its position in the run."""
    run = prepare_run(config_for(Net, "standard"), digits, Path("unused"), CONTEXT, NET)
    state = build_state(run)
    masks: list[Tensor] = []
    dropout = state.model.get_submodule("network.dropout")
    dropout.register_forward_hook(lambda _, inputs, out: masks.append(out.detach() == 0))
    x, y = torch.rand(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64)
    for step in (0, 1, 0):
        Stepper(run, state)(x, y, step)
    first, second, again = (mask.float().mean(0) for mask in masks)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_the_random_state_of_the_process_is_kept(digits: Dataset) -> None:
    run = prepare_run(config_for(Net, "at"), digits, Path("unused"), CONTEXT, NET)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Stepper(run, build_state(run))(torch.zeros(8, 1, 8, 8), torch.arange(8), 0)
    assert torch.equal(torch.rand(1), expected)


def test_weights_that_are_frozen_or_unused_keep_their_values(
    uninterrupted: Path, digits: Dataset
) -> None:
    run = prepare_run(config_for(Net), digits, Path("unused"), CONTEXT, NET)
    initial = build_state(run).model.state_dict()
    trained = checkpoints.load(uninterrupted / "last.pt").snapshots["student"].state
    changed = {key for key in initial if not torch.equal(initial[key], trained[key])}
    kept = {"mean", "std", "network.scale", "network.unused.weight", "network.unused.bias"}
    assert changed == initial.keys() - kept


@pytest.mark.parametrize("method", ["trades+adr+awp", "standard"])
def test_a_network_that_needs_the_plain_memory_format(
    method: str, digits: Dataset, tmp_path: Path
) -> None:
    architecture = find_architecture(Viewing)
    config = config_for(Viewing, method)
    record = training.train(
        config, digits, tmp_path / "run", context=CONTEXT, architecture=architecture
    )
    first, last = record.rows()
    assert last.train_loss < first.train_loss


def test_a_checkpoint_has_the_name_of_its_code_and_needs_it_again(uninterrupted: Path) -> None:
    checkpoint = checkpoints.load(uninterrupted / "best.pt")
    assert checkpoint.config.arch == NET.name == f"{__name__}:Net"
    assert checkpoint.shape.image_size == (8, 8)
    model = adrbench.load_model(uninterrupted, arch=Net)
    state = checkpoint.snapshots["average"].state
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=f"pass arch='{__name__}:Net'"):
        adrbench.load_model(uninterrupted)


def test_names_of_runs_are_names_of_files() -> None:
    config = config_for(Net, "at")
    assert run_name(config, "digits") == f"digits-{__name__.replace(':', '-')}-Net-at-seed0"
    local = config.with_settings(arch="m:f.<locals>.Net")
    assert run_name(local, "digits") == "digits-m-f.-locals-.Net-at-seed0"


class TooLarge(Net):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.conv = nn.Conv2d(in_channels, 8, 9)


def test_a_network_that_does_not_take_the_images(digits: Dataset, tmp_path: Path) -> None:
    architecture = find_architecture(TooLarge)
    with pytest.raises(UserCodeError, match=r"does not take images of shape \(1, 8, 8\)"):
        training.train(
            config_for(TooLarge),
            digits,
            tmp_path / "run",
            context=CONTEXT,
            architecture=architecture,
        )
    assert not (tmp_path / "run").exists()


class Buffered(Net):
    """A network with a tensor as extra state, and buffers of types without arithmetic."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("levels", torch.arange(3).to(torch.uint16))
        self.extra = torch.tensor([3])

    def get_extra_state(self) -> Tensor:
        return self.extra

    def set_extra_state(self, state: Tensor) -> None:
        self.extra = state


class Small(Net):
    """A network with a buffer in 8 bits, which no method can average."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("scales", torch.ones(3).to(torch.float8_e5m2))


class Opaque(Net):
    """A network whose extra state is no tensor."""

    def get_extra_state(self) -> object:
        return {"calls": 3}

    def set_extra_state(self, state: object) -> None:
        raise AssertionError


@pytest.mark.parametrize(("arch", "method"), [(Buffered, "adr"), (Small, "at")])
def test_unusual_entries_of_a_state_dict_are_saved(
    arch: type[nn.Module], method: str, digits: Dataset, tmp_path: Path
) -> None:
    found = find_architecture(arch)
    config = config_for(arch, method)
    training.train(config, digits, tmp_path / "run", context=CONTEXT, architecture=found)
    saved = adrbench.load_model(tmp_path / "run", arch=arch).state_dict()
    names = [next(one for one in saved if one.endswith(name)) for name in arch(10, 1).state_dict()]
    assert len(names) == len(saved) - 2  # mean and standard deviation


def test_extra_state_that_cannot_be_saved_is_refused(digits: Dataset, tmp_path: Path) -> None:
    run = prepare_run(
        config_for(Opaque, "at"), digits, tmp_path, CONTEXT, find_architecture(Opaque)
    )
    with pytest.raises(UsageError, match="_extra_state of type dict in its state dict") as caught:
        build_state(run)
    assert_one_line(str(caught.value))
