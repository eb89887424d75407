"""The controls of a method: the method without the component that it adds.

They are derived from the declarations of the components, so new components have controls too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from adrbench.config.components import DEFAULTS, SLOTS, Component, Slot
from adrbench.config.method import Method, parse_method
from adrbench.errors import AdrbenchError

#: The ingredient of a method is the component of the first of these slots that it fills.
INGREDIENTS: tuple[Slot, ...] = ("targets", "perturbation", "averaging", "objective")
#: Where that control is missing, the next lacks more of these, in this order: averaging comes
#: first, since it changes only which weights are evaluated.
FURTHER: tuple[Slot, ...] = ("averaging", "perturbation", "objective")
#: What every method is compared with besides its control.
PLAIN = DEFAULTS["objective"]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A method that lacks the components `removed`, the first of which is under test.

    Only one that a user chose may have components, `added`, that the compared method lacks.
    """

    method: str
    removed: tuple[Component, ...]
    added: tuple[Component, ...] = ()

    @property
    def further(self) -> tuple[str, ...]:
        """The tokens of further removed components."""
        return tuple(component.token for component in self.removed[1:])

    @property
    def implied(self) -> Mapping[str, Any]:
        """The general settings that what is removed implies."""
        return _collect_implied(self.removed)

    @property
    def implied_by_added(self) -> Mapping[str, Any]:
        """The general settings that what is added implies."""
        return _collect_implied(self.added)


@cache
def list_controls(method: str) -> tuple[Control, ...]:
    """Return the controls of `method`, the nearest first and PLAIN last; none of PLAIN itself.

    All of them lack this component. For `trades+adr+wa` they are `trades+wa`, `trades`, `at+wa` and
    `at`. A name that is not a method has none.
    """
    try:
        filled = parse_method(method).filled
    except AdrbenchError:
        return ()
    present = [slot for slot in INGREDIENTS if slot in filled and filled[slot].token != PLAIN]
    if not present:
        return ()
    ingredient = present[0]
    others = [slot for slot in FURTHER if slot in present and slot != ingredient]
    return tuple(
        _without(filled, (ingredient, *further))
        for number in range(len(others) + 1)
        for further in combinations(others, number)
    )


@cache
def choose_control(method: str, control: str) -> Control:
    """Return `control` as a control of `method`, with the components that only one of them has.

    There are none if one of the two names is not a method.
    """
    try:
        own, others = (parse_method(name).filled.values() for name in (method, control))
    except AdrbenchError:
        return Control(method=control, removed=())
    return Control(
        method=control,
        removed=tuple(component for component in own if component not in others),
        added=tuple(component for component in others if component not in own),
    )


def _collect_implied(components: Iterable[Component]) -> dict[str, Any]:
    return {name: value for one in components for name, value in one.implies.items()}


def _without(filled: Mapping[Slot, Component], slots: tuple[Slot, ...]) -> Control:
    """Return the control without what fills `slots`; PLAIN takes the place of an objective."""
    plain = parse_method(PLAIN).filled
    kept = {slot: component for slot, component in filled.items() if slot not in slots}
    components = {**plain, **kept}
    return Control(
        method=str(Method(tuple(components[slot] for slot in SLOTS if slot in components))),
        removed=tuple(filled[slot] for slot in slots),
    )
