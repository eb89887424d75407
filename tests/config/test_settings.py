"""Configurations: refused values, differences and fingerprints."""

import dataclasses
from typing import Any

import pytest

from adrbench.config.declare import parse_fraction
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import AttackConfig, TrainConfig
from adrbench.errors import UsageError


def config(method: str = "adr+awp", **changes: Any) -> TrainConfig:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    values: dict[str, Any] = {**preset.values, "val_size": 143, **changes}
    return TrainConfig.of(dataset="digits", arch="small-cnn", method=method, **values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "--epochs is 0: give a number at least 1"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"lr": -1.0}, "--lr is -1"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"momentum": 1.5}, "--momentum is 1.5: give a number from 0 to 1"),
        ({"eps": 8.0}, "write 8/255"),
        ({"alpha": 0.0}, "--alpha is 0"),
        ({"steps": 0}, "--steps is 0"),
        ({"temperature_low": 0.0}, "--temperature-low is 0"),
        ({"interpolation_high": 1.2}, "--interpolation-high is 1.2"),
        ({"ema_decay": -0.1}, "--ema-decay is -0.1"),
        ({"awp_rho": -1.0}, "--awp-rho is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"precision": "half"}, "choose auto or float32 or tf32 or bfloat16"),
        ({"select": "train"}, "choose val or test"),
        ({"crafting_mode": "off"}, "choose train or eval"),
        ({"milestones": (0.5, 1.5)}, "fractions of the run"),
        ({"val_size": 0}, "give --select test"),
        ({"temperature_high": None}, "needs --temperature-high"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config(**change)


def test_a_difference_names_the_setting_and_both_values() -> None:
    one = config()
    changed = dataclasses.replace(one, lr=0.5, steps=7)
    assert one.differences(changed) == [("lr", 0.05, 0.5), ("steps", 10, 7)]
    assert one.differences(dataclasses.replace(one, preset="elsewhere")) == []


def test_an_invalid_stored_configuration_names_its_field() -> None:
    data = config().to_json()
    with pytest.raises(ValueError, match="field epochs should be int, not 'ten'"):
        TrainConfig.from_json(data | {"epochs": "ten"})
    with pytest.raises(ValueError, match="unknown field colour"):
        TrainConfig.from_json(data | {"colour": 1})
    with pytest.raises(ValueError, match="field lr is missing"):
        TrainConfig.from_json({key: data[key] for key in data if key != "lr"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.0314", 0.0314), (" 1 / 2 ", 0.5), ("2", 2.0), ("1e-2", 0.01)],
)
def test_fractions_are_parsed(text: str, value: float) -> None:
    assert parse_fraction(text, "eps") == value


@pytest.mark.parametrize("text", ["", "eight", "8/", "8/0", "nan", "inf", "8/255/2", "8,5"])
def test_text_that_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--eps is .* write a number such as 8/255"):
        parse_fraction(text, "eps")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 0}, "--n is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"restarts": 0}, "--restarts is 0"),
        ({"alpha": -0.1}, "--alpha is -0.1"),
        ({"seed": -5}, "--seed is -5"),
    ],
)
def test_invalid_attack_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AttackConfig(**change)


def test_fingerprints_survive_new_settings_and_depend_on_the_number_of_processes() -> None:
    """The first fingerprint is from before the setting `sync_batch_norm` was added."""
    plain, synchronized = (
        config("at", precision="float32", sync_batch_norm=s) for s in (False, True)
    )
    assert plain.sha256()[:8] == "1690a239"
    assert plain.sha256() == plain.sha256(processes=1)
    others = (plain.sha256(2), plain.sha256(8), synchronized.sha256())
    assert len({plain.sha256(), *others}) == 4
    assert synchronized.sha256(8) == synchronized.sha256()


def test_compiling_changes_no_fingerprint_and_stored_settings_without_it_mean_off() -> None:
    off, on = (config("at", compile=choice) for choice in ("off", "on"))
    assert off.sha256() == on.sha256()
    assert off.differences(on) == [("compile", "off", "on")]
    stored = on.to_json()
    assert TrainConfig.from_json(stored) == on
    del stored["compile"]
    assert TrainConfig.from_json(stored) == off


def test_runs_with_one_split_seed_are_seeds_of_the_same_settings() -> None:
    plain, one, other = (config("at", seed=k, split_seed=s) for k, s in ((0, None), (1, 7), (2, 7)))
    assert one.sha256() == other.sha256() != plain.sha256()
    assert plain.differences(config("at", split_seed=0)) == [("split_seed", None, 0)]
    stored = plain.to_json()
    del stored["split_seed"]
    assert TrainConfig.from_json(stored) == plain
    with pytest.raises(UsageError, match="--split-seed is -1"):
        config("at", split_seed=-1)
