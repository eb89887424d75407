"""The method spec: tokens joined by `+`, one component per slot, one canonical spelling."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adrbench.config.component_plugins import find_component, position
from adrbench.config.components import COMPONENTS, DEFAULTS, SLOTS, Component, Slot
from adrbench.config.declare import Setting, settings_of
from adrbench.errors import UsageError

Weights = Literal["student", "average"]
WEIGHTS: tuple[Weights, ...] = ("student", "average")


@dataclass(frozen=True)
class Method:
    """The components of a method, in the order of `SLOTS`; `str(method)` is its spelling."""

    components: tuple[Component, ...]

    def __str__(self) -> str:
        tokens = [component.token for component in self.components]
        # "at+adr" is spelled "adr": new targets need an objective, and this is the default.
        is_implied = tokens[0] == DEFAULTS["objective"] and "targets" in self.filled
        return "+".join(tokens[1:] if is_implied else tokens)

    @property
    def filled(self) -> Mapping[Slot, Component]:
        """The components by the slot they fill."""
        return {component.slot: component for component in self.components}

    @property
    def tokens(self) -> frozenset[str]:
        """Every token, the objective's included."""
        return frozenset(component.token for component in self.components)

    @property
    def built(self) -> Mapping[Slot, Component]:
        """The components to build: those in the spec, and those that they need in other slots."""
        needed = {slot for component in self.components for slot in component.needs}
        added = {slot: COMPONENTS[DEFAULTS[slot]] for slot in needed if slot not in self.filled}
        return {**self.filled, **added}

    @property
    def has_average(self) -> bool:
        """Whether averaged weights exist, as a teacher or for deployment."""
        return "averaging" in self.built

    @property
    def deployed(self) -> Weights:
        """The weights that are validated and attacked by default."""
        return "average" if "averaging" in self.filled else "student"

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The settings that this method uses beyond those of every run, by name."""
        return {
            name: one
            for slot in SLOTS
            if slot in self.built
            for name, one in settings_of(self.built[slot].settings).items()
        }

    @property
    def implied(self) -> Mapping[str, Any]:
        """The general settings that the method's components change."""
        return {name: value for one in self.components for name, value in one.implies.items()}

    @property
    def symbols(self) -> Mapping[str, str]:
        """Short names of the numbers that the method's components anneal."""
        return {name: symbol for one in self.components for name, symbol in one.symbols.items()}

    @property
    def order(self) -> tuple[int, ...]:
        """Sort key: objectives in the order of all tokens, then by what is added to them."""
        added: tuple[Slot, ...] = ("targets", "perturbation", "averaging")
        objective, *_ = self.components
        return (
            position(objective.token),
            *(position(self.filled[slot].token) if slot in self.filled else -1 for slot in added),
        )

    def row(self, weights: str) -> str:
        """Return the method that `weights` of this run represent in a table.

        One `adr` run serves two rows: its student is "adr", its average "adr+wa".
        """
        if weights not in WEIGHTS:
            return str(self)
        filled = dict(self.filled)
        filled.pop("averaging", None)
        if weights == "average":
            filled["averaging"] = self.built.get("averaging", COMPONENTS[DEFAULTS["averaging"]])
        return str(Method(tuple(filled[slot] for slot in SLOTS if slot in filled)))


def parse_method(spelling: str) -> Method:
    """Parse tokens joined by `+`, in any order.

    Raises:
        UsageError: for an unknown or repeated token, or two components for one slot.
        AdrbenchError: for a token whose plugin cannot be used.

    """
    tokens = [token.strip().lower() for token in spelling.split("+")]
    named = {token: find_component(token) for token in tokens}
    for token in named:
        if tokens.count(token) > 1:
            raise UsageError(f"method {spelling!r} contains {token!r} twice: use each token once.")
    for slot in SLOTS:
        rivals = [token for token, component in named.items() if component.slot == slot]
        if len(rivals) > 1:
            kind = f"two {slot}s" if slot == "objective" else f"two tokens for its {slot}"
            raise UsageError(
                f"method {spelling!r} has {kind}, {' and '.join(rivals)}: keep one of them."
            )
    filled = {component.slot: component for component in named.values()}
    filled.setdefault("objective", COMPONENTS[DEFAULTS["objective"]])
    return Method(tuple(filled[slot] for slot in SLOTS if slot in filled))
