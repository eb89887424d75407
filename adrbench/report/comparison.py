"""Each method beside plain adversarial training, image by image, from the verdicts in records."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from adrbench.errors import RecordError
from adrbench.report import columns as c
from adrbench.report.footnotes import figure_notes, marks
from adrbench.report.grouping import Attack, Line, Setting, context, describe
from adrbench.report.run_settings import Settings, around_method, settings_key, settings_marks
from adrbench.report.statistics import Figure, PValue, accuracy, difference
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.records import AttackRecord, unpack_verdicts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REFERENCE = "at"
UNKNOWN_MARK = f"whether {REFERENCE} was trained with the same settings is not known"
NOTES = (
    f"{REFERENCE}, robust: accuracy of {REFERENCE} and of the method, over the training seeds that "
    f"both have; difference: robust - {REFERENCE} in points, seed by seed; the mean of k seeds is "
    "uncertain by about ± / sqrt(k).",
    f"won: images on which more seeds of the method than of {REFERENCE} withstand the attack; "
    "lost: the reverse.",
    "p, one seed: McNemar's exact test of won against lost, two-sided. p, several seeds: the exact "
    "sign-flip permutation test, McNemar's for margins: an image's margin is the number of seeds "
    f"that withstand, less that for {REFERENCE}, and under the null hypothesis either sign is as "
    "likely. It depends on the size of margins, so it does not follow from won and lost.",
    "p is about other images of the kind for these very models; two trainings of one method often "
    "differ so too.",
)
#: What rounding leaves of the probabilities of sums.
SMALLEST = 1e-12
#: So many comparisons are worth a word on how many of them chance alone would single out.
MANY = 20
CHANCE_NOTE = (
    "Were there no differences, about {} of these {} p would be below 0.05 by chance, and together "
    "rather than apart, as rows share models and images; no correction is applied."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method against the reference under one attack, on the same images and training seeds.

    `margins` (n,) are by how many seeds each image was won (lost, below 0).
    """

    reference: Figure | None
    method: Figure | None
    difference: Figure | None
    margins: "npt.NDArray[np.int_]"


