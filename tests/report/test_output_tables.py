"""Tables of outputs: where they come from, what they show, in every format, and bad files."""

import csv
import io
import logging
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.report import FORMATS, Report, build_report, read_results, render, select_tables
from adrbench.report.outputs import reading
from adrbench.report.outputs.measures import CALIBRATION
from adrbench.report.outputs.predictions import Predictions
from adrbench.results import outputs as files
from adrbench.results.outputs import Outputs, OutputsFinder
from report_outputs import make_outputs, outcomes, save, save_two_methods
from report_records import figure, table
from runner import succeed

OF_OUTPUTS = ["calibration", "consistency", "per-class robust accuracy", "confusion"]


def report_on(directory: Path, **options: Any) -> Report:
    records = read_results([directory])
    return build_report(records, outputs=OutputsFinder.search([directory]), **options)


def names(report: Report) -> list[str]:
    return [one.name for one in report.tables]


def csv_rows(report: Report, name: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(render(report, "csv")))
    return [row for row in rows if row["table"] == name]


# Values


def test_calibration_is_averaged_over_seeds_with_an_interval(tmp_path: Path) -> None:
    seeds = [make_outputs(seed) for seed in range(3)]
    for seed, outputs in enumerate(seeds):
        save(tmp_path, outputs, seed)
    clean, adversarial = table(report_on(tmp_path), "calibration").rows
    for row, name in ((clean, "clean"), (adversarial, "adversarial")):
        assert (row.cells["outputs"], row.cells["seeds"], row.cells["n"]) == (name, 3, 60)
        predictions = [Predictions(getattr(one, f"{name}_logits"), one.labels) for one in seeds]
        for column, measure in CALIBRATION.items():
            found = figure(row.cells[column])
            values = [measure.scale * measure.of(one) for one in predictions]
            assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
            assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-6)
            assert found.interval is not None
            low, high = found.interval
            assert 0 <= low < high <= measure.scale * measure.highest


def test_equal_outputs_are_consistent(tmp_path: Path) -> None:
    one = make_outputs()
    save(tmp_path, replace(one, adversarial_logits=one.clean_logits))
    (row,) = table(report_on(tmp_path), "consistency").rows
    assert (figure(row.cells["kl"]).mean, figure(row.cells["total_variation"]).mean) == (0, 0)
    assert figure(row.cells["linf"]).mean == pytest.approx(8 / 255, abs=1e-6)


def test_classes_count_the_outcomes_of_the_record(tmp_path: Path) -> None:
    """The outputs of an image that an earlier step of the attack fooled may be right."""
    own = make_outputs()
    own = replace(own, adversarial_logits=own.clean_logits)
    save(tmp_path, own, robust=np.zeros(60, np.bool_))
    found = report_on(tmp_path)
    assert [figure(row.cells["robust"]).mean for row in table(found, OF_OUTPUTS[2]).rows] == [0] * 4
    (statistics,) = found.outputs
    assert statistics.adversarial.accuracy == statistics.clean.accuracy


def test_classes_add_up_to_the_accuracy_of_all(tmp_path: Path) -> None:
    own = make_outputs()
    record = save(tmp_path, own)
    rows = table(report_on(tmp_path), "per-class robust accuracy").rows
    assert [row.cells["class"] for row in rows] == ["class 0", "class 1", "class 2", "class 3"]
    robust = [figure(row.cells["robust"]) for row in rows]
    clean = [figure(row.cells["clean"]) for row in rows]
    assert sum(sum(one.correct) for one in robust) == record.robust_correct
    assert sum(sum(one.correct) for one in clean) == record.clean_correct
    assert sum(one.n for one in robust) == 60


def test_confusion_counts_labels_and_predictions(tmp_path: Path) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    own = make_outputs(n=4, num_classes=3)
    own = replace(own, labels=np.array([0, 0, 1, 2]), clean_logits=logits)
    save(tmp_path, replace(own, adversarial_logits=logits[[1, 1, 2, 0]]))
    found = report_on(tmp_path)
    (statistics,) = found.outputs
    assert statistics.clean.confusion_by_seed == {
        (0, 0): (1,),
        (0, 1): (1,),
        (1, 1): (1,),
        (2, 2): (1,),
    }
    assert statistics.adversarial.confusion_by_seed == {(0, 1): (2,), (1, 1): (1,), (2, 0): (1,)}
    shown = [row.cells for row in table(found, "confusion").rows if row.is_shown]
    pairs = [(cells["class"], cells["predicted"]) for cells in shown]
    assert pairs == [("class 0", "class 1"), ("class 2", "class 0")]
    assert [figure(cells["adversarial"]).mean for cells in shown] == [100, 100]
    assert [figure(cells["clean"]).mean for cells in shown] == [50, 0]


