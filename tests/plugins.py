"""Plugins for tests: distributions on the path whose entry points name modules beside them."""

import importlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adrbench import registry
from adrbench.config import component_plugins
from adrbench.data import dataset_plugins


class Installer:
    """Installs distributions into one directory on the path."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.modules: set[str] = set()
        directory.mkdir()
        monkeypatch.syspath_prepend(directory)

    def __call__(
        self,
        points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str] | None = None,
        distribution: str = "extra",
    ) -> None:
        """Install version 1.2 of a distribution.

        `points` are import paths by group and name, `modules` are their texts by name.
        """
        info = self.directory / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        lines = [
            line
            for group, named in points.items()
            for line in (f"[{group}]", *(f"{name} = {path}" for name, path in named.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, text in (modules or {}).items():
            (self.directory / f"{name}.py").write_text(text)
            self.modules.add(name)
        self.forget()

    def uninstall(self, distribution: str = "extra") -> None:
        """Remove what makes a distribution known."""
        shutil.rmtree(self.directory / f"{distribution}-1.2.dist-info")
        self.forget()

    def forget(self) -> None:
        """Clear what is remembered about the plugins that are installed."""
        for name in self.modules:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        registry._registered.cache_clear()
        registry._loaded.clear()
        component_plugins.load_plugin_components.cache_clear()
        dataset_plugins.build_dataset.cache_clear()
