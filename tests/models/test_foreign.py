"""Architectures that are not built in: what they are called with, and what is refused."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from adrbench import registry
from adrbench.errors import AdrbenchError, UsageError
from adrbench.models.architectures import (
    build_model,
    canonical_arch,
    find_activation,
    find_architecture,
    is_imported,
)
from adrbench.models.foreign import find_training_format
from adrbench.models.normalize import Normalized
from adrbench.registry import ImportPathError, UserCodeError
from logs import logged
from user_code import install_plugin, write_module

MEAN, STD = (0.4,), (0.2,)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module of networks, which the working directory holds."""
    write_module(tmp_path, monkeypatch, "my_networks")
    return "my_networks"


class Net(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 3, 3, stride=2)
        self.linear = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.conv(x).mean((2, 3)))
        return logits


def test_a_network_from_elsewhere_is_normalized_around(networks: str) -> None:
    model = build_model(
        f"{networks}:build", num_classes=10, in_channels=1, mean=MEAN, std=STD, image_size=(8, 8)
    )
    assert isinstance(model, Normalized)
    assert model.training
    assert {key.partition(".")[0] for key in model.state_dict()} == {"mean", "std", "network"}
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model(x), model.network((x - torch.tensor(0.4)) / torch.tensor(0.2)))


def test_a_callable_is_an_architecture_of_its_own_name() -> None:
    architecture = find_architecture(Net)
    assert architecture.name == f"{__name__}:Net"
    assert find_architecture(partial(Net)).name == architecture.name
    model = build_model(Net, num_classes=4, in_channels=2, image_size=(9, 9))
    assert model(torch.rand(2, 2, 9, 9)).shape == (2, 4)


@pytest.mark.parametrize(
    ("size", "features"), [((8, 8), 64), (None, 224**2)], ids=["given", "unknown"]
)
def test_a_network_that_takes_an_image_size_gets_that_of_the_data(
    networks: str, size: tuple[int, int] | None, features: int
) -> None:
    model = build_model(f"{networks}:SizedNet", num_classes=5, in_channels=1, image_size=size)
    assert model.get_parameter("network.linear.weight").shape == (5, features)


def test_images_that_are_not_square_have_two_sizes() -> None:
    seen = []

    def build(num_classes: int, in_channels: int, *, image_size: object) -> nn.Module:
        seen.append(image_size)
        return Net(num_classes, in_channels)

    for size in ((8, 12), (8, 8)):
        build_model(build, num_classes=3, in_channels=1, image_size=size)
    assert seen == [(8, 12), 8]


def test_trying_a_network_draws_nothing_from_the_global_generator() -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.rand_like(x))

    after = []
    for size in (None, (8, 8)):
        torch.manual_seed(0)
        build_model(Noisy, num_classes=3, in_channels=1, image_size=size)
        after.append(torch.rand(1))
    assert torch.equal(*after)