def exact_test(margins: Sequence[int]) -> float:
    """Return the two-sided p-value of the exact paired permutation test of margins per image.

    Under the null hypothesis each margin is as likely to have the other sign, so that p is the
    probability that sum e_i |m_i| with signs e_i = +-1 of probability 1/2 is at least as far
    from 0 as sum m_i. For margins of -1, 0 and 1, which is one seed, that is McNemar's test
    (1947) in its exact, binomial form: for 1 won and 5 lost of 6, 2 (1 + 6) / 2^6 = 0.21875.
    Without a margin it is 1.
    """
    sizes = Counter(abs(margin) for margin in margins if margin)
    total = abs(sum(margins))
    if len(sizes) == 1:
        ((size, pairs),) = sizes.items()
        return _binomial_test(pairs, (pairs * size - total) // (2 * size))
    return _convolved_test(sizes, total)


def paired_table(
    setting: Setting, lines: list[Line], intervals: bool, settings: Settings
) -> Table | None:
    """Return our lines beside those of the reference that differ in nothing but the method.

    None where there is no such pair.
    """
    attacks = c.attack_columns(lines)
    own_marks = settings_marks(lines, settings)
    references: dict[_Conditions, list[Line]] = {}
    for line in lines:
        if line.subject.method == REFERENCE:
            references.setdefault(_conditions(line, settings), []).append(line)
    rows = []
    for line in lines:
        among = _find_references(line, references, settings)
        unknown = () if line.subject.training in settings else (UNKNOWN_MARK,)
        for attack, column in attacks.items():
            reference = max(among, key=partial(_count_shared, line, attack), default=None)
            compared = reference and compare(line, reference, attack)
            if reference and compared:
                row_marks = (*marks(line), *marks(reference), *unknown)
                row_marks += own_marks.get(settings_key(line), ())
                cells = _cells(line, column.label, compared)
                rows.append(Row(cells=cells, marks=tuple(dict.fromkeys(row_marks))))
    if not rows:
        return None
    many = len(rows) >= MANY
    chance = (CHANCE_NOTE.format(round(len(rows) / 20), len(rows)),) if many else ()
    return Table(
        name="paired",
        title=f"Beside {REFERENCE}, image by image (%, difference in points), {describe(setting)}",
        context=context(setting, lines),
        columns=c.PAIRED,
        rows=tuple(rows),
        notes=(*NOTES, *chance, *figure_notes(rows, intervals)),
    )


def compare(line: Line, reference: Line, attack: Attack) -> Comparison | None:
    """Return `line` against `reference` under `attack`; None without a seed that both have.

    A seed with verdicts that cannot be read is left out.
    """
    import numpy as np

    mine, theirs = line.records.get(attack, {}), reference.records.get(attack, {})
    margins = {}
    for seed in line.seeds:
        if seed in mine and seed in theirs:
            try:
                margins[seed] = _robust(mine[seed]) - _robust(theirs[seed])
            except RecordError:
                continue
    if not margins or not line.subject.n:
        return None
    ours = {seed: mine[seed].robust_correct for seed in margins}
    others = {seed: theirs[seed].robust_correct for seed in margins}
    n = line.subject.n
    return Comparison(
        reference=accuracy(others, n),
        method=accuracy(ours, n),
        difference=difference(ours, others, n),
        margins=np.sum(list(margins.values()), axis=0),
    )


#: What two lines must share, but for settings: the images, the network, the chosen epoch.
_Conditions = tuple[object, ...]


def _conditions(line: Line, settings: Settings, **changes: Any) -> _Conditions:
    """Return what a line and its reference share; settings as far as a training record has them."""
    subject = line.subject
    images = (subject.split, subject.n, subject.num_test, subject.data_sha256)
    config = settings.get(subject.training)
    trained = around_method(config, **changes) if config else subject.variant
    return (subject.arch, *images, subject.precision, line.selection, line.selected_on, trained)


def _find_references(
    line: Line, references: Mapping[_Conditions, list[Line]], settings: Settings
) -> list[Line]:
    """Return the references under the conditions of `line`.

    AWP goes without Nesterov's momentum, as published, where the reference has it.
    """
    if line.subject.method == REFERENCE or line.selection == "file":
        return []
    found = list(references.get(_conditions(line, settings), ()))
    config = settings.get(line.subject.training)
    if config and "awp" in config.parsed_method().tokens and not config.nesterov:
        found += references.get(_conditions(line, settings, nesterov=True), ())
    return found


def _count_shared(line: Line, attack: Attack, reference: Line) -> int:
    """Return the number of seeds that both have under `attack`."""
    return len(line.records.get(attack, {}).keys() & reference.records.get(attack, {}).keys())


def _robust(record: AttackRecord) -> "npt.NDArray[np.int_]":
    return unpack_verdicts(record.verdicts.robust, record.n).astype(int)


def _cells(line: Line, suite: str, compared: Comparison) -> dict[str, Cell]:
    return c.identity(line) | {
        c.CHECKPOINT.key: line.selection,
        c.CHOSEN_ON.key: line.selected_on,
        c.SEEDS.key: len(compared.difference.seeds) if compared.difference else None,
        c.SUITE.key: suite,
        "reference": compared.reference,
        "robust": compared.method,
        "difference": compared.difference,
        "won": int((compared.margins > 0).sum()),
        "lost": int((compared.margins < 0).sum()),
        "p": PValue(p=exact_test(compared.margins.tolist())),
    }


def _binomial_test(pairs: int, fewer: int) -> float:
    """Return min(1, 2 P(X <= fewer)) for X ~ Binomial(pairs, 1/2), in whole numbers."""
    ways = term = 1
    for k in range(fewer):
        term = term * (pairs - k) // (k + 1)
        ways += term
    p: float = ways / 2 ** (pairs - 1)
    return min(1.0, p)


def _convolved_test(sizes: Counter[int], total: int) -> float:
    """Return P(|S| >= total) for the sum S of as many +-size as `sizes` counts.

    It is good to SMALLEST, and no smaller.
    """
    import numpy as np

    reach = sum(size * count for size, count in sizes.items())
    transform = np.ones(reach + 1, dtype=complex)
    for size, count in sizes.items():
        logs = [
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            for k in range(count + 1)
        ]
        spaced = np.zeros(2 * reach + 1)  # of size (2 k - count) at 2 size k
        spaced[: 2 * size * count + 1 : 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        transform *= np.fft.rfft(spaced)
    distribution = np.fft.irfft(transform, 2 * reach + 1)  # of S, from -reach to reach
    far = abs(np.arange(-reach, reach + 1)) >= total
    return min(1.0, max(SMALLEST, float(distribution[far].sum())))
