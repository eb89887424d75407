"""adrbench: train, attack and report adversarially robust image classifiers.

Importing the package does not import torch; the names below are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adrbench import attacks
    from adrbench.api.evaluate import evaluate
    from adrbench.api.result import Result
    from adrbench.api.train import TrainedRun, train
    from adrbench.attacks.suites import Suite
    from adrbench.checkpoints.restore import load_model
    from adrbench.config.components import Component
    from adrbench.config.declare import setting
    from adrbench.config.threat import ThreatModel
    from adrbench.data import Dataset, load_examples
    from adrbench.errors import AdrbenchError
    from adrbench.methods.adr import ADR
    from adrbench.methods.ema import EMA
    from adrbench.methods.slots import BuildContext
    from adrbench.report import load_results
    from adrbench.training.callbacks import Callbacks, NoCallbacks

__all__ = [
    "ADR",
    "EMA",
    "AdrbenchError",
    "BuildContext",
    "Callbacks",
    "Component",
    "Dataset",
    "NoCallbacks",
    "Result",
    "Suite",
    "ThreatModel",
    "TrainedRun",
    "attacks",
    "evaluate",
    "load_examples",
    "load_model",
    "load_results",
    "setting",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "ADR": "adrbench.methods.adr",
    "AdrbenchError": "adrbench.errors",
    "BuildContext": "adrbench.methods.slots",
    "Callbacks": "adrbench.training.callbacks",
    "Component": "adrbench.config.components",
    "Dataset": "adrbench.data",
    "EMA": "adrbench.methods.ema",
    "NoCallbacks": "adrbench.training.callbacks",
    "Result": "adrbench.api.result",
    "Suite": "adrbench.attacks.suites",
    "ThreatModel": "adrbench.config.threat",
    "TrainedRun": "adrbench.api.train",
    "evaluate": "adrbench.api.evaluate",
    "load_examples": "adrbench.data",
    "load_model": "adrbench.checkpoints.restore",
    "load_results": "adrbench.report",
    "setting": "adrbench.config.declare",
    "train": "adrbench.api.train",
}


def __getattr__(name: str) -> Any:
    if name == "attacks":
        return import_module("adrbench.attacks")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
