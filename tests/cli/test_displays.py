"""Progress displays, on terminals of several widths and without a terminal."""

import io
import itertools
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from adrbench.cli import displays
from adrbench.cli.displays import AttackDisplay, TrainingDisplay
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.results.history import HistoryRow

ROW = HistoryRow.from_json(
    {
        "epoch": 3,
        "train_loss": 1.25,
        "lr": 0.1,
        "temperature": 2.25,
        "interpolation": 0.75,
        "select": "val",
        "select_n": 1000,
        "student_clean_correct": 811,
        "student_robust_correct": 522,
        "average_clean_correct": 823,
        "average_robust_correct": 534,
        "images_per_second": 1164.2,
        "seconds": 42.04,
    }
)
ANNEALED = {"temperature": 2.2, "interpolation": 0.8}


def config() -> TrainConfig:
    preset = find_preset("cifar10", "resnet18", parse_method("adr"), num_train=50_000)
    return TrainConfig.of(
        dataset="cifar10", arch="resnet18", method="adr", val_size=1000, **preset.values, preset="p"
    )


def make_console(width: int, is_terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None)


def drawn(console: Console) -> list[str]:
    """Return the lines that were written, without control sequences."""
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", console.file.getvalue())
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the clock by one second at each reading."""
    seconds = itertools.count()
    monkeypatch.setattr(displays, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))


def show_training(console: Console, first_epoch: int = 3) -> None:
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, first_epoch, 0)
        display.step(first_epoch, 390, 1.5, ANNEALED)
        display.epoch(ROW)
        display.step(4, 17, 1.5, ANNEALED)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_progress_of_training(width: int) -> None:
    console = make_console(width)
    show_training(console)
    lines = drawn(console)
    assert max(map(len, lines)) <= width
    place = [index for index, line in enumerate(lines) if "step 17/390" in line][-1]
    assert re.fullmatch(r"epoch 4/200  step 17/390 [━╸╺ ]+ 2,176 img/s  0:09:26 left", lines[place])
    assert lines[place + 1] == "loss 1.500  tau 2.20  lambda 0.80"
    accuracies = "student clean 81.1 robust 52.2; average clean 82.3 robust 53.4"
    assert lines[place + 2] == f"val: {accuracies}"


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_is_no_error(width: int) -> None:
    console = make_console(width)
    show_training(console)
    assert max(map(len, drawn(console))) <= width


def test_elsewhere_an_epoch_is_one_line() -> None:
    console = make_console(80, is_terminal=False)
    show_training(console)
    assert drawn(console) == [
        "a run: p",
        "resuming at epoch 3 of 200",
        "epoch 3/200  loss 1.250  tau 2.25  lambda 0.75  val: student clean 81.1 robust 52.2; "
        "average clean 82.3 robust 53.4  1,164 img/s  42.0 s",
    ]


def test_a_method_without_adr_has_no_annealed_numbers() -> None:
    console = make_console(80, is_terminal=False)
    plain = replace(ROW, annealed={})
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 1, 0)
        display.epoch(plain)
    assert drawn(console)[1].startswith("epoch 3/200  loss 1.250  val: student")


def show_attack(console: Console) -> None:
    label = "a run best student autoattack"
    with AttackDisplay(console, label, num_images=10_000) as display:
        display.batch("clean", 10_000, 10_000, 8_412)
        display.batch("apgd-ce", 0, 8_412, 8_412)
        display.batch("apgd-ce", 250, 8_412, 8_300)
        display.progress.refresh()
        display.batch("apgd-ce", 8_412, 8_412, 8_211)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_progress_of_an_attack(width: int) -> None:
    console = make_console(width)
    show_attack(console)
    lines = drawn(console)
    assert max(map(len, lines)) <= width
    assert any(
        re.search(r"apgd-ce +[━╸╺]+ +250/8412 8,300/10,000 robust 0:00:00 ", line) for line in lines
    )


def test_a_stage_is_one_line_without_a_terminal() -> None:
    console = make_console(80, is_terminal=False)
    show_attack(console)
    lines = drawn(console)
    assert lines[0] == "a run best student autoattack"
    assert lines[1:] == [
        "  clean     8,412/10,000 correct after 1.0 s",
        "  apgd-ce   8,211/10,000 robust after 2.0 s",
    ]


def test_a_run_resumed_within_an_epoch_shows_where_and_counts_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """30 steps of 128 images, in ten seconds, after the 360 that were taken before."""
    console, now = make_console(120), 100.0
    monkeypatch.setattr(displays, "time", SimpleNamespace(perf_counter=lambda: now))
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 3, 360)
        now += 10.0
        display.step(3, 390, 1.5, ANNEALED)
    lines = drawn(console)
    assert "resuming at epoch 3 of 200, after 360 of 390 steps" in lines
    assert any("384 img/s" in line for line in lines)
