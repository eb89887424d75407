"""Third-party state dicts: every common wrapper is supported, and a misfit is rejected."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from adrbench.checkpoints.state_dicts import AVERAGE_ENTRIES, PREFIXES, STUDENT_ENTRIES
from adrbench.checkpoints.third_party import load_third_party
from adrbench.config.method import Weights
from adrbench.errors import CheckpointError, UsageError
from adrbench.models.architectures import build_model

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
State = dict[str, Tensor]


def small(seed: int = 0, **options: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("small-cnn", **{"num_classes": 10, **options})  # type: ignore[arg-type]


def weights_of(model: nn.Module) -> State:
    """Return the state dict as code without normalization buffers saves it."""
    state = model.state_dict()
    return {key: value.clone() for key, value in state.items() if key not in ("mean", "std")}


def assert_holds(model: nn.Module, expected: State) -> None:
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())


class Normalizer(nn.Module):
    """A normalization module with constants of shape (1, C, 1, 1), as in other code."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))


def constants_of(model: nn.Module) -> tuple[tuple[float, ...], ...]:
    """Return the mean and the standard deviation that a model normalizes with."""
    buffers = (model.get_buffer(name) for name in ("mean", "std"))
    return tuple(tuple(round(one, 6) for one in buffer.flatten().tolist()) for buffer in buffers)


@settings(max_examples=40, deadline=None)
@given(
    prefixes=st.lists(st.sampled_from(PREFIXES), max_size=4),
    entries=st.lists(st.sampled_from((*STUDENT_ENTRIES, *AVERAGE_ENTRIES, "last")), max_size=2),
)
def test_any_sequence_of_prefixes_and_wrappers_is_stripped(
    prefixes: list[str], entries: list[str]
) -> None:
    source = weights_of(small(1))
    state: object = {"".join(prefixes) + key: value for key, value in source.items()}
    for entry in entries:
        state = {"epoch": 3, entry: state, "optimizer": {"state": {}, "param_groups": []}}
    model = small(2)
    report = load_third_party(state, model, normalize=None)
    assert_holds(model, source)
    assert report.entry == ".".join(reversed(entries))
    assert report.other_entries == ()
    assert not report.normalization_in_file
    assert constants_of(model) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("names", [("mean", "std"), ("mu", "sigma")])
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize(
    ("before", "network"),
    [
        ("", ""),
        ("normalize.", ""),
        ("normalize.", "model."),
        ("module.", "module."),
        ("module.0.", "module.1."),
        ("0.", "1."),
    ],
)
def test_normalization_in_the_file_is_loaded_into_the_buffers(
    names: tuple[str, str], shape: tuple[int, ...], before: str, network: str
) -> None:
    source = weights_of(small(1))
    state = {network + key: value for key, value in source.items()}
    for name, values in zip(names, (MEAN, STD), strict=True):
        state[before + name] = torch.tensor(values).view(shape)
    model = small(2)
    report = load_third_party(state, model, normalize=None)
    assert report.normalization_in_file
    assert constants_of(model) == (MEAN, STD)
    expected = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    assert_holds(model, {k: v.view(3, 1, 1) for k, v in expected.items()} | source)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        AveragedModel,
        lambda m: nn.Sequential(Normalizer(), m),
        lambda m: nn.Sequential(OrderedDict(normalize=Normalizer(), model=m)),
        lambda m: AveragedModel(nn.DataParallel(nn.Sequential(Normalizer(), m))),
    ],
)
def test_state_dicts_of_real_wrappers_are_loaded(wrap: Callable[[nn.Module], nn.Module]) -> None:
    bare = build_model("small-cnn", num_classes=10)
    del bare.mean, bare.std
    state = wrap(bare).state_dict()
    model = small(2)
    report = load_third_party(state, model, normalize=None)
    assert_holds(model, bare.state_dict())
    assert report.normalization_in_file == any(key.endswith(".std") for key in state)
    assert constants_of(model) in {(MEAN, STD), ((0, 0, 0), (1, 1, 1))}


@pytest.mark.parametrize("arch", ["resnet18", "preact-resnet18", "wrn-10-2"])
def test_every_architecture_loads_its_own_weights(arch: str) -> None:
    torch.manual_seed(1)
    source = build_model(arch, num_classes=4, mean=MEAN, std=STD)
    model = build_model(arch, num_classes=4)
    load_third_party(
        {"module." + k: v for k, v in source.state_dict().items()}, model, normalize=None
    )
    assert_holds(model, source.state_dict())


def test_student_and_average_are_found_in_the_published_adr_layout() -> None:
    student, average = weights_of(small(1)), weights_of(small(2))
    file = {"model": student, "model_ema": average, "optimizer": None, "epoch": 199}
    model = small(3)
    choices: list[tuple[Weights | None, State, str, str]] = [
        (None, student, "model", "model_ema"),
        ("student", student, "model", "model_ema"),
        ("average", average, "model_ema", "model"),
    ]
    for weights, expected, entry, other in choices:
        report = load_third_party(file, model, normalize=(MEAN, STD), weights=weights)
        assert_holds(model, expected)
        assert (report.entry, report.other_entries) == (entry, (other,))
        assert constants_of(model) == (MEAN, STD)
        assert not report.normalization_in_file


