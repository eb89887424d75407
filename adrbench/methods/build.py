"""Building the four slots of a method from a configuration."""

from contextlib import nullcontext
from typing import Any

from torch import nn

from adrbench.config.components import COMPONENTS, Component, Slot
from adrbench.config.declare import settings_of
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError
from adrbench.methods.slots import (
    PROTOCOLS,
    BuildContext,
    NoAveraging,
    NoPerturbation,
    OneHot,
    Slots,
)
from adrbench.registry import ImportPathError, calling_user_code, import_object
from adrbench.results.history import COUNTS, FIELDS
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

#: Names that a step's inputs and a row of the history use for something else.
RESERVED = frozenset({"x", "y", "noise", "lr"}) | FIELDS | COUNTS.keys()


def build_method(
    config: TrainConfig,
    model: nn.Module,
    *,
    num_classes: int,
    total_steps: int,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Slots:
    """Build the method that `config` names, for one run of `total_steps` steps.

    Raises:
        AdrbenchError: when a plugin's builder cannot be imported, raises, or returns an object that
            does not fit its slot.

    """
    components = config.parsed_method().built

    def fill(slot: Slot, average: nn.Module | None = None) -> Any:
        if slot not in components:
            return None
        context = BuildContext(
            config=config,
            model=model,
            num_classes=num_classes,
            total_steps=total_steps,
            process_group=process_group,
            average=average,
        )
        return _build(components[slot], context)

    averaging = fill("averaging") or NoAveraging()
    targets = fill("targets", averaging.model) or OneHot(num_classes)
    if taken := RESERVED & targets.annealed(0).keys():
        raise ValueError(f"annealed numbers are called {', '.join(taken)}: choose other names.")
    return Slots(
        objective=fill("objective"),
        targets=targets,
        perturbation=fill("perturbation") or NoPerturbation(process_group),
        averaging=averaging,
    )


def _build(component: Component, context: BuildContext) -> Any:
    builder = import_object(component.builder)
    values = context.config.method_settings
    names = settings_of(component.settings)
    settings = component.settings(**{n: values[n] for n in names if n in values})
    is_built_in = component.token in COMPONENTS
    of_token = f"the builder {component.builder} of method token {component.token!r}"
    with (
        nullcontext()
        if is_built_in
        else calling_user_code(lambda raised: f"{of_token} {raised}.", ImportPathError)
    ):
        part = builder(context, settings)
    if not isinstance(part, PROTOCOLS[component.slot]):
        raise AdrbenchError(
            f"{of_token} returned a {type(part).__name__}: it must return {component.slot} as "
            "declared in adrbench.methods.slots."
        )
    return part
