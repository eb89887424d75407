"""What `attack` prints when it ends: a table of accuracies, and each warning once."""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from adrbench.cli.notes import wrap_for_terminal
from adrbench.cli.output import UNLIMITED_WIDTH
from adrbench.config.declare import format_eps
from adrbench.report import columns as c
from adrbench.report.attack_labels import at_relative_step, label_dated
from adrbench.report.grouping import Attack, attack_of
from adrbench.report.statistics import accuracy
from adrbench.report.tables import Cell, Column, Row, Table
from adrbench.report.terminal import render_table

if TYPE_CHECKING:
    from adrbench.results.records import AttackRecord

TARGET = Column(key="target", label="target")
WEIGHTS = Column(key="weights", label="weights", absent="file")
THREAT = Column(key="threat", label="threat")
#: The accuracy at the only radius of a table, which is in the column THREAT then.
ROBUST = Column(key="robust", label="robust", role="value", align="right")


def print_attacks(records: Sequence["AttackRecord"]) -> None:
    """Print the accuracies of records to stdout, and their warnings to stderr.

    The table fits the width of a terminal; elsewhere each row is one line.
    """
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else UNLIMITED_WIDTH
    typer.echo(render_table(tabulate(records), width, color=is_terminal), nl=False)
    for text, where in gather_warnings(records).items():
        typer.echo(wrap_for_terminal(f"warning: {'; '.join(where)}: {text}"), err=True)


def tabulate(records: Sequence["AttackRecord"]) -> Table:
    """Return a table with a row for each target and suite.

    If several radii were attacked, there is one column per radius; otherwise the row states the
    radius.
    """
    radii = {format_eps(eps): eps for eps in (record.threat_model.eps for record in records)}
    has_columns = len(radii) > 1
    names, suites = distinguish_targets(records), distinguish_suites(records)
    rows: dict[tuple[Cell, ...], dict[str, Cell]] = {}
    for record in records:
        norm, eps = record.threat_model.norm, format_eps(record.threat_model.eps)
        cells: dict[str, Cell] = {
            TARGET.key: names[record.weights_sha256, record.run, record.selection],
            WEIGHTS.key: record.weights,
            THREAT.key: norm if has_columns else f"{norm} {eps}",
            c.SUITE.key: suites[id(record)],
            c.N.key: record.n,
            c.CLEAN.key: accuracy({record.seed: record.clean_correct}, record.n),
        }
        column = c.radius_column(radii[eps]) if has_columns else ROBUST
        row = rows.setdefault((*list(cells.values())[:-1], record.clean_correct), cells)
        row[column.key] = accuracy({record.seed: record.robust_correct}, record.n)
    values = [c.radius_column(eps) for eps in radii.values()] if has_columns else [ROBUST]
    return Table(
        name="attacks",
        title="Accuracy (%)",
        context={},
        columns=(TARGET, WEIGHTS, THREAT, c.SUITE, replace(c.N, role="key"), c.CLEAN, *values),
        rows=tuple(Row(cells=cells) for cells in rows.values()),
    )


def distinguish_targets(records: Sequence["AttackRecord"]) -> dict[tuple[str, str, str], str]:
    """Return the name of each target, with a fingerprint if two sets of weights share a name."""
    held = {
        (record.weights_sha256, record.run, record.selection): (name_target(record), record.weights)
        for record in records
    }
    shared = Counter(held.values())
    return {
        key: f"{name} ({key[0][:8]})" if shared[name, weights] > 1 else name
        for key, (name, weights) in held.items()
    }


def distinguish_suites(records: Sequence["AttackRecord"]) -> dict[int, str]:
    """Return the name of the suite of each record, by its id, as a report would show it.

    Suites of one name that differ in more than the radius have different names.
    """
    own = {id(record): attack_of(record) for record in records}
    versions: dict[str, set[Attack]] = {}
    for attack in own.values():
        versions.setdefault(attack.suite, set()).add(attack)
    attacks = {
        id(record): own[id(record)]
        if len(versions[record.suite]) == 1
        else at_relative_step(own[id(record)], record.threat_model.eps)
        for record in records
    }
    dates = {attacks[id(record)]: record.created for record in records}
    labels = label_dated(dates).labels
    return {key: labels[attack] for key, attack in attacks.items()}


def name_target(record: "AttackRecord") -> str:
    """Return the name of what was attacked, without its weights."""
    return record.run if record.selection == "file" else f"{record.run} {record.selection}"


def gather_warnings(records: Sequence["AttackRecord"]) -> dict[str, list[str]]:
    """Return each warning once, with the evaluations that have it.

    Those of one target are listed together where they can be: "mine pgd-20, cw 2/255, 8/255".
    """
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for record in records:
        weights = [] if record.weights == "file" else [record.weights]
        target = " ".join([name_target(record), *weights])
        for warning in dict.fromkeys(record.warnings):
            by_suite = found.setdefault(warning, {}).setdefault(target, {})
            by_suite.setdefault(record.suite, []).append(format_eps(record.threat_model.eps))
    return {
        warning: [
            f"{target} {where}" for target, own in by_target.items() for where in _join_suites(own)
        ]
        for warning, by_target in found.items()
    }


def _join_suites(radii: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the suites of a target that have the same radii, with these."""
    suites: dict[str, list[str]] = {}
    for suite, own in radii.items():
        suites.setdefault(", ".join(own), []).append(suite)
    return [f"{', '.join(same)} {shown}" for shown, same in suites.items()]
