"""Method components of plugins: what they take part in, and what makes them unusable."""

import json
import sys
from inspect import signature
from pathlib import Path

import pytest
from torch import nn

from adrbench.cli.train import train
from adrbench.config import component_plugins
from adrbench.config.component_plugins import component_tokens, find_component
from adrbench.config.method import parse_method
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, UsageError
from adrbench.methods.build import build_method
from messages import assert_one_sentence
from plugins import Installer
from runner import QUICK, command, succeed

SOFTER = """
from dataclasses import dataclass
from adrbench.config.components import Component
from adrbench.config.declare import setting

@dataclass(frozen=True, kw_only=True)
class Settings:
    softness: float = setting(default=0.25, low=0, high=1, help="SOFTER: share of uniform labels.")
    rounds: int = setting(default=1, low=1, high=9, is_later=True, help="SOFTER: a later setting.")

COMPONENT = Component(
    token="softer", slot="targets", summary="softer labels", settings=Settings,
    builder="softer_builder:build",
)
"""
SOFTER_BUILDER = """
from adrbench.methods.slots import OneHot

class Softer(OneHot):
    def __init__(self, num_classes, softness):
        super().__init__(num_classes)
        self.softness = softness

    def __call__(self, x, y, values):
        rows = super().__call__(x, y, values)
        return (1 - self.softness) * rows + self.softness / self.num_classes

def build(context, settings):
    return Softer(context.num_classes, settings.softness)
"""
POINTS = {"adrbench.methods": {"softer": "softer_plugin:COMPONENT"}}


@pytest.fixture
def softer(install_plugin: Installer) -> None:
    install_plugin(POINTS, {"softer_plugin": SOFTER, "softer_builder": SOFTER_BUILDER})


def resolve(method: str, **given: object) -> TrainConfig:
    request = TrainRequest(dataset="digits", method=method, arch="small-cnn", given=given)
    return request.resolve("digits", num_train=1437, val_size=143)


@pytest.mark.usefixtures("softer")
def test_its_settings_are_those_of_a_built_in_component() -> None:
    config = resolve("wa+softer", softness=0.5)
    assert config.method == "softer+wa"
    assert config.method_settings == {"softness": 0.5, "rounds": 1, "ema_decay": 0.98}
    assert resolve("softer").method_settings["softness"] == 0.25
    stored = json.loads(json.dumps(config.to_json()))
    assert (stored["softness"], stored["beta"]) == (0.5, None)
    assert TrainConfig.from_json(stored) == config
    assert config.sha256() != resolve("softer+wa").sha256()
    del stored["rounds"]
    assert TrainConfig.from_json(stored).sha256() == config.sha256()
    with pytest.raises(UsageError, match=r"--softness is 2: give a number from 0 to 1\."):
        resolve("softer", softness=2.0)
    with pytest.raises(ValueError, match="field softness should be float"):
        TrainConfig.from_json(stored | {"softness": "much"})
    ignored = TrainRequest(
        dataset="digits", method="at", arch="small-cnn", given={"softness": 0.5}
    ).ignored
    assert ignored == ["softness"]


def test_it_changes_no_fingerprint_of_other_runs(request: pytest.FixtureRequest) -> None:
    before = {method: resolve(method).sha256() for method in ("at", "trades+adr+wa+awp")}
    request.getfixturevalue("softer")
    assert find_component("softer").slot == "targets"
    assert {method: resolve(method).sha256() for method in before} == before
    assert "softness" not in resolve("at").to_json()


@pytest.mark.usefixtures("softer")
def test_a_plan_shows_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = succeed("train", "digits", "--method", "softer", "--softness", "0.5", "--dry-run").out
    rows = [" ".join(line.split()) for line in plan.splitlines()]
    assert {"--softness 0.5 given", "--rounds 1 default"} <= set(rows)
    assert not any(row.startswith(("--beta", "--awp-rho")) for row in rows)


@pytest.mark.usefixtures("softer")
def test_its_rows_come_after_the_built_in_ones() -> None:
    spellings = ["softer+wa", "adr", "softer", "at"]
    in_order = sorted(spellings, key=lambda spelling: parse_method(spelling).order)
    assert in_order == ["at", "adr", "softer", "softer+wa"]


def test_it_is_imported_for_its_own_token_only(request: pytest.FixtureRequest) -> None:
    stored = resolve("adr+wa").to_json()
    request.getfixturevalue("softer")
    assert component_tokens()[-1] == "softer"
    TrainConfig.from_json(stored).sha256()
    for arguments in (["--help"], ["report", "--help"], ["attack", "--help"]):
        succeed(*arguments)
    parse_method("trades+adr")
    assert "softer_plugin" not in sys.modules
    parse_method("softer")
    assert "softer_plugin" in sys.modules
    assert "softer_builder" not in sys.modules


