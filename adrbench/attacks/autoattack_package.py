"""The import of the official AutoAttack package, and the containment of its side effects.

The package reseeds torch's generator, clears the trace function of debuggers and coverage tools,
counts calls in module globals, and issues warnings as plain UserWarnings.
"""

import hashlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from adrbench.attacks.reliability_warnings import ReliabilityWarning, explain_warning
from adrbench.errors import AdrbenchError
from adrbench.results.provenance import is_importable, package_version


def import_package() -> ModuleType:
    """Return the official package, under the module name of its PyPI release or of its repository.

    Raises:
        AdrbenchError: when neither is installed.

    """
    for name in ("pyautoattack", "autoattack"):
        if is_importable(name):
            return import_module(name)
    raise AdrbenchError("AutoAttack is not installed: run `pip install pyautoattack`.")


def describe_package() -> str:
    """Return the name and version of the installed AutoAttack, in the form that records store."""
    name = import_package().__name__
    return f"{name} {package_version(name)}"


@cache
def is_known_source(modules: tuple[str, ...], fingerprint: str) -> bool:
    """Return whether the source code of these modules of the package has this fingerprint.

    Code of ours that replaces code of the package reproduces one version of it, and runs only in
    place of that one.
    """
    package = import_package().__name__
    try:
        sources = [inspect.getsource(import_module(f"{package}.{name}")) for name in modules]
    except OSError:  # installed without its source code
        return False
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16] == fingerprint


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Undo the package's side effects, and replace its warnings by ReliabilityWarnings."""
    checks = import_module(f"{import_package().__name__}.checks")
    trace_function = sys.gettrace()
    call_counts = dict(checks.funcs)
    devices = [device] if device.type == "cuda" else []
    checks.funcs.update(dict.fromkeys(call_counts, 0))
    try:
        with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices):
            warnings.simplefilter("always")
            yield
    finally:
        checks.funcs.update(call_counts)
        sys.settrace(trace_function)
    explanations = {warning: explain_warning(str(warning.message)) for warning in caught}
    for other in (warning for warning, text in explanations.items() if text is None):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    for text in dict.fromkeys(explanations.values()):
        if text is not None:
            warnings.warn(ReliabilityWarning(text), stacklevel=3)
