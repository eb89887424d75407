"""`adrbench list`: every name that the other commands accept, one per line."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import typer

from adrbench.config.component_plugins import find_component
from adrbench.config.components import COMPONENTS, Component
from adrbench.config.declare import format_eps, parse_fraction
from adrbench.errors import AdrbenchError, UsageError, unknown_name
from adrbench.printable import printable
from adrbench.registry import Kind, find_plugin, plugin_names


def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="datasets, archs, methods, suites or baselines; all if omitted."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="List the baselines on this data set, one per row.")
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Only baselines under this norm: Linf or L2.")
    ] = None,
    eps: Annotated[
        str | None, typer.Option(help="Only baselines at this radius, such as 8/255.")
    ] = None,
) -> None:
    """List the available data sets, architectures, methods, suites and baselines."""
    if dataset or norm or eps:
        print_baselines(what, dataset, norm, eps)
        return
    from rich.table import Table

    from adrbench.cli.output import print_table

    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "datasets": list_datasets,
        "archs": list_architectures,
        "methods": list_methods,
        "suites": list_suites,
        "baselines": list_baselines,
    }
    if what is not None and what not in kinds:
        raise unknown_name("list", what, kinds)
    for kind in [what] if what else kinds:
        table = Table(title=kind, title_justify="left", box=None, show_header=False, pad_edge=False)
        for name, text in kinds[kind]().items():
            table.add_row(name, text)
        print_table(table)


def list_architectures() -> dict[str, str]:
    """Return the built-in architectures, those of plugins and the forms of import paths."""
    from adrbench.models.architectures import ARCHITECTURES, WRN_SUMMARY, find_builtin

    named = {name: text for name, (text, _) in ARCHITECTURES.items()}
    built_in = named | {"wrn-D-K": WRN_SUMMARY}
    forms = {
        "timm:NAME": "an architecture of timm, such as timm:vit_tiny_patch16_224",
        "MODULE:NAME": "a callable (num_classes, in_channels) that returns an nn.Module",
    }
    return built_in | list_added("architectures", find_builtin) | forms


def list_methods() -> dict[str, str]:
    """Return the tokens of methods, each with its slot."""
    built_in = {token: describe_component(one) for token, one in COMPONENTS.items()}
    return built_in | list_added("methods", COMPONENTS.get)


def describe_component(component: Component) -> str:
    """Return the slot of a component and what it is."""
    return f"{component.slot}: {component.summary}"


def list_suites() -> dict[str, str]:
    """Return the built-in suites, those of plugins and the form of import paths."""
    from adrbench.attacks.builtin_suites import PGD_K_MEANING, SUITES, find_builtin

    built_in = {name: text for name, (text, _) in SUITES.items()} | {"pgd-K": PGD_K_MEANING}
    forms = {"MODULE:NAME": "an attack, a suite, or (threat, num_classes, seed) -> adrbench.Suite"}
    return built_in | list_added("suites", find_builtin) | forms


def print_baselines(
    what: str | None, dataset: str | None, norm: str | None, eps: str | None
) -> None:
    """Print the published rows of a data set, for the threat models that are selected."""
    from adrbench.report import render
    from adrbench.report.published import published_report

    if what != "baselines":
        raise UsageError(
            "--dataset, --norm and --eps select baselines: write `adrbench list baselines`."
        )
    if dataset is None:
        raise UsageError("--norm and --eps select baselines of a data set: give --dataset too.")
    radius = None if eps is None else parse_fraction(eps, "eps")
    shown = render(published_report(dataset, norm, radius), "terminal", color=sys.stdout.isatty())
    typer.echo(shown, nl=False)


def list_baselines() -> dict[str, str]:
    """Return how many published rows each data set and threat model has, and how to see them."""
    from adrbench.results.baselines import PAPER, read_paper, read_robustbench

    counts = Counter((entry.dataset, entry.norm, entry.eps) for entry in read_robustbench())
    listed = {
        f"robustbench {dataset} {norm} {format_eps(eps)}": f"{count} models of the leaderboard"
        for (dataset, norm, eps), count in sorted(counts.items())
    }
    papers = Counter(row.dataset for row in read_paper())
    listed |= {f"{PAPER} {name}": f"{count} rows" for name, count in papers.items()}
    return listed | {"their rows": "adrbench list baselines --dataset cifar10 --norm Linf"}


def list_datasets() -> dict[str, str]:
    """Return the built-in data sets, those of plugins and the forms of user data."""
    from adrbench.data import DATASETS

    built_in = {name: source.summary for name, source in DATASETS.items()}
    forms = {
        "FILE.npz": "x_train, y_train, x_test, y_test (x_val, y_val): uint8 NHWC or NHW images",
        "FOLDER": "train/CLASS/* and test/CLASS/* (or val/CLASS/*), images of one size",
        "MODULE:NAME": "a callable (data_dir) that returns an adrbench.Dataset",
    }
    return built_in | list_added("datasets", DATASETS.get) | forms


def list_added(kind: Kind, is_built_in: Callable[[str], object]) -> dict[str, str]:
    """Return the names that plugins register, each with a summary and the distribution.

    A plugin that cannot be used is listed with the reason.
    """
    added = {}
    for name in plugin_names(kind):
        try:
            plugin = find_plugin(kind, name)
            assert plugin is not None, name
            if is_built_in(name):
                added[f"{name} ({plugin})"] = f"cannot be used: {name!r} is built in"
                continue
            summary = summarize(find_component(name) if kind == "methods" else plugin.load())
            added[name] = f"{summary} ({plugin})"
        except AdrbenchError as error:
            added[name] = str(error)
    return added


def summarize(registered: object) -> str:
    """Return the first docstring line of a registered object, or describe a component."""
    if isinstance(registered, Component):
        return describe_component(registered)
    lines = (registered.__doc__ or "").strip().splitlines()
    return printable(lines[0].rstrip(".")) if lines else "no description"
