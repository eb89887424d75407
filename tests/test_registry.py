"""Names of plugins and import paths."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from adrbench.errors import AdrbenchError, UsageError
from adrbench.registry import (
    ImportPathError,
    check_foreign,
    describe_plugins,
    find_plugin,
    is_import_path,
    list_plugins,
    load_import_path,
    plugin_names,
    resolve,
)
from plugins import Installer
from runner import succeed

SUITES = {"adrbench.suites": {"weak": "weak_attacks:build"}}
WEAK = '''
def build(threat, num_classes, seed):
    """A weak attack.

    More about it.
    """
'''


def test_a_plugin_is_found_by_its_name_and_imported_only_when_loaded(
    install_plugin: Installer,
) -> None:
    install_plugin(SUITES, {"weak_attacks": WEAK})
    plugin = find_plugin("suites", "weak")
    assert plugin is not None
    assert (plugin.path, str(plugin)) == ("weak_attacks:build", "extra 1.2")
    assert find_plugin("datasets", "weak") is None
    assert plugin in list_plugins("suites")
    assert "weak_attacks" not in sys.modules
    assert plugin.load().__name__ == "build"


def test_records_name_the_plugins_that_were_loaded(install_plugin: Installer) -> None:
    install_plugin(SUITES, {"weak_attacks": WEAK})
    assert describe_plugins({"suites": ["weak", "pgd"]}) == {}
    import_module("weak_attacks")  # by other code, not as the plugin
    assert describe_plugins({"suites": ["weak", "pgd"]}) == {}
    resolve("suites", "weak")
    assert describe_plugins({"suites": ["weak", "pgd"], "methods": ["weak"]}) == {
        "suites:weak": "extra 1.2"
    }


def test_a_name_is_that_of_a_plugin_before_it_is_an_import_path(
    install_plugin: Installer,
) -> None:
    points = {"adrbench.suites": {"weak": "weak_attacks:build", "weak_attacks:odd": "math:pi"}}
    install_plugin(points, {"weak_attacks": f"{WEAK}\nodd = 3\n"})
    assert plugin_names("suites") == ["weak", "weak_attacks:odd"]
    by_name, by_path = resolve("suites", "weak"), resolve("suites", "weak_attacks:build")
    assert by_name.value is by_path.value
    assert (str(by_name.plugin), by_path.plugin) == ("extra 1.2", None)
    assert resolve("suites", "weak_attacks:odd").value != 3
    check_foreign("suites", "weak", ["pgd"])
    with pytest.raises(UsageError, match=r"unknown suite 'weaker': did you mean weak\?"):
        check_foreign("suites", "weaker", ["pgd"])


def test_a_name_that_two_distributions_register(install_plugin: Installer) -> None:
    install_plugin(SUITES, {"weak_attacks": WEAK})
    install_plugin(SUITES, {}, "other")
    message = r"(extra 1.2 and other|other 1.2 and extra) 1.2 both register 'weak' in adrbench"
    with pytest.raises(AdrbenchError, match=message):
        find_plugin("suites", "weak")
    listed = succeed("list", "suites").out
    assert "both register 'weak' in adrbench.suites: uninstall one of them." in listed


def test_list_shows_plugins_with_their_distribution(install_plugin: Installer) -> None:
    points = {
        **SUITES,
        "adrbench.architectures": {
            "odd-net": "odd_plugin:missing",
            "silent": "odd_plugin:silent",
            "wrn-16-4": "odd_plugin:silent",
        },
        "adrbench.datasets": {"digits": "odd_plugin:silent"},
        "adrbench.methods": {"exiting": "exiting_plugin:COMPONENT"},
    }
    modules = {
        "weak_attacks": WEAK,
        "odd_plugin": "def silent(*sizes): pass",
        "exiting_plugin": "raise SystemExit(0)",
    }
    install_plugin(points, modules)
    lines = [" ".join(line.split()) for line in succeed("list").out.splitlines()]
    assert "weak A weak attack (extra 1.2)" in lines
    assert "silent no description (extra 1.2)" in lines
    for name in ("digits", "wrn-16-4"):
        assert f"{name} (extra 1.2) cannot be used: {name!r} is built in" in lines
    (broken,) = (line for line in lines if line.startswith("odd-net "))
    assert "cannot be loaded: odd_plugin has no attribute 'missing'" in broken
    (exiting,) = (line for line in lines if line.startswith("exiting "))
    assert "importing exiting_plugin for exiting_plugin:COMPONENT raised SystemExit (0)" in exiting


@pytest.mark.parametrize("text", ["a:b", "a.b_1:c.d"])
def test_import_paths(text: str) -> None:
    assert is_import_path(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a/b:c", "timm:resnet-18", "a:b:c", "1a:b"])
def test_what_is_no_import_path(text: str) -> None:
    assert not is_import_path(text)
    with pytest.raises(UsageError, match=r"write package\.module:attribute"):
        load_import_path(text)


def test_an_object_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_objects.py").write_text("class Box:\n    size = 3\n\nthings = 1 / 2\n")
    (tmp_path / "my_broken.py").write_text("raise OSError('no disk.')\n")
    (tmp_path / "my_importer.py").write_text("import no_such_module\n")
    (tmp_path / "my_script.py").write_text("import sys\nsys.exit()\n")
    (tmp_path / "my_lazy.py").write_text(
        "def __getattr__(name):\n    if name == 'net':\n        raise OSError('no file.')\n"
        "    raise AttributeError(name)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert load_import_path("my_objects:Box.size") == 3
    for path, message in {
        "my_objects:thing": r"my_objects has no attribute 'thing' for my_objects:thing: did you me",
        "my_object:things": r"there is no module 'my_object' for my_object:things: check the spell",
        "my_objects.deep:things": r"there is no module 'my_objects.deep' for ",
        "my_broken:things": r"importing my_broken for my_broken:things raised OSError \(no disk\)",
        "my_importer:things": r"raised ModuleNotFoundError \(No module named 'no_such_module'\)",
        "my_script:things": r"importing my_script for my_script:things raised SystemExit",
        "my_lazy:net": r"importing my_lazy for my_lazy:net raised OSError \(no file\)",
    }.items():
        with pytest.raises(ImportPathError, match=message) as caught:
            load_import_path(path)
        assert caught.value.__cause__ is not None
