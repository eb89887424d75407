"""A training request and a preset resolve to a complete configuration."""

from typing import Any

import pytest

from adrbench.config.presets import find_preset
from adrbench.config.resolve import TrainRequest
from adrbench.errors import UsageError


def request(method: str = "adr+wa", **given: Any) -> TrainRequest:
    return TrainRequest(dataset="digits", method=method, arch="small-cnn", given=given)


def test_a_preset_supplies_settings_that_were_not_given() -> None:
    train_request = request(lr=0.2, ema_decay=0.9)
    config = train_request.resolve("digits", num_train=1437, val_size=143)
    preset = find_preset("digits", "small-cnn", train_request.parsed_method, num_train=1437)
    assert (config.lr, config.method_settings["ema_decay"], config.val_size) == (0.2, 0.9, 143)
    assert config.epochs == preset.values["epochs"]
    assert config.preset == f"{preset.source}; given: --lr, --ema-decay"


def test_each_setting_has_a_source() -> None:
    train_request = request("at+awp", lr=0.2, beta=3.0, nesterov=True)
    config = train_request.resolve("digits", num_train=1437, val_size=143)
    sources = train_request.find_sources("digits", num_train=1437)
    assert sources.keys() == config.values().keys() - {
        *("dataset", "arch", "method", "activation", "preset")
    }
    names = {"lr": "given", "nesterov": "given", "seed": "default", "val_size": "default"}
    names |= {"awp_rho": "published ADR", "eps": "ours for digits"}
    assert {name: sources[name].name for name in names} == names
    assert request("awp").find_sources("digits", num_train=1437)["nesterov"].name == (
        "implied by awp"
    )


def test_settings_of_absent_components_are_ignored() -> None:
    train_request = request("at", awp_rho=0.1, lr=0.2)
    assert train_request.ignored == ["awp_rho"]
    config = train_request.resolve("digits", num_train=1437, val_size=143)
    assert "awp_rho" not in config.method_settings
    assert "--awp-rho" not in config.preset


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"eps": 8.0}, "write 8/255"),
        ({"norm": "L3"}, "unknown norm 'L3'"),
        ({"milestones": (2.0,)}, "fractions of the run"),
        ({"val_size": 0}, "give --select test"),
        ({"temperature_low": -1.0}, "--temperature-low is -1"),
    ],
)
def test_an_invalid_setting_is_refused_before_data_are_read(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        request(**change)


@pytest.mark.parametrize(
    ("given", "split_seed"),
    [({}, 0), ({"seed": 3}, 3), ({"split_seed": 5}, 5), ({"seed": 3, "split_seed": 0}, 0)],
)
def test_the_split_is_drawn_from_its_own_seed_or_that_of_the_run(
    given: dict[str, Any], split_seed: int
) -> None:
    train_request = request(**given)
    assert train_request.split_seed == split_seed
    config = train_request.resolve("digits", num_train=1437, val_size=143)
    assert config.split_seed == given.get("split_seed")
    assert train_request.without("split_seed").split_seed == given.get("seed", 0)


def test_selection_on_the_test_split_holds_out_no_images() -> None:
    assert request().val_size is None
    assert request(select="test").val_size == 0
    assert request(select="test", val_size=5).val_size == 5
