"""Names of plugins and import paths."""

import sys
from pathlib import Path

import pytest

from adrbench.errors import AdrbenchError, UsageError
from adrbench.registry import (
    ImportPathError,
    describe_plugins,
    find_plugin,
    is_import_path,
    list_plugins,
    load_import_path,
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


def test_a_plugin_is_found_by_its_name_and_loaded_when_asked(install_plugin: Installer) -> None:
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
    plugin = find_plugin("suites", "weak")
    assert plugin is not None
    plugin.load()
    assert describe_plugins({"suites": ["weak", "pgd"], "methods": ["weak"]}) == {
        "suites:weak": "extra 1.2"
    }


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
        "adrbench.architectures": {"odd-net": "odd_plugin:missing", "silent": "odd_plugin:silent"},
        "adrbench.datasets": {"digits": "odd_plugin:silent"},
    }
    install_plugin(points, {"weak_attacks": WEAK, "odd_plugin": "def silent(*sizes): pass"})
    lines = [" ".join(line.split()) for line in succeed("list").out.splitlines()]
    assert "weak A weak attack (extra 1.2)" in lines
    assert "silent no description (extra 1.2)" in lines
    assert "digits (extra 1.2) cannot be used: 'digits' is built in" in lines
    (broken,) = (line for line in lines if line.startswith("odd-net "))
    assert "cannot be loaded: odd_plugin has no attribute 'missing'" in broken


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
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert load_import_path("my_objects:Box.size") == 3
    for path, message in {
        "my_objects:thing": r"my_objects has no attribute 'thing' for my_objects:thing: did you me",
        "my_object:things": r"there is no module 'my_object' for my_object:things: check the spell",
        "my_objects.deep:things": r"there is no module 'my_objects.deep' for ",
        "my_broken:things": r"importing my_broken for my_broken:things raised OSError \(no disk\)",
        "my_importer:things": r"raised ModuleNotFoundError \(No module named 'no_such_module'\)",
    }.items():
        with pytest.raises(ImportPathError, match=message) as caught:
            load_import_path(path)
        assert caught.value.__cause__ is not None
