"""Architectures: sizes, published names, normalization, and reference forward passes."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adrbench.checkpoints.third_party import load_third_party
from adrbench.errors import UsageError
from adrbench.models.architectures import ACTIVATIONS, ARCHITECTURES, build_model, canonical_arch
from adrbench.models.same_padding import pad_same

ARCHS = ("small-cnn", "resnet18", "preact-resnet18", "wrn-10-1")
NORM_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def randomize(model: nn.Module) -> nn.Module:
    """Draw all biases and BatchNorm parameters and statistics at random."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.eval()


def test_every_architecture_in_the_table_is_tested() -> None:
    tested = {arch for arch in ARCHS if not arch.startswith("wrn")}
    assert tested == set(ARCHITECTURES)
    assert len(ARCHS) == len(tested) + 1
    assert all(summary for summary, _ in ARCHITECTURES.values())


@pytest.mark.parametrize(
    ("arch", "num_classes", "count"),
    [
        ("small-cnn", 10, 24_346),
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("preact-resnet18", 10, 12_548_426),
        ("wrn-10-1", 10, 77_850),
        ("wrn-28-10", 10, 36_479_194),
        ("wrn-34-10", 10, 46_160_474),
    ],
)
def test_parameter_counts_are_the_published_ones(arch: str, num_classes: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_model(arch, num_classes=num_classes)) == count


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", [8, 15, 32, 64])
def test_any_image_size_gives_logits(arch: str, size: int) -> None:
    model = build_model(arch, num_classes=7).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, size, size)).shape == (1, 7)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("activation", "in_channels"), [("relu", 1), ("silu", 3)])
def test_pixels_and_every_parameter_receive_a_gradient(
    arch: str, activation: str, in_channels: int
) -> None:
    model = build_model(arch, num_classes=7, in_channels=in_channels, activation=activation)
    x = torch.rand(3, in_channels, 8, 8, requires_grad=True)
    model(x).square().sum().backward()
    for tensor in (x, *model.parameters()):
        assert tensor.grad is not None
        assert bool((tensor.grad != 0).any())


@pytest.mark.parametrize("arch", ARCHS)
def test_the_forward_pass_does_not_depend_on_values(arch: str) -> None:
    """On the meta device a branch on values, which would break CUDA graphs, raises."""
    with torch.device("meta"):
        model = build_model(arch, num_classes=10)
        x = torch.rand(2, 3, 32, 32)
    assert model(x).shape == model.eval()(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("arch", "activation"), [*((arch, "relu") for arch in ARCHS), ("small-cnn", "silu")]
)
def test_the_forward_pass_does_not_change_its_input_and_is_repeatable(
    arch: str, activation: str
) -> None:
    model = randomize(build_model(arch, num_classes=4, activation=activation))
    pixels = torch.rand(2, 3, 8, 8)
    x = pixels.clone().requires_grad_()
    first, second = model(x), model(x)
    (first + second).sum().backward()
    assert torch.equal(first, second)
    assert torch.equal(x.detach(), pixels)


@pytest.mark.parametrize("arch", ARCHS)
def test_normalization_in_the_model_equals_normalized_inputs(arch: str) -> None:
    inside = randomize(build_model(arch, num_classes=5, mean=MEAN, std=STD))
    outside = build_model(arch, num_classes=5).eval()
    assert torch.equal(outside.get_buffer("mean"), torch.zeros(3, 1, 1))
    assert torch.equal(outside.get_buffer("std"), torch.ones(3, 1, 1))
    assert inside.get_buffer("mean").shape == inside.get_buffer("std").shape == (3, 1, 1)
    weights = {k: v for k, v in inside.state_dict().items() if k not in ("mean", "std")}
    assert not outside.load_state_dict(weights, strict=False).unexpected_keys
    x = torch.rand(2, 3, 8, 8)
    normalized = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    with torch.no_grad():
        logits = inside(x)
        error = (logits - outside(normalized)).abs().max()
        assert error <= 1e-4 * logits.abs().max() < (logits - outside(x)).abs().max()