def test_figures_get_bins_histograms_and_a_gallery(tmp_path: Path) -> None:
    seeds = [make_outputs(seed) for seed in range(2)]
    for seed, own in enumerate(seeds):
        save(tmp_path, own, seed)
    (statistics,) = report_on(tmp_path).outputs
    side = statistics.clean
    right, wrong = side.histogram_right.sum(), side.histogram_wrong.sum()
    confusion = side.confusion_by_seed
    assert right == sum(sum(counts) for (i, j), counts in confusion.items() if i == j)
    assert (right + wrong, sum(map(sum, confusion.values()))) == (120, 120)
    bins = side.reliability
    assert bins.count.sum() == 120
    is_used = bins.count > 0
    outcomes_sum = (bins.accuracy * bins.count)[is_used].sum()
    assert outcomes_sum == pytest.approx(right)
    assert np.isnan(bins.confidence[~is_used]).all()
    assert statistics.gallery is not None
    assert np.array_equal(statistics.gallery.images, seeds[0].images)
    assert np.array_equal(statistics.gallery.clean_logits, seeds[0].clean_logits[:2])


# Layout


def test_methods_stand_side_by_side(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    rows = table(report_on(tmp_path), "calibration").rows
    assert [[row.cells[key] for key in ("checkpoint", "outputs", "method")] for row in rows] == [
        [epoch, outputs, method]
        for epoch in ("best", "last")
        for outputs in ("clean", "adversarial")
        for method in ("at", "adr")
    ]


def test_few_of_many_classes_are_shown_and_all_are_exported(tmp_path: Path) -> None:
    save_two_methods(tmp_path, n=200, num_classes=30)
    found = report_on(tmp_path)
    rows = table(found, "per-class robust accuracy").rows
    assert (len(rows), sum(row.is_shown for row in rows)) == (30 * 4, 10 * 4)
    best = [row for row in rows if row.cells["checkpoint"] == "best"]
    shown = {row.cells["class"] for row in best if row.is_shown}
    assert len(shown) == 10
    means: dict[object, float] = {}
    for row in best:
        means[row.cells["class"]] = (
            means.get(row.cells["class"], 0) + figure(row.cells["robust"]).mean
        )
    assert max(means[one] for one in shown) <= min(means[one] for one in means if one not in shown)
    text = render(select_tables(found, ["classes"]), "terminal", width=80)
    assert "the 10 least robust classes; JSON and CSV have all." in text
    exported = csv_rows(found, "per-class robust accuracy")
    assert len({row["class"] for row in exported}) == 30
    pairs = csv_rows(found, "confusion")
    assert len(pairs) > 5 * 4 * 2
    assert text.count("class ") < len(pairs)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_the_tables(tmp_path: Path, form: str) -> None:
    save_two_methods(tmp_path)
    text = render(select_tables(report_on(tmp_path), ["calibration", "classes"]), form)
    words = {"csv": "confidence_wrong", "json": '"confusion"'}
    assert words.get(form, "Calibration, cifar10, Linf 8/255") in text


def test_intervals_are_shown_with_the_decimals_of_their_column(tmp_path: Path) -> None:
    save(tmp_path, make_outputs())
    built = select_tables(report_on(tmp_path, intervals=True), ["calibration"])
    (clean, _) = table(built, "calibration").rows
    brier = figure(clean.cells["brier"])
    assert brier.interval is not None
    shown = f"{brier.mean:.3f} [{brier.interval[0]:.3f}, {brier.interval[1]:.3f}]"
    text = render(built, "markdown")
    assert shown in text
    assert "95 % interval, only images random" in text
    assert "ECE is biased upwards" in text
    (row, *_) = csv_rows(built, "calibration")
    assert row["measure"] == "accuracy"
    assert float(row["low"]) < float(row["high"])


@pytest.mark.parametrize(
    ("seeds", "note"),
    [
        ({"at": 1, "adr": 1}, "only images random."),
        ({"at": 2, "adr": 2}, "seeds and images both random."),
        ({"at": 2, "adr": 1}, "seeds and images both random; of one seed, only images."),
    ],
    ids=["one", "several", "both"],
)
def test_a_note_says_what_is_random(tmp_path: Path, seeds: dict[str, int], note: str) -> None:
    for method, number in seeds.items():
        for seed in range(number):
            save(tmp_path, make_outputs(seed), seed, method=method)
    for name in OF_OUTPUTS[:2]:
        notes = table(report_on(tmp_path, intervals=True), name).notes
        assert f"[low, high]: 95 % interval, {note}" in notes


def test_lines_of_the_csv_are_distinct(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    rows = list(csv.DictReader(io.StringIO(render(report_on(tmp_path), "csv"))))
    values = ("value", "std", "low", "high", "n", "seeds", "marks")
    keys = [tuple(item for item in row.items() if item[0] not in values) for row in rows]
    assert len(set(keys)) == len(keys)


# Files


def test_there_are_no_tables_without_outputs(tmp_path: Path) -> None:
    save(tmp_path, make_outputs())
    with_outputs = names(report_on(tmp_path))
    records = read_results([tmp_path])
    assert [one for one in with_outputs if one not in OF_OUTPUTS] == names(build_report(records))
    next(tmp_path.glob("*.npz")).unlink()
    assert names(report_on(tmp_path)) == names(build_report(records))


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("damage", "warnings"), [(Path.unlink, 0), (spoil, 1)], ids=["missing", "changed"]
)
def test_a_seed_without_its_file_is_left_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    warnings: int,
) -> None:
    for seed in range(3):
        save(tmp_path, make_outputs(seed), seed)
    damage(sorted(tmp_path.glob("*.npz"))[1])
    with caplog.at_level(logging.WARNING):
        (row, _) = table(report_on(tmp_path), "calibration").rows
    assert (row.cells["seeds"], figure(row.cells["ece"]).seeds) == (2, (0, 2))
    assert "outputs of 2 of 3 seeds" in row.footnotes
    assert [one.startswith("left out: ") for one in caplog.messages] == [True] * warnings