@pytest.mark.parametrize(
    ("attribute", "error", "words"),
    [
        ("gone", ImportPathError, "my_networks has no attribute 'gone'"),
        ("raises", ImportPathError, r"raised KeyError .*weights.pt.* built for 10 classes and 1 c"),
        (
            "returns_a_list",
            UsageError,
            "returned an object of type list: it must return an nn.Module",
        ),
        ("of_eleven_classes", UsageError, r"returned shape \(2, 11\) .* of shape \(2, 10\)"),
        ("of_a_map", UsageError, r"returned shape \(2, 10, 8, 8\)"),
        (
            "Tuple",
            UsageError,
            r"returned an object of type tuple in eval mode for 2 images of shape \(1, 8, 8\)",
        ),
        ("ready", UsageError, "is a network: give the class or function that builds it"),
        ("number", UsageError, "is of type int: it must be a callable"),
        ("exits", ImportPathError, r"raised SystemExit \(0\) when it was built"),
        (
            "no_arguments",
            UsageError,
            r"takes no arguments, but is called with \(num_classes, in_channels\): write a "
            r"function that takes both, such as `def build\(num_classes, in_channels\): return "
            r"no_arguments\(...\)`, and give its name",
        ),
        (
            "on_meta",
            UsageError,
            "architecture my_networks:on_meta has a parameter without v",
        ),
        ("of_classes", UsageError, r"takes \(num_classes\), but is called with \(num_classes, i"),
    ],
)
def test_what_is_wrong_with_code_from_elsewhere_is_one_sentence(
    networks: str, attribute: str, error: type[AdrbenchError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        build_model(f"{networks}:{attribute}", num_classes=10, in_channels=1, image_size=(8, 8))
    if attribute == "raises":
        assert isinstance(caught.value.__cause__, KeyError)


def test_the_lazy_parameters_of_an_architecture_get_their_shapes_from_the_images() -> None:
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    model = build_model(build, num_classes=3, in_channels=2, image_size=(4, 5))
    assert model.get_parameter("network.1.weight").shape == (3, 40)


def test_images_that_a_network_does_not_take() -> None:
    with pytest.raises(UserCodeError, match=r"does not take images of shape \(1, 2, 2\)") as caught:
        build_model(Net, num_classes=10, in_channels=1, image_size=(2, 2))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_module_that_does_not_exist(networks: str) -> None:
    assert canonical_arch("my_networkz:build") == "my_networkz:build"
    with pytest.raises(ImportPathError, match="there is no module 'my_networkz'"):
        find_architecture("my_networkz:build")


def test_a_plugin_is_found_by_its_name(
    networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        install_plugin(tmp_path, patch, "architectures", "my-net", f"{networks}:build")
        architecture = find_architecture("my-net")
        assert (architecture.name, str(architecture.plugin)) == ("my-net", "my-plugin 1.5")
        assert build_model("my-net", num_classes=3, in_channels=1)(torch.rand(1, 1, 8, 8)).shape
        with pytest.raises(UsageError, match="did you mean my-net"):
            find_architecture("my-nett")
    registry._registered.cache_clear()
    with pytest.raises(UsageError, match="unknown architecture 'my-net'"):
        find_architecture("my-net")


def test_which_names_are_those_of_code_that_a_file_must_not_import() -> None:
    names = ["small-cnn", "wrn-10-1", "timm:resnet18", "a-plugin", "my.models:build"]
    assert [name for name in names if is_imported(name)] == ["my.models:build"]


def test_an_activation_that_cannot_be_chosen_is_ignored_with_a_warning() -> None:
    with logged() as messages:
        assert find_activation(find_architecture(Net), "silu") == "relu"
        assert find_activation(find_architecture("small-cnn"), "silu") == "silu"
    (message,) = messages
    assert "the activation silu is ignored" in message


def test_a_network_that_views_its_features_trains_in_the_plain_memory_format() -> None:
    class Viewing(nn.Module):
        def __init__(self, num_classes: int, in_channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(in_channels, 3, 3)
            self.linear = nn.Linear(3 * 36, num_classes)

        def forward(self, x: Tensor) -> Tensor:
            features = self.conv(x)
            logits: Tensor = self.linear(features.view(len(x), -1))
            return logits

    formats = [find_training_format("it", build(4, 2), (2, 8, 8), 4) for build in (Net, Viewing)]
    assert formats == [torch.channels_last, torch.contiguous_format]


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]


class Exits(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit


class TupleInTraining(Net):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits  # type: ignore[return-value]


class NotCopied(Net):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.lock = SimpleNamespace(scale=self.linear.weight * 2)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Detached(4, 1), "no gradient with respect to its images"),
        (NoParameters(), "no gradient with respect to any parameter"),
        (TupleInTraining(4, 1), "returned an object of type tuple in train mode"),
        (NotCopied(4, 1), "cannot be copied"),
        (Exits(4, 1), r"does not take images .* on which it raised SystemExit"),
    ],
)
def test_a_network_that_cannot_be_trained(model: nn.Module, words: str) -> None:
    with pytest.raises(AdrbenchError, match=words):
        find_training_format("it", model, (1, 8, 8), 4)