def test_normalization_given_as_whole_numbers_keeps_the_fractions_of_a_file() -> None:
    model = build_model("small-cnn", num_classes=5, mean=[0, 0, 0], std=[1, 1, 1]).eval()
    state = build_model("small-cnn", num_classes=5, mean=MEAN, std=STD).state_dict()
    model.load_state_dict(state)
    assert model.get_buffer("mean").flatten().tolist() == pytest.approx(MEAN)
    assert model.get_buffer("std").flatten().tolist() == pytest.approx(STD)
    assert model(torch.rand(2, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize("arch", ARCHS)
def test_silu_models_contain_no_relu(arch: str) -> None:
    kinds = {
        name: {type(m) for m in build_model(arch, num_classes=3, activation=name).modules()}
        for name in ACTIVATIONS
    }
    assert nn.SiLU in kinds["silu"]
    assert nn.ReLU not in kinds["silu"]
    assert nn.ReLU in kinds["relu"]
    assert nn.SiLU not in kinds["relu"]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_seed_determines_the_initial_weights(arch: str) -> None:
    def states(*seeds: int) -> list[dict[str, Tensor]]:
        models = []
        for seed in seeds:
            torch.manual_seed(seed)
            models.append(build_model(arch, num_classes=10).state_dict())
        return models

    first, again, other = states(3, 3, 4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def block_keys(block: str, convs: list[str], norms: list[str]) -> set[str]:
    return {f"{block}.{conv}.weight" for conv in convs} | {
        f"{block}.{norm}.{key}" for norm in norms for key in NORM_KEYS
    }


def test_resnet18_has_the_common_parameter_names() -> None:
    expected = {"mean", "std", "linear.weight", "linear.bias"}
    expected |= block_keys("", ["conv1"], ["bn1"])
    for stage in (1, 2, 3, 4):
        for i in (0, 1):
            expected |= block_keys(f"layer{stage}.{i}", ["conv1", "conv2"], ["bn1", "bn2"])
        if stage > 1:
            expected |= block_keys(f"layer{stage}.0", ["shortcut.0"], ["shortcut.1"])
    keys = build_model("resnet18", num_classes=10).state_dict().keys()
    assert keys == {key.removeprefix(".") for key in expected}


def test_preact_resnet18_has_the_published_parameter_names() -> None:
    expected = {"mean", "std", "logits.weight", "logits.bias"}
    expected |= block_keys("", ["conv_2d"], ["batchnorm"])
    for stage in range(4):
        for i in (0, 1):
            convs = ["conv_2d_1", "conv_2d_2"] + ["shortcut"] * (i == 0 and stage > 0)
            expected |= block_keys(f"layer_{stage}.{i}", convs, ["batchnorm_0", "batchnorm_1"])
    keys = build_model("preact-resnet18", num_classes=10).state_dict().keys()
    assert keys == {key.removeprefix(".") for key in expected}


@pytest.mark.parametrize(
    ("arch", "blocks", "first_group"), [("wrn-16-2", 2, 0), ("wrn-10-1", 1, 1)]
)
def test_wide_resnets_have_the_published_parameter_names(
    arch: str, blocks: int, first_group: int
) -> None:
    """At width 1 the first group does not change the channels, so it has no shortcut."""
    expected = {"mean", "std", "logits.weight", "logits.bias"}
    expected |= block_keys("", ["init_conv"], ["batchnorm"])
    for group in range(3):
        for i in range(blocks):
            convs = ["conv_0", "conv_1"] + ["shortcut"] * (i == 0 and group >= first_group)
            expected |= block_keys(
                f"layer.{group}.block.{i}", convs, ["batchnorm_0", "batchnorm_1"]
            )
    keys = build_model(arch, num_classes=10).state_dict().keys()
    assert keys == {key.removeprefix(".") for key in expected}


def batch_norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Apply BatchNorm in eval mode, from its definition."""
    weight, bias, mean, var = (
        state[f"{name}.{key}"].view(-1, 1, 1)
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def convolve_same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve 3x3 at every `stride`-th position, with TensorFlow's SAME padding."""
    padding = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
    return F.conv2d(F.pad(x, padding), weight, stride=stride)


@pytest.mark.parametrize("arch", ["wrn-10-1", "wrn-16-2"])
def test_wide_resnet_equals_its_definition(arch: str) -> None:
    model = randomize(build_model(arch, num_classes=6, mean=MEAN, std=STD))
    s = model.state_dict()
    pixels = torch.rand(2, 3, 32, 32)
    x = F.conv2d((pixels - s["mean"]) / s["std"], s["init_conv.weight"], padding=1)
    for group, first_stride in enumerate((1, 2, 2)):
        for i in range((int(arch.split("-")[1]) - 4) // 6):
            name, stride = f"layer.{group}.block.{i}", first_stride if i == 0 else 1
            active = batch_norm(s, f"{name}.batchnorm_0", x).relu()
            out = convolve_same(active, s[f"{name}.conv_0.weight"], stride)
            out = convolve_same(
                batch_norm(s, f"{name}.batchnorm_1", out).relu(), s[f"{name}.conv_1.weight"], 1
            )
            shortcut = s.get(f"{name}.shortcut.weight")
            x = out + (x if shortcut is None else F.conv2d(active, shortcut, stride=stride))
    x = batch_norm(s, "batchnorm", x).relu().mean(dim=(2, 3))
    expected = x @ s["logits.weight"].T + s["logits.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), expected, rtol=1e-4, atol=1e-4)


def test_preact_resnet18_equals_its_definition() -> None:
    model = randomize(build_model("preact-resnet18", num_classes=6, activation="silu"))
    s = model.state_dict()
    pixels = torch.rand(2, 3, 16, 16)
    x = F.conv2d(pixels, s["conv_2d.weight"], padding=1)
    for stage in range(4):
        for i in (0, 1):
            name, stride = f"layer_{stage}.{i}", 2 if stage and i == 0 else 1
            out = F.silu(batch_norm(s, f"{name}.batchnorm_0", x))
            out = convolve_same(out, s[f"{name}.conv_2d_1.weight"], stride)
            out = F.silu(batch_norm(s, f"{name}.batchnorm_1", out))
            out = convolve_same(out, s[f"{name}.conv_2d_2.weight"], 1)
            shortcut = s.get(f"{name}.shortcut.weight")
            x = out + (x if shortcut is None else convolve_same(x, shortcut, stride))
    x = F.silu(batch_norm(s, "batchnorm", x)).mean(dim=(2, 3))
    expected = x @ s["logits.weight"].T + s["logits.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), stride=st.sampled_from([1, 2]))
def test_same_padding_gives_the_size_divided_by_the_stride(
    height: int, width: int, stride: int
) -> None:
    """TensorFlow: the output has ceil(size / stride) rows, an odd pixel is added at the end."""
    padded = pad_same(torch.ones(1, 1, height, width), stride)
    assert F.conv2d(padded, torch.ones(1, 1, 3, 3), stride=stride).shape[2:] == (
        -(-height // stride),
        -(-width // stride),
    )
    rows, columns = padded[0, 0].sum(1) == 0, padded[0, 0].sum(0) == 0
    for empty, size in ((rows, height), (columns, width)):
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        assert empty.tolist() == [True] * (total // 2) + [False] * size + [True] * (
            total - total // 2
        )


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("resnet-18", ["unknown architecture 'resnet-18'", "resnet18"]),
        ("wideresnet", ["unknown architecture"]),
        ("wrn-30-10", ["'wrn-30-10'", "wrn-28-10 or wrn-34-10?"]),
        ("wrn-4-1", ["did you mean wrn-10-1?"]),
        ("wrn-28-0", ["did you mean wrn-28-1?"]),
        ("wrn-11-2", ["wrn-10-2 or wrn-16-2?"]),
        ("wrn-28", ["unknown architecture 'wrn-28'"]),
        ("wrn-99999999-9", ["'wrn-99999999-9' would have more than 2,000,000,000 parameters"]),
        ("wrn-10-999999999999", ["would have more than 2,000,000,000 parameters", "wrn-34-10"]),
        (f"wrn-{'9' * 5000}-1", ["unknown architecture"]),
        ("wrn-D-K", ["unknown architecture"]),
        ("", ["unknown architecture ''", "small-cnn"]),
    ],
)
def test_an_unknown_architecture_is_rejected_with_a_hint(arch: str, words: list[str]) -> None:
    for attempt in (canonical_arch, lambda arch: build_model(arch, num_classes=10)):
        with pytest.raises(UsageError) as caught:
            attempt(arch)
        assert all(word in str(caught.value) for word in words)


@given(n=st.integers(1, 200), width=st.integers(1, 10))
def test_every_wide_resnet_has_one_canonical_name(n: int, width: int) -> None:
    depth = 6 * n + 4
    assert canonical_arch(f" WRN-0{depth}-{width}") == f"wrn-{depth}-{width}"


def test_canonical_names_are_unchanged() -> None:
    assert [canonical_arch(arch) for arch in ARCHS] == list(ARCHS)
    assert canonical_arch("ResNet18") == "resnet18"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"mean": (0.5,)}, "1 values for images of 3 channels"),
        ({"std": (0.5, 0.5, 0.0)}, "above 0"),
        ({"std": (0.5, 0.5, -0.1)}, "above 0"),
        ({"mean": (0.5, 0.5, float("nan"))}, "not finite"),
        ({"std": (0.5, 0.5, float("inf"))}, "not finite"),
        ({"mean": (0.5, 0.5, 1e39)}, "not finite"),
        ({"std": (0.5, 0.5, 1e-46)}, "must be above 0"),
    ],
)
def test_invalid_model_settings_are_rejected(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_model("small-cnn", **{"num_classes": 10, **arguments})  # type: ignore[arg-type]


@pytest.mark.data
def test_third_party_cifar10_weights_have_their_known_accuracy(real_images: Path) -> None:
    """The wheel of pyautoattack has a ResNet-18, with 937/1000 correct on the first test images."""
    spec = importlib.util.find_spec("pyautoattack")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "examples" / "model_test.pt"
    state = torch.load(file, map_location="cpu", weights_only=True)
    model = build_model("resnet18", num_classes=10)
    load_third_party(state, model, normalize=None)
    with np.load(real_images / "cifar10-first.npz") as archive:
        images, labels = archive["x_test"][:1000], archive["y_test"][:1000]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        predicted = torch.cat([model.eval()(batch).argmax(1) for batch in torch.split(x, 250)])
    assert int((predicted == torch.from_numpy(labels)).sum()) == 937
