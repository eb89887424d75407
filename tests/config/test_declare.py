"""Declared settings: checks, spelling and types."""

from dataclasses import dataclass

import pytest

from adrbench.config.declare import check_settings, format_eps, setting, settings_of
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Example:
    rounds: int = setting(low=1, high=9, help="Rounds.")
    width: float = setting(default=0.5, low=0, high=1, help="Width.")
    radius: float = setting(in_pixels=True, help="Radius.")
    cuts: tuple[float, ...] = setting(help="Cuts.")
    mode: str = setting(default="on", choices=("on", "off"), help="Mode.")
    mirrored: bool = setting(default=False, help="Mirrored.")
    limit: int | None = setting(default=None, low=1, high=5, help="Limit.")
    note: str = ""


VALID = {"rounds": 3, "radius": 8 / 255, "cuts": (0.5, 0.75)}


def test_a_field_declares_a_setting() -> None:
    declared = settings_of(Example)
    assert list(declared) == ["rounds", "width", "radius", "cuts", "mode", "mirrored", "limit"]
    assert [one.kind for one in declared.values()] == [int, float, float, tuple, str, bool, int]
    assert declared["rounds"].flag == "--rounds"
    assert (declared["width"].default, declared["rounds"].default) == (0.5, None)
    assert [name for name, one in declared.items() if one.is_optional] == ["limit"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rounds": 0}, r"--rounds is 0: give a number from 1 to 9"),
        ({"rounds": 10}, r"--rounds is 10"),
        ({"width": 1.5}, r"--width is 1.5: give a number from 0 to 1"),
        ({"width": float("nan")}, r"--width is nan"),
        ({"mode": "of"}, r"--mode is 'of': choose on or off"),
        ({"limit": 6}, r"--limit is 6"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_settings(Example(**(VALID | change)))  # type: ignore[arg-type]


def test_valid_values_pass() -> None:
    check_settings(Example(**VALID, limit=5))  # type: ignore[arg-type]
    check_settings(Example(**VALID, limit=None))  # type: ignore[arg-type]


def test_flags_are_parsed_and_spelled() -> None:
    declared = settings_of(Example)
    assert declared["radius"].parse("8/255") == 8 / 255
    assert declared["cuts"].parse("0.5, 3/4,") == (0.5, 0.75)
    assert declared["cuts"].parse("") == ()
    assert declared["mode"].parse("off") == "off"
    with pytest.raises(UsageError, match=r"--radius is 'x': write a number such as 8/255"):
        declared["radius"].parse("x")
    spelled = [declared[name].spell(value) for name, value in VALID.items()]
    assert spelled == ["--rounds 3", "--radius 8/255", "--cuts 0.5,0.75"]
    assert declared["mirrored"].spell(True) == "with --mirrored"
    assert declared["mirrored"].spell(False) == "without --mirrored"
    assert declared["limit"].spell(None) == "without --limit"


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", 1.5), ("rounds", True), ("width", "0.5"), ("mirrored", 1), ("mode", 3)],
)
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"field {name} should be "):
        settings_of(Example)[name].check_type(value)
    settings_of(Example)["width"].check_type(1)


def test_radii_are_formatted_in_pixel_units() -> None:
    assert format_eps(8 / 255) == "8/255"
    assert format_eps(0.5) == "0.5"


def test_every_setting_of_a_run_has_a_flag_and_help() -> None:
    assert all(one.help.endswith(".") for one in train_settings().values())
    named = {"dataset", "arch", "method", "activation", "preset", "method_settings"}
    assert set(TrainConfig.__dataclass_fields__) - named <= set(train_settings())
