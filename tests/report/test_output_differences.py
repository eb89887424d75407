"""Differences of outputs between methods: values, intervals, which pairs, and the tables."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.report import FORMATS, Report, build_report, read_results, render, select_tables
from adrbench.report.outputs.bootstrap import resample_sums
from adrbench.report.outputs.difference_tables import IMAGES_NOTE, SEEDS_NOTE
from adrbench.report.outputs.measures import CALIBRATION, COMPARED, CONSISTENCY, Measure, Pair
from adrbench.report.outputs.predictions import Floats, Predictions
from adrbench.report.outputs.seed_values import SeedValues
from adrbench.report.pairs import ONE_SEED_FOOTNOTE, TWO_SEEDS_FOOTNOTE
from adrbench.report.statistics import Figure
from adrbench.results.outputs import Outputs, OutputsFinder
from report_outputs import make_outputs, save, save_two_methods
from report_records import figure, table
from runner import succeed

NAMES = ("calibration differences", "consistency differences")
NUM_CLASSES = 5


def report_on(directory: Path, **options: Any) -> Report:
    records = read_results([directory])
    return build_report(records, outputs=OutputsFinder.search([directory]), **options)


def measure_seeds(measure: str, seeds: dict[int | None, Predictions]) -> SeedValues:
    own = CALIBRATION[measure]
    contributions = np.stack([own.contribute(one) for one in seeds.values()], axis=1)
    n, k, width = contributions.shape
    resampled = resample_sums(contributions.reshape(n, -1)).reshape(-1, k, width)
    return SeedValues(
        measure=own,
        seeds=tuple(seeds),
        n=n,
        values=own.compute(contributions.sum(axis=0), n),
        resampled=own.compute(resampled, n),
    )


def compare(measure: str, own: list[Predictions], others: list[Predictions]) -> Figure:
    first, second = (measure_seeds(measure, dict(enumerate(one))) for one in (own, others))
    return figure(first.minus(second).figure())


# Values


def one_measure(seeds: tuple[int | None, ...], values: list[float], highest: float) -> SeedValues:
    """Return values whose 4 resamples are 0.1 and 0.2 above and below them."""
    steps = np.array([-0.2, -0.1, 0.1, 0.2])[:, None]
    measure: Measure[Any] = replace(CALIBRATION["brier"], highest=highest)
    own: Floats = np.array(values)
    return SeedValues(measure=measure, seeds=seeds, n=50, values=own, resampled=own + steps)


def test_differences_are_of_shared_seeds() -> None:
    """Seeds 2 and 0 have 0.9 - 0.4 = 0.5 and 0.2 - 0.5 = -0.3, whatever their order."""
    own = one_measure((0, 1, 2), [0.2, 0.7, 0.9], 2)
    found = own.minus(one_measure((2, 0), [0.4, 0.5], 2))
    assert found.seeds == (0, 2)
    assert found.values == pytest.approx([-0.3, 0.5])
    assert figure(found.figure()).mean == pytest.approx(0.1)
    assert figure(found.figure()).std == pytest.approx(0.8 / np.sqrt(2), abs=1e-6)


def test_the_interval_of_two_seeds_by_hand() -> None:
    """Where resamples move both methods equally, only the term of seeds remains.

    The differences -0.3 and 0.5 have the variance 0.32, so that the squared standard error is 0.16,
    with one degree of freedom: t = 12.7062 and the half width 5.08.
    """
    found = one_measure((0, 1), [0.2, 0.9], 6).minus(one_measure((0, 1), [0.5, 0.4], 6)).figure()
    assert figure(found).interval == pytest.approx((0.1 - 5.082482, 0.1 + 5.082482), abs=1e-4)


def test_an_interval_lies_within_the_possible_differences() -> None:
    found = one_measure((0, 1), [0.2, 0.9], 2).minus(one_measure((0, 1), [0.5, 0.4], 2)).figure()
    assert figure(found).interval == (-2, 2)


def test_a_seed_where_one_is_undefined_is_left_out() -> None:
    own = one_measure((0, 1, 2), [0.2, 0.7, np.nan], 2)
    found = figure(own.minus(one_measure((0, 1, 2), [np.nan, 0.5, 0.1], 2)).figure())
    assert found.seeds == (1,)
    assert found.mean == pytest.approx(0.2)
    assert own.minus(one_measure((0, 2), [np.nan, 0.1], 2)).figure() is None


def test_the_table_has_the_differences_of_each_measure(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    calibration, consistency = (table(report_on(tmp_path), name).rows for name in NAMES)
    keys = ("checkpoint", "outputs", "method", "against", "seeds", "n")
    assert [[row.cells[key] for key in keys] for row in calibration] == [
        [epoch, outputs, "adr", "at", 3, 60]
        for epoch in ("best", "last")
        for outputs in ("clean", "adversarial")
    ]
    sides = {s: [make_outputs(seed, sharpness=s) for seed in range(3)] for s in (1.0, 2.0)}
    for row in calibration:
        for name in set(COMPARED) & set(CALIBRATION):
            measure = CALIBRATION[name]
            own, others = (
                [measure.scale * measure.of(side(one, row.cells["outputs"])) for one in sides[s]]
                for s in (1.0, 2.0)
            )
            check(figure(row.cells[name]), np.subtract(own, others))
    for row in consistency:
        for name in set(COMPARED) & set(CONSISTENCY):
            own, others = (
                [CONSISTENCY[name].scale * CONSISTENCY[name].of(pair(one)) for one in sides[s]]
                for s in (1.0, 2.0)
            )
            check(figure(row.cells[name]), np.subtract(own, others))


def side(one: Outputs, name: object) -> Predictions:
    return Predictions(getattr(one, f"{name}_logits"), one.labels)


def pair(one: Outputs) -> Pair:
    return Pair(side(one, "clean"), side(one, "adversarial"), one.linf, one.l2)


def check(found: Figure, differences: Floats) -> None:
    """Check a figure against the differences of its seeds."""
    assert found.mean == pytest.approx(differences.mean(), abs=1e-6)
    assert found.std == pytest.approx(differences.std(ddof=1), abs=1e-6)
    assert found.interval is not None
    assert found.interval[0] <= found.mean <= found.interval[1]


def test_equal_models_do_not_differ(tmp_path: Path) -> None:
    for method in ("at", "adr"):
        for seed in range(3):
            save(tmp_path, make_outputs(seed), seed, method=method)
    rows = [row for name in NAMES for row in table(report_on(tmp_path), name).rows]
    found = [figure(row.cells[name]) for row in rows for name in COMPARED if name in row.cells]
    assert len(found) == 12
    assert {(one.mean, one.std, one.interval) for one in found} == {(0, 0, None)}


# Intervals


def simulate(
    random: np.random.Generator, n: int, k: int, sharpness: tuple[float, float], spread: float
) -> tuple[list[Predictions], list[Predictions]]:
    """Return k seeds of two methods that are right on about the same images.

    They are `sharpness` times as sharp as the truth on average; the factor of each run is
    log-normal with the standard deviation `spread`.
    """
    truth = 1.5 * random.normal(size=(n, NUM_CLASSES))
    cumulated = np.exp(truth).cumsum(axis=1)
    labels = (cumulated < random.random((n, 1)) * cumulated[:, -1:]).sum(axis=1)

    def train(sharp: float) -> Predictions:
        factor = sharp * np.exp(spread * random.normal())
        return Predictions(factor * (truth + random.normal(0, 0.3, truth.shape)), labels)

    first, second = ([train(sharp) for _ in range(k)] for sharp in sharpness)
    return first, second


def true_difference(measure: str, sharpness: tuple[float, float], spread: float) -> float:
    """Return the difference over so many images and runs that chance and bias are small."""
    sides = simulate(np.random.default_rng(0), 4_000, 60, sharpness, spread)
    first, second = (np.mean([CALIBRATION[measure].of(one) for one in side]) for side in sides)
    return CALIBRATION[measure].scale * float(first - second)


@pytest.mark.parametrize(
    ("measure", "k", "sharpness", "least"),
    [
        ("confidence_wrong", 1, (1.4, 1.0), 88),
        ("brier", 3, (1.4, 1.0), 88),
        ("nll", 3, (1.4, 1.4), 88),
        ("ece", 1, (1.4, 1.4), 88),
        ("ece", 3, (1.4, 1.0), 82),
    ],
)
def test_intervals_cover_the_true_difference(
    measure: str, k: int, sharpness: tuple[float, float], least: int
) -> None:
    """At least `least` times in 100: at a coverage of 95 %, rarely fewer than 88.

    The nearly calibrated one of two different models has more bias of the ECE: about 90 %.
    """
    spread = 0.1 if k > 1 else 0.0
    alike = sharpness[0] == sharpness[1]
    truth = 0.0 if alike else true_difference(measure, sharpness, spread)
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(100):
        found = compare(measure, *simulate(random, 400, k, sharpness, spread))
        assert found.interval is not None
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered >= least


def width(found: Figure | None) -> float:
    assert found is not None
    assert found.interval is not None
    return found.interval[1] - found.interval[0]


def test_pairing_narrows_the_interval() -> None:
    """Half widths of independent estimates would add up as squares."""
    sides = simulate(np.random.default_rng(0), 400, 1, (1.4, 1.0), 0.0)
    for measure in ("brier", "nll", "confidence_wrong"):
        apart = [width(measure_seeds(measure, {0: side[0]}).figure()) for side in sides]
        assert width(compare(measure, *sides)) < 0.7 * float(np.hypot(apart[0], apart[1]))


def test_differences_between_runs_widen_the_interval() -> None:
    first, second = simulate(np.random.default_rng(0), 400, 3, (1.4, 1.4), 0.3)
    runs = zip(first, second, strict=True)
    own = [width(compare("confidence_wrong", [one], [other])) for one, other in runs]
    assert width(compare("confidence_wrong", first, second)) > 2 * max(own)


def test_the_interval_of_the_calibration_error_extends_to_less_bias() -> None:
    """A nearly calibrated model has more bias, so that it seems closer to the other than it is."""
    sharpness = (1.4, 1.0)
    truth = true_difference("ece", sharpness, 0.0)
    random = np.random.default_rng(3)
    found = [compare("ece", *simulate(random, 400, 1, sharpness, 0.0)) for _ in range(20)]
    ends = [(one.mean, *one.interval) for one in found if one.interval is not None]
    mean, low, high = np.mean(ends, axis=0)
    assert mean < truth - 1
    assert high - mean > mean - low + 1


# Which models are compared


def save_methods(directory: Path, *methods: str, num_seeds: int = 2) -> None:
    for number, method in enumerate(methods):
        for seed in range(num_seeds):
            own = make_outputs(seed, sharpness=1 + number / 2)
            save(directory, own, seed, method=method, weights=weights_of(method))


def weights_of(method: str) -> str:
    return "average" if method.endswith("wa") else "student"


def pairs_of(report: Report) -> list[tuple[object, object]]:
    return [(row.cells["method"], row.cells["against"]) for row in table(report, NAMES[1]).rows]


def test_each_method_is_compared_with_its_nearest_control_only(tmp_path: Path) -> None:
    save_methods(tmp_path, "at", "at+wa", "adr+wa", "trades+adr")
    found = report_on(tmp_path)
    assert pairs_of(found) == [("at+wa", "at"), ("adr+wa", "at+wa"), ("trades+adr", "at")]
    footnotes = table(found, NAMES[1]).rows[-1].footnotes
    assert not any("also lacks" in text for text in table(found, NAMES[1]).rows[1].footnotes)
    assert "no trades to compare with: at also lacks trades" in footnotes


def test_a_control_without_outputs_counts_as_missing(tmp_path: Path) -> None:
    save_methods(tmp_path, "at", "at+wa", "adr+wa")
    for path in tmp_path.glob("at+wa-*.npz"):
        path.unlink()
    found = report_on(tmp_path)
    assert pairs_of(found) == [("adr+wa", "at")]
    (row,) = table(found, NAMES[1]).rows
    assert "no at+wa to compare with: at also lacks wa" in row.footnotes


def test_there_are_no_tables_without_a_pair(tmp_path: Path) -> None:
    save_methods(tmp_path, "adr+wa", num_seeds=2)
    save(tmp_path, make_outputs(5), 5, method="at+wa", weights="average")
    names = [one.name for one in report_on(tmp_path).tables]
    assert "calibration" in names
    assert not set(NAMES) & set(names)


def test_any_method_can_be_the_reference(tmp_path: Path) -> None:
    save_methods(tmp_path, "at", "at+wa", "adr+wa")
    found = report_on(tmp_path, against="at")
    assert pairs_of(found) == [("at+wa", "at"), ("adr+wa", "at")]


def test_only_seeds_with_outputs_of_both_count(tmp_path: Path) -> None:
    save_methods(tmp_path, "at", "adr", num_seeds=4)
    next(tmp_path.glob("at-*-1-*.npz")).unlink()
    next(tmp_path.glob("adr-*-2-*.npz")).unlink()
    (row,) = table(report_on(tmp_path), NAMES[1]).rows
    assert row.cells["seeds"] == 2
    assert figure(row.cells["kl"]).seeds == (0, 3)
    assert {"outputs of 3 of 4 seeds", TWO_SEEDS_FOOTNOTE} <= set(row.footnotes)


@pytest.mark.parametrize(("num_seeds", "note"), [(1, IMAGES_NOTE), (2, SEEDS_NOTE)])
def test_a_note_says_what_is_random(tmp_path: Path, num_seeds: int, note: str) -> None:
    save_methods(tmp_path, "at", "adr", num_seeds=num_seeds)
    for name in NAMES:
        own = table(report_on(tmp_path), name)
        assert own.notes[0] == note
        for row in own.rows:
            assert (ONE_SEED_FOOTNOTE in row.footnotes) == (num_seeds == 1)
            found = [cell for cell in row.cells.values() if isinstance(cell, Figure)]
            assert found
            assert all((one.std is None) == (num_seeds == 1) for one in found)
            assert all(one.interval is not None for one in found)


# Layout


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_the_tables(tmp_path: Path, form: str) -> None:
    save_two_methods(tmp_path)
    text = render(select_tables(report_on(tmp_path), ["calibration"]), form)
    words = {"csv": "consistency differences", "json": '"calibration differences"'}
    assert words.get(form, "Differences in consistency, cifar10, Linf 8/255") in text


def test_cells_have_a_sign_and_an_interval(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    found = report_on(tmp_path)
    brier = figure(table(found, NAMES[0]).rows[0].cells["brier"])
    assert brier.interval is not None
    low, high = brier.interval
    assert f"{brier.mean:+.3f} [{low:+.3f}, {high:+.3f}]" in render(found, "markdown")
    lines = csv.DictReader(io.StringIO(render(found, "csv")))
    line = next(one for one in lines if (one["table"], one["measure"]) == (NAMES[0], "brier"))
    assert [float(line[key]) for key in ("value", "low", "high")] == [brier.mean, low, high]
    assert (line["against"], line["outputs"], line["seeds"]) == ("at", "clean", "3")


def test_lines_fit_80_columns_and_reports_are_equal(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    first, second = (
        render(select_tables(report_on(tmp_path), ["calibration"]), "terminal", width=80)
        for _ in range(2)
    )
    assert max(map(len, first.splitlines())) <= 80
    assert first == second


def test_the_command_compares_with_any_method(tmp_path: Path) -> None:
    save_methods(tmp_path, "at", "at+wa", "adr+wa")
    done = succeed("report", tmp_path, "--table", "calibration", "--against", "at+wa")
    assert "Differences in calibration, cifar10" in done.out
    assert not done.err