@pytest.mark.parametrize(
    ("outputs", "changes", "message"),
    [
        (make_outputs(), {"num_classes": 5}, "it has 60 images of 4 classes, its record 60 of 5"),
        (
            make_outputs(clean_logits=np.full((60, 4), np.nan, np.float32)),
            {},
            "the logits of 60 images are not finite",
        ),
    ],
    ids=["classes", "not finite"],
)
def test_outputs_that_cannot_be_used_are_left_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    outputs: Outputs,
    changes: dict[str, Any],
    message: str,
) -> None:
    save(tmp_path, outputs)
    records = [replace(one, **changes) for one in read_results([tmp_path])]
    report = build_report(records, outputs=OutputsFinder.search([tmp_path]))
    assert not set(names(report)) & set(OF_OUTPUTS)
    assert caplog.messages == [f"left out: at-best-0-pgd-20.npz is not usable: {message}."]


def test_outputs_for_which_memory_is_short_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, make_outputs())

    def exhaust(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "summarize_seed", exhaust)
    assert not set(names(report_on(tmp_path))) & set(OF_OUTPUTS)
    assert caplog.messages == ["left out: at-best-0-pgd-20.npz needs more memory than there is."]


def test_many_classes_need_little_memory(tmp_path: Path) -> None:
    """A dense matrix of their confusions would have 10^9 entries."""
    save(tmp_path, make_outputs(n=3, num_classes=31_623, class_names=()))
    tracemalloc.start()
    found = report_on(tmp_path).outputs
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()
    assert sum(map(sum, found[0].clean.confusion_by_seed.values())) == 3


def test_seeds_with_other_images_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_outputs(0), make_outputs(1)
    save(tmp_path, first, 0)
    save(tmp_path, replace(second, labels=np.zeros_like(second.labels)), 1)
    (row, _) = table(report_on(tmp_path), "calibration").rows
    assert row.cells["seeds"] == 1
    (message,) = caplog.messages
    assert message == "left out: the outputs of cifar10-resnet18-at-seed1 are on other images."


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_two_methods(tmp_path)
    read: list[str] = []
    original = files.read_outputs

    def count(path: Path, file: files.OutputsFile) -> Outputs:
        read.append(path.name)
        return original(path, file)

    monkeypatch.setattr(files, "read_outputs", count)
    render(report_on(tmp_path), "terminal")
    assert sorted(read) == sorted(path.name for path in tmp_path.glob("*.npz"))
    assert len(read) == 12


def test_a_class_without_images_or_right_predictions_has_dashes(tmp_path: Path) -> None:
    own = make_outputs()
    is_zero = np.zeros_like(own.labels)
    logits = np.tile(np.array([0, 5, 1, 1], np.float32), (60, 1))
    save(tmp_path, replace(own, labels=is_zero, clean_logits=logits, adversarial_logits=logits))
    found = report_on(tmp_path)
    rows = table(found, "per-class robust accuracy").rows
    assert [row.cells["robust"] is None for row in rows] == [False, True, True, True]
    clean, _ = table(found, "calibration").rows
    assert clean.cells["confidence_right"] is None
    assert not outcomes(own)[1].all()
    assert " - " in render(select_tables(found, ["calibration"]), "markdown")


# The command


def test_the_command_shows_the_tables(tmp_path: Path) -> None:
    save_two_methods(tmp_path)
    done = succeed("report", tmp_path, "--table", "calibration")
    assert "Calibration, cifar10" in done.out
    assert "Consistency of clean and adversarial outputs" in done.out
    assert "confusions" not in done.out
    assert not done.err


def test_the_command_reads_no_outputs_for_other_tables(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, make_outputs())
    spoil(next(tmp_path.glob("*.npz")))
    succeed("report", tmp_path, "--table", "accuracy")
    assert not caplog.messages
    succeed("report", tmp_path, "--table", "accuracy,calibration")
    (message,) = caplog.messages
    assert message.endswith("has changed since its record was written.")
