"""`adrbench train --dry-run`: describe a run without taking a step or writing a file."""

import textwrap

from adrbench.cli.settings_display import WIDTH, list_settings, tabulate
from adrbench.config.components import SLOTS
from adrbench.config.presets import DEFAULT_METHOD, Source
from adrbench.config.resolve import DEFAULT, GIVEN
from adrbench.config.settings import TrainConfig
from adrbench.results.provenance import describe_device
from adrbench.runtime.context import Context
from adrbench.training.plan import Plan, default_arch
from adrbench.training.state import Run, build_state


def describe_plan(plan: Plan, context: Context) -> str:
    """Describe a run: its size and directory, and every setting with its source.

    Raises:
        UsageError: where the run could not start.

    """
    run = plan.prepare(context)
    rows = [
        *list_choices(run.config, default_arch(plan.request.dataset)),
        *list_settings(run.config, plan.find_sources()),
    ]
    lines = [line for name, text in summarize_run(run).items() for line in wrap(name, text)]
    return "\n".join([*lines, "", *tabulate(rows)])


def summarize_run(run: Run) -> dict[str, str]:
    """Return the lines of the description by name."""
    config, dataset = run.config, run.dataset
    model = build_state(run).model
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    built = config.parsed_method().built
    components = [f"{slot} {built[slot].token}" for slot in SLOTS if slot in built]
    drawn = ", drawn from the training images" if dataset.val_is_drawn else ""
    total = config.epochs * run.steps_per_epoch
    return {
        "run": run.directory.name,
        "directory": str(run.directory),
        "images": f"{len(dataset.train):,} for training; {len(dataset.val):,} for validation"
        f"{drawn}; {len(dataset.test):,} for testing",
        "steps": f"{run.steps_per_epoch:,} per epoch, {total:,} in all",
        "components": ", ".join(components),
        "network": f"{config.arch}, {num_parameters:,} parameters",
        "device": describe_device(run.context.device),
    }


def list_choices(config: TrainConfig, default_arch: str) -> list[tuple[str, str, Source]]:
    """Return rows for `tabulate` of what determines the preset: data set, method, network."""
    choices = [
        ("--method", config.method, DEFAULT_METHOD),
        ("--arch", config.arch, default_arch),
        ("--activation", config.activation, TrainConfig.activation),
    ]
    return [
        ("DATASET", config.dataset, GIVEN),
        *(
            (name, value, DEFAULT if value == default else GIVEN)
            for name, value, default in choices
        ),
    ]


def wrap(name: str, text: str) -> list[str]:
    """Return a named line, wrapped between words."""
    indent = " " * 12
    return textwrap.wrap(
        f"{name:<{len(indent)}}{text}",
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