@pytest.mark.usefixtures("softer")
def test_its_flag_is_one_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = succeed("train", "--help").out
    assert "--softness" in shown
    assert "SOFTER: share of uniform" in " ".join(shown.split())
    done = command("train", "digits", "--method", "softer", "--softness", "2", *QUICK)
    assert (done.code, done.lines) == (
        2,
        ["error: --softness is 2: give a number from 0 to 1."],
    )
    done = command("train", "digits", "--method", "softest")
    assert done.lines[0].startswith("error: unknown method token 'softest': did you mean softer?")


def component(**changes: str) -> str:
    """Return a module with a component, and with other arguments where they are given."""
    arguments = {
        "token": "'odd'",
        "slot": "'targets'",
        "summary": "'odd labels'",
        "builder": "'odd_builder:build'",
        "settings": "Settings",
    } | changes
    field = arguments.pop("field", "oddity: float = setting(default=1.0, help='ODD: a number.')")
    return (
        "from dataclasses import dataclass\n"
        "from typing import Any\n"
        "from adrbench.config.components import Component\n"
        "from adrbench.config.declare import setting\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        f"class Settings:\n    {field}\n\n"
        f"COMPONENT = Component({', '.join(f'{k}={v}' for k, v in arguments.items())})\n"
    )


FAULTS = {
    "import sys; sys.exit()": "raised SystemExit",
    "raise RuntimeError('no')": r"importing odd for odd:COMPONENT raised RuntimeError \(no\)\.$",
    "COMPONENTS = {}": "odd has no attribute 'COMPONENT' for odd:COMPONENT",
    "import no_such_library": "importing odd for odd:COMPONENT raised ModuleNotFoundError",
    "COMPONENT = 3": "odd:COMPONENT is a int and must be an adrbench.Component",
    component(token="'even'"): "its token is 'even', but its entry point is called 'odd'",
    component(slot="'loss'"): "its slot is 'loss', which must be one of objective, targets",
    component(needs="('perturbation',)"): "it needs the slot 'perturbation', but can need only",
    component(builder="'odd_builder'"): "its builder is 'odd_builder', which must be package",
    component(settings="int"): "its settings are not a dataclass",
    component(field="oddity: float = 1.0"): "its field 'oddity' is not made with adrbench.setting",
    component(field="oddity: 'Missing' = setting(default=1, help='')"): "cannot be resolved",
    component(field="lr: float = setting(default=1.0, help='')"): "'lr' has the name of a flag",
    component(field="out: str = setting(default='a', help='')"): "'out' has the name of a flag",
    component(field="beta: float = setting(default=1.0, help='')"): "name of another component's",
    component(field="oddity: Any = setting(default=1, help='')"): "'oddity' is not a bool, int",
    component(field="oddity: int = setting(help='')"): "its setting 'oddity' has no default",
    component(field="oddity: int = setting(default=1.5, help='')"): "field oddity should be int",
    component(field="oddity: int = setting(default=3, high=2, help='')"): "--oddity is 3: give",
    component(token="3"): "its token is 3 and must be a str",
    component(needs="'targets'"): "its needs is 'targets' and must be a tuple",
    component(settings="Settings()"): r"its settings is Settings\(oddity=1.0\) and must be a type",
    component(implies="['lr']"): r"its implies is \['lr'\] and must be a mapping",
    component(implies="{'epochs': 'ten'}"): r"the epochs that it implies is not allowed \(",
    component(implies="{'flips': True}"): "it implies flips, which is not a setting of every run",
    component(decay_setting="'decay'"): "its decay_setting 'decay' is not one of its settings",
}


@pytest.mark.parametrize(("module", "message"), FAULTS.items())
def test_one_that_cannot_be_used_is_an_error_for_its_own_token_only(
    install_plugin: Installer, module: str, message: str
) -> None:
    install_plugin({"adrbench.methods": {"odd": "odd:COMPONENT"}}, {"odd": module})
    start = "the methods plugin 'odd' of extra 1.2 cannot be (loaded|used): "
    with pytest.raises(AdrbenchError, match=f"{start}.*{message}"):
        parse_method("odd")
    assert str(parse_method("adr")) == "adr"
    assert list(component_plugins.load_plugin_components().problems) == ["odd"]