def test_normalization_in_the_file_and_the_argument_must_be_equal() -> None:
    state = weights_of(small(1)) | {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    assert load_third_party(state, small(2), normalize=(MEAN, STD)).normalization_in_file
    with pytest.raises(
        CheckpointError, match=r"normalizes with mean .*0\.4914.* gives mean .*0\.5"
    ):
        load_third_party(state, small(2), normalize=((0.5, 0.5, 0.5), STD))


def test_without_a_given_normalization_the_model_keeps_its_own() -> None:
    model = build_model("small-cnn", num_classes=10, mean=MEAN, std=STD)
    report = load_third_party(weights_of(small(1)), model, normalize=None)
    assert constants_of(model) == (MEAN, STD)
    assert not report.normalization_in_file


def test_batch_counters_may_be_missing() -> None:
    state = {k: v for k, v in weights_of(small(1)).items() if "num_batches_tracked" not in k}
    model = small(2)
    load_third_party(state, model, normalize=None)
    assert_holds(model, state)


def test_half_precision_weights_are_converted_to_float32() -> None:
    model = small(2)
    load_third_party(small(1).half().state_dict(), model, normalize=None)
    assert model.get_parameter("linear.weight").dtype == torch.float32
    assert torch.equal(
        model.get_parameter("linear.weight"), small(1).get_parameter("linear.weight").half().float()
    )


def without(key: str) -> State:
    return {name: value for name, value in weights_of(small(1)).items() if name != key}


def plus(**entries: Tensor) -> State:
    return weights_of(small(1)) | {k.replace("__", "."): v for k, v in entries.items()}


NAN = torch.full((10,), float("nan"))
REJECTED: list[tuple[object, list[str]]] = [
    (without("linear.bias"), ["does not fit SmallCNN", "1 missing: linear.bias (10,)"]),
    (
        {"a." + k: v for k, v in weights_of(small(1)).items()},
        [
            "17 missing: features.0.0.weight",
            "20 unexpected: a.features.0.0.weight",
            " and 17 more;",
        ],
    ),
    (plus(head__weight=torch.ones(2, 2)), ["1 unexpected: head.weight (2, 2)"]),
    (
        weights_of(small(1, num_classes=100)),
        ["it has 100 classes and the model 10", "2 of another shape: linear.weight (100, 64)"],
    ),
    (
        weights_of(small(1, in_channels=1)),
        ["it takes 1 input channels and the model 3", "(16, 1, 3, 3) instead of (16, 3, 3, 3)"],
    ),
    (plus(linear__bias=torch.ones(10, dtype=torch.int8)), ["1 of another type: linear.bias"]),
    (plus(linear__bias=NAN), ["not finite", "linear.bias"]),
    (plus(mean=torch.tensor(MEAN)), ["normalization mean but no std"]),
    (plus(std=torch.tensor(STD)), ["normalization std but no mean"]),
    (plus(mean=torch.ones(1), std=torch.ones(1)), ["shape (1,)", "3 channels"]),
    (plus(mean=torch.tensor(MEAN), std=torch.zeros(3)), ["state dict's", "above 0"]),
    (plus(mean=torch.tensor(MEAN) * 255, std=torch.tensor(STD) * 255), ["divide", "255"]),
    (plus(mean=torch.tensor(MEAN), a__mu=torch.tensor(MEAN)), ["two normalizations", "a.mu"]),
    ({"best": weights_of(small(1)), "last": weights_of(small(2))}, ["several", "best, last"]),
    ({"epoch": 3, "optimizer": {"state": {}}}, ["no state dict", "epoch (int)"]),
    ({}, ["an empty table"]),
    ([1, 2], ["a list"]),
    (None, ["a NoneType"]),
    (torch.ones(3), ["a Tensor"]),
    ({1: torch.ones(2, 2)}, ["no state dict"]),
    (weights_of(small(1)) | {"note": "hello"}, ["no state dict"]),
]


@pytest.mark.parametrize(("state", "words"), REJECTED)
def test_a_state_dict_that_does_not_fit_is_rejected_and_changes_nothing(
    state: object, words: list[str]
) -> None:
    model = small(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_third_party(state, model, normalize=None)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert_holds(model, before)


@pytest.mark.parametrize(
    ("normalize", "words"),
    [
        (((0.5,), (0.5,)), "1 values for images of 3 channels"),
        ((MEAN, (1.0, 1.0, 0.0)), "above 0"),
        (((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)), "divide mean and std by 255"),
    ],
)
def test_an_invalid_normalization_is_rejected(
    normalize: tuple[tuple[float, ...], tuple[float, ...]], words: str
) -> None:
    model = small(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=words):
        load_third_party(weights_of(small(1)), model, normalize=normalize)
    assert_holds(model, before)


def test_selecting_weights_that_the_file_lacks_is_rejected() -> None:
    with pytest.raises(CheckpointError, match=r"could be the average weights \(model\)"):
        load_third_party(
            {"model": weights_of(small(1))}, small(2), normalize=None, weights="average"
        )
    with pytest.raises(CheckpointError, match="no state dict that could be the student weights"):
        load_third_party({"ema": weights_of(small(1))}, small(2), normalize=None, weights="student")
