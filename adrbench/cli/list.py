"""What `adrbench list` prints: every name that the other commands take, with a line on each."""

from collections import Counter
from collections.abc import Callable

from rich.table import Table

from adrbench.attacks.suites import PGD_K_MEANING, SUITES
from adrbench.cli.display import print_table
from adrbench.config.method import TOKENS
from adrbench.data import DATASETS
from adrbench.errors import unknown_name
from adrbench.models.architectures import ARCHITECTURES
from adrbench.report.grouping import format_eps
from adrbench.results.baselines import read_paper, read_robustbench


def list_command(what: str | None) -> None:
    """Print what exists of one kind, or of all."""
    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "datasets": list_datasets,
        "archs": lambda: {name: arch.explanation for name, arch in ARCHITECTURES.items()},
        "methods": lambda: {token: f"{slot}: {text}" for token, (slot, text) in TOKENS.items()},
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


def list_suites() -> dict[str, str]:
    """Return the named suites, and the family that has a number in its name."""
    return {name: text for name, (text, _) in SUITES.items()} | {"pgd-K": PGD_K_MEANING}


def list_baselines() -> dict[str, str]:
    """Return how many published rows each data set and threat model has."""
    counts = Counter((entry.dataset, entry.norm, entry.eps) for entry in read_robustbench())
    listed = {
        f"robustbench {dataset} {norm} {format_eps(eps)}": f"{count} models of the leaderboard"
        for (dataset, norm, eps), count in sorted(counts.items())
    }
    papers = Counter(row.dataset for row in read_paper())
    return listed | {f"adr paper {name}": f"{count} rows" for name, count in papers.items()}


def list_datasets() -> dict[str, str]:
    """Return the table's data sets and the two forms of one's own."""
    return {name: source.summary for name, source in DATASETS.items()} | {
        "FILE.npz": "x_train, y_train, x_test, y_test (x_val, y_val): uint8 NHWC or NHW images",
        "FOLDER": "train/CLASS/* and test/CLASS/* (or val/CLASS/*), images of one size",
    }