def test_a_component_without_faults_has_none(install_plugin: Installer) -> None:
    """The faults above are those of their changes."""
    install_plugin({"adrbench.methods": {"odd": "odd:COMPONENT"}}, {"odd": component()})
    assert parse_method("odd").settings["oddity"].default == 1.0


def test_two_plugins_of_one_token_or_setting(install_plugin: Installer) -> None:
    install_plugin({"adrbench.methods": {"odd": "odd:COMPONENT"}}, {"odd": component()})
    install_plugin(
        {"adrbench.methods": {"odd": "other:COMPONENT"}}, {"other": component()}, "other"
    )
    with pytest.raises(AdrbenchError, match=r"both register 'odd' in adrbench.methods: uninstall"):
        parse_method("odd")
    named = component(token="'rare'")
    install_plugin({"adrbench.methods": {"rare": "rare:COMPONENT"}}, {"rare": named}, "rare")
    named = component(token="'scarce'")
    install_plugin({"adrbench.methods": {"scarce": "scarce:COMPONENT"}}, {"scarce": named}, "third")
    assert parse_method("rare").settings.keys() == {"oddity"}
    with pytest.raises(AdrbenchError, match=r"of third 1.2 .* 'oddity' has the name of another"):
        parse_method("scarce")


def test_a_token_that_is_built_in_stays_so(install_plugin: Installer) -> None:
    install_plugin(
        {"adrbench.methods": {"adr": "odd:COMPONENT"}}, {"odd": component(token="'adr'")}
    )
    assert component_tokens().count("adr") == 1
    assert find_component("adr").builder == "adrbench.methods.adr:build"
    problems = component_plugins.load_plugin_components().problems
    assert problems["adr"].endswith("'adr' is the token of a built-in component.")


def test_train_notes_plugins_that_cannot_be_used(
    install_plugin: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install_plugin(POINTS, {"softer_plugin": SOFTER, "softer_builder": SOFTER_BUILDER})
    install_plugin({"adrbench.methods": {"odd": "odd:COMPONENT"}}, {"odd": "1 / 0"}, "broken")
    problem = (
        "the methods plugin 'odd' of broken 1.2 cannot be loaded: importing odd for odd:COMPONENT "
        "raised ZeroDivisionError (division by zero)."
    )
    done = succeed("train", "digits", "--method", "softer", "--softness", "0.5", *QUICK)
    assert done.notes == [f"note: {problem}"]
    (path,) = (tmp_path / "results").glob("*.json")
    record = json.loads(path.read_text())
    assert record["method"] == "softer"
    assert record["config"]["softness"] == 0.5
    done = command("train", "digits", "--method", "odd", *QUICK)
    assert (done.code, done.lines, done.notes) == (1, [f"error: {problem}"], [])


def test_a_checkpoint_says_which_plugin_it_needs(
    install_plugin: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = {"softer_plugin": SOFTER, "softer_builder": SOFTER_BUILDER}
    install_plugin(POINTS, modules)
    succeed("train", "digits", "--method", "softer", "--name", "soft", *QUICK)
    attack = ("attack", "checkpoints/soft/last.pt", "--suite", "clean", "--n", "8")
    succeed(*attack)
    install_plugin.uninstall()
    done = command(*attack)
    assert done.code == 1
    assert_one_sentence(done.lines[0], "last.pt was trained with method 'softer'", "install the")
    install_plugin(POINTS, {"softer_plugin": "1 / 0"})
    done = command(*attack)
    assert done.code == 1
    assert_one_sentence(done.lines[0], "last.pt needs a plugin: the methods plugin 'softer' of")
    assert "softer" in succeed("report", "results").out


BUILDERS = {
    "": r"odd_builder has no attribute 'build'",
    "def build(context, settings): return context.nothing": (
        r"the builder odd_builder:build of method token 'odd' raised AttributeError \("
    ),
    "def build(context, settings): return None": (
        r"of method token 'odd' returned a NoneType: it must return targets"
    ),
}


@pytest.mark.parametrize(("text", "message"), BUILDERS.items())
def test_a_builder_that_fails(install_plugin: Installer, text: str, message: str) -> None:
    install_plugin(
        {"adrbench.methods": {"odd": "odd:COMPONENT"}},
        {"odd": component(), "odd_builder": text},
    )
    with pytest.raises(AdrbenchError, match=message):
        build_method(resolve("odd"), nn.Flatten(), num_classes=3, total_steps=1)


def test_no_setting_of_a_plugin_can_take_the_name_of_a_parameter_of_train() -> None:
    assert signature(train).parameters.keys() - {"given"} <= component_plugins.TRAIN_PARAMETERS
