"""Each method beside plain adversarial training, image by image, from the verdicts in records."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adrbench.errors import RecordError
from adrbench.records import AttackRecord, unpack_verdicts
from adrbench.report import columns as c
from adrbench.report.accuracy import context, describe, identity
from adrbench.report.figures import Figure, PValue, accuracy, gap
from adrbench.report.lines import Attack, Line, Setting
from adrbench.report.settings import Settings, around_method, settings_marks
from adrbench.report.tables import Cell, Row, Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REFERENCE = "at"
NOTES = (
    f"{REFERENCE}, method: robust accuracy, over the training seeds that both have; difference: "
    f"method - {REFERENCE}, seed by seed, ± its sample standard deviation over seeds.",
    f"won, lost: images that the method withstands in more, in fewer seeds than {REFERENCE}.",
    "p: McNemar's exact test, two-sided, of won against lost. It knows the noise of drawing test "
    "images, for these very models; the noise of training them again is in the ± alone.",
)
CHANCE_NOTE = (
    "Were there no differences at all, {:.1f} of these {} comparisons would still be expected to "
    "come out at p below 0.05."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method against the reference under one attack, on the same images and training seeds."""

    reference: Figure | None
    method: Figure | None
    difference: Figure | None
    won: int
    lost: int


def exact_mcnemar(won: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's test (1947) in its exact, binomial form.

    Of the won + lost = m discordant pairs each is won with probability 1/2 under the null
    hypothesis, so p = min(1, 2 P(X <= min(won, lost))) with X ~ Binomial(m, 1/2). For 1 and 5:
    2 (1 + 6) / 2^6 = 0.21875. Without discordant pairs it is 1.

    Raises:
        ValueError: when a count is negative.

    """
    if min(won, lost) < 0:
        raise ValueError(f"counts should not be negative: {won}, {lost}")
    pairs = won + lost
    ways = term = 1
    for k in range(min(won, lost)):
        term = term * (pairs - k) // (k + 1)
        ways += term
    return min(1.0, ways / 2 ** (pairs - 1)) if pairs else 1.0


def paired_table(setting: Setting, lines: list[Line], settings: Settings) -> Table | None:
    """Return our lines beside those of the reference that differ in nothing but the method.

    None where there is no such pair.
    """
    attacks = c.attack_columns(lines)
    marks = settings_marks(lines, settings)
    references: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        if line.subject.method == REFERENCE:
            references.setdefault(_measured_on(line), []).append(line)
    rows = []
    for line in lines:
        if line.subject.method == REFERENCE or line.selection == "file":
            continue
        reference = find_reference(line, references.get(_measured_on(line), ()), settings)
        if reference is None:
            continue
        for attack, column in attacks.items():
            compared = compare(line, reference, attack)
            if compared is not None:
                own_marks = marks.get(line.subject.training, ())
                rows.append(_row(line, column.label, compared, own_marks))
    if not rows:
        return None
    return Table(
        name="paired",
        title=f"Beside {REFERENCE}, image by image (%, difference in points), {describe(setting)}",
        context=context(setting, lines),
        columns=c.PAIRED,
        rows=tuple(rows),
        notes=(*NOTES, CHANCE_NOTE.format(len(rows) / 20, len(rows))),
    )


def find_reference(line: Line, among: Iterable[Line], settings: Settings) -> Line | None:
    """Return the reference's line that was trained like `line`, `among` those on the same images.

    Settings are compared where training records tell them; where they do not, runs that were named
    by hand have no reference. Of several, it is the one that shares most seeds.
    """
    found = [other for other in among if _is_trained_alike(other, line, settings)]
    return max(found, key=lambda other: len(set(other.seeds) & set(line.seeds)), default=None)


def compare(line: Line, reference: Line, attack: Attack) -> Comparison | None:
    """Return `line` against `reference` under `attack`; None without common seeds and verdicts.

    An image is won when more of the line's seeds withstand the attack on it than of the
    reference's, so that it counts once however many seeds there are: verdicts of one image are
    not independent of each other.
    """
    mine, theirs = line.records.get(attack, {}), reference.records.get(attack, {})
    seeds = [seed for seed in line.seeds if seed in mine and seed in theirs]
    n = line.subject.n
    try:
        margins = [_robust(mine[seed]) - _robust(theirs[seed]) for seed in seeds]
    except RecordError:
        return None
    if not margins:
        return None
    margin = sum(margins[1:], start=margins[0])
    ours = {seed: mine[seed].robust_correct for seed in seeds}
    others = {seed: theirs[seed].robust_correct for seed in seeds}
    return Comparison(
        reference=accuracy(others, n),
        method=accuracy(ours, n),
        difference=gap(ours, others, n),
        won=int((margin > 0).sum()),
        lost=int((margin < 0).sum()),
    )


def _robust(record: AttackRecord) -> "npt.NDArray[np.int_]":
    return unpack_verdicts(record.verdicts.robust, record.n).astype(int)


def _is_trained_alike(other: Line, line: Line, settings: Settings) -> bool:
    known = [settings.get(one.subject.training) for one in (other, line)]
    if known[0] is None or known[1] is None:
        return not other.subject.variant and not line.subject.variant
    return around_method(known[0]) == around_method(known[1])


def _measured_on(line: Line) -> tuple[object, ...]:
    """Return what two lines must share for their verdicts to be paired."""
    subject = line.subject
    images = (subject.split, subject.n, subject.num_test, subject.data_sha256)
    return (subject.arch, *images, subject.precision, line.selection, line.selected_on)


def _row(line: Line, suite: str, compared: Comparison, own_marks: tuple[str, ...]) -> Row:
    cells: dict[str, Cell] = identity(line) | {
        c.CHECKPOINT.key: line.selection,
        c.SEEDS.key: len(compared.difference.seeds) if compared.difference else None,
        c.SUITE.key: suite,
        "reference": compared.reference,
        "robust": compared.method,
        "difference": compared.difference,
        "won": compared.won,
        "lost": compared.lost,
        "p": PValue(p=exact_mcnemar(compared.won, compared.lost)),
    }
    return Row(cells=cells, marks=own_marks)
