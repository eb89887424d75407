"""The hyperparameter table agrees with the published configurations."""

import pytest

from adrbench.config.method import parse_method
from adrbench.config.presets import DIGITS, PUBLISHED, ROWS, SHARP, Source, find_preset
from adrbench.config.settings import TrainConfig

ADR_KEYS = ("temperature_high", "temperature_low", "interpolation_low", "interpolation_high")

#: dataset, architecture, method, temperature high and low, lambda low and high, rho, epochs.
PUBLISHED_ROWS = [
    ("cifar10", "resnet18", "adr", (2.5, 2.0, 0.70, 0.95), None, 200),
    ("cifar10", "wrn-34-10", "adr", (2.5, 2.0, 0.70, 0.95), None, 200),
    ("cifar10", "wrn-34-10", "adr+awp", (2.5, 1.5, 0.70, 0.85), 0.005, 200),
    ("cifar10", "resnet18", "trades+adr", (2.5, 2.0, 0.70, 0.95), None, 200),
    ("cifar10", "resnet18", "trades+adr+awp", (2.5, 1.5, 0.70, 0.85), 0.005, 200),
    ("cifar100", "resnet18", "adr", (1.5, 1.0, 0.70, 0.95), None, 200),
    ("cifar100", "wrn-34-10", "adr+awp", (2.0, 1.0, 0.70, 0.85), 0.005, 200),
    ("cifar100", "resnet18", "trades+adr", (1.5, 1.0, 0.70, 0.95), None, 200),
    ("cifar100", "resnet18", "trades+adr+awp", (1.5, 1.0, 0.70, 0.95), 0.005, 200),
    ("tiny-imagenet", "resnet18", "adr", (2.0, 1.5, 0.50, 0.90), None, 80),
    ("tiny-imagenet", "wrn-34-10", "adr+awp", (2.0, 1.5, 0.50, 0.90), 0.001, 80),
    ("tiny-imagenet", "resnet18", "adr+awp", (2.0, 1.5, 0.30, 0.90), 0.001, 80),
    ("tiny-imagenet", "resnet18", "trades+adr+awp", (2.0, 1.5, 0.50, 0.90), 0.001, 80),
]


@pytest.mark.parametrize(("dataset", "arch", "method", "adr", "rho", "epochs"), PUBLISHED_ROWS)
def test_published_settings_are_reproduced(
    dataset: str,
    arch: str,
    method: str,
    adr: tuple[float, ...],
    rho: float | None,
    epochs: int,
) -> None:
    preset = find_preset(dataset, arch, parse_method(method), num_train=50_000)
    assert tuple(preset.values[key] for key in ADR_KEYS) == adr
    assert preset.values.get("awp_rho") == rho
    assert preset.values["epochs"] == epochs
    assert preset.values["nesterov"] is (rho is None)
    assert preset.source == PUBLISHED.text


def test_milestones_are_at_the_published_epochs() -> None:
    values = find_preset("cifar10", "resnet18", parse_method("at"), num_train=50_000).values
    assert [round(f * values["epochs"]) for f in values["milestones"]] == [100, 150]


def test_settings_of_empty_slots_are_omitted() -> None:
    values = find_preset("cifar10", "resnet18", parse_method("at"), num_train=50_000).values
    assert not {*ADR_KEYS, "ema_decay", "awp_rho", "beta"} & values.keys()


@pytest.mark.parametrize(
    ("dataset", "num_train", "words"),
    [
        ("cifar10", 50_000, "carried over"),
        ("mine", 500, "our own"),
        ("mine", 10**6, "carried over"),
    ],
)
def test_a_preset_states_that_it_was_not_published(
    dataset: str, num_train: int, words: str
) -> None:
    preset = find_preset(dataset, "wrn-28-10", parse_method("adr"), num_train=num_train)
    assert words in preset.source


def test_each_value_has_the_source_of_the_row_that_set_it_last() -> None:
    preset = find_preset("digits", "small-cnn", parse_method("adr+awp"), num_train=1437)
    expected = {
        "momentum": PUBLISHED,
        "awp_rho": PUBLISHED,
        "lr": DIGITS,
        "ema_decay": DIGITS,
        "temperature_high": SHARP,
        "nesterov": Source(name="implied by awp", text="implied by awp"),
    }
    assert {name: preset.sources[name] for name in expected} == expected
    assert preset.sources.keys() == preset.values.keys()
    assert preset.source == "; ".join(one.text for one in (PUBLISHED, DIGITS, SHARP))


def test_values_carried_over_to_another_architecture_say_so() -> None:
    preset = find_preset("cifar10", "wrn-28-10", parse_method("at"), num_train=50_000)
    (source,) = set(preset.sources.values())
    assert source.name == "carried over"
    assert source.text == preset.source
    assert preset.source.endswith("; our own: carried over to cifar10 wrn-28-10 at")


def test_no_source_names_a_file_of_this_project() -> None:
    assert not [row.source for row in ROWS if ".md" in row.source.text or ".py" in row.source.text]


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100", "tiny-imagenet", "mine"])
@pytest.mark.parametrize("method", ["standard", "at", "trades+adr+wa+awp", "wa", "awp"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_preset_is_a_valid_configuration(dataset: str, method: str, norm: str) -> None:
    parsed = parse_method(method)
    preset = find_preset(dataset, "resnet18", parsed, norm=norm, num_train=5000)
    config = TrainConfig.of(
        dataset=dataset,
        arch="resnet18",
        method=str(parsed),
        norm=norm,
        val_size=100,
        preset=preset.source,
        **preset.values,
    )
    assert TrainConfig.from_json(config.to_json()) == config
