"""The lookup of suites: built in, of a plugin, at an import path, or given as objects."""

from dataclasses import replace
from typing import Any

from adrbench.attacks.builtin_suites import SUITES, find_builtin, find_options
from adrbench.attacks.stages import is_stage
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, argument
from adrbench.registry import (
    ImportPathError,
    calling_user_code,
    check_foreign,
    is_import_path,
    resolve,
)


def build_suite(config: AttackConfig, threat: ThreatModel, num_classes: int) -> Suite:
    """Return the suite that `config` names, bound for a model of `num_classes` classes.

    Raises:
        UsageError: for an unknown suite, one that needs more classes, or an object that is neither
            a suite nor a callable that returns one.
        ImportPathError: when a user's builder cannot be imported, or raises.

    """
    name = config.suite
    builder = find_builtin(name)
    if builder is not None:
        options = {one: getattr(config, one) for one in find_options(builder)}
        return builder(threat, num_classes, config.seed, **options)
    found = _find_foreign(name)
    if not isinstance(found, Suite) and not is_stage(found):
        with calling_user_code(
            lambda raised: f"suite {name} {raised} when it was built.", ImportPathError
        ):
            found = found(threat, num_classes, config.seed)
        if not isinstance(found, Suite):
            raise UsageError(
                f"suite {name} returned a {type(found).__name__}: it must return an adrbench.Suite."
            )
    suite = as_suite(found)
    if not is_import_path(name):
        suite = replace(suite, name=name)
    return bind_own(suite, threat, num_classes, config.seed)


def check_suite(name: str) -> None:
    """Raise UsageError unless `name` is the name of a suite; this may import it."""
    if find_builtin(name) is None:
        _find_foreign(name)


def _find_foreign(name: str) -> Any:
    """Return what a plugin or an import path has under `name`; UsageError if it cannot be used."""
    check_foreign("suites", name, [*SUITES, "pgd-20", "pgd-K (K a number)"])
    found = resolve("suites", name).value
    if isinstance(found, type) and hasattr(found, "perturb"):
        raise UsageError(
            f"suite {name} is the class of an attack: name an instance of it, or a function "
            "(threat, num_classes, seed) that returns an adrbench.Suite."
        )
    if not (callable(found) or isinstance(found, Suite) or is_stage(found)):
        raise UsageError(
            f"suite {name} is a {type(found).__name__}: it must be an attack, an adrbench.Suite, "
            "or a callable (threat, num_classes, seed) that returns one."
        )
    return found


def as_suite(attack: object) -> Suite:
    """Return a suite unchanged and an attack as a one-stage suite; UsageError otherwise."""
    if isinstance(attack, Suite):
        return attack
    if not is_stage(attack):
        found = f"of type {type(attack).__name__}"
        if isinstance(attack, type):
            found = f"the class {attack.__name__}, not an instance of it"
        elif hasattr(attack, "perturb") and not hasattr(attack, "name"):
            found += ", which has no attribute `name`"
        raise UsageError(
            f"suite is {found}: give the name of a suite, an attack with `name` and "
            "perturb(model, x, y, indices), or an adrbench.Suite."
        )
    return Suite(name=attack.name, stages=[attack])


def bind_own(suite: Suite, threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Return a user's suite bound, or the built-in one if it has its name and its stages.

    Raises:
        UsageError: for another suite with the name of a built-in one.

    """
    bound = suite.bind(threat, num_classes, seed)
    builder = find_builtin(suite.name)
    if builder is None:
        return bound
    own = {
        one: getattr(stage, one)
        for stage in bound.stages
        for one in find_options(builder)
        if hasattr(stage, one)
    }
    built_in = builder(threat, num_classes, seed, **own)
    if built_in.stages == bound.stages:
        return built_in
    raise UsageError(
        f"suite {suite.name!r} has the name of a built-in one, from which it differs: give it "
        "another name, as adrbench.Suite(name=..., stages=[...]) does, or give "
        f"{argument('suite', suite.name)} for the built-in one."
    )
