"""Progress displays, on terminals of several widths and without a terminal."""

import io
import re
import signal
import time
import timeit
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.display import attack, live_lines, training
from adrbench.display.attack import AttackDisplay
from adrbench.display.live_lines import FREE_COLUMNS
from adrbench.display.training import TrainingDisplay
from adrbench.results.history import Counts, HistoryRow

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


@dataclass
class Clock:
    """A clock that stands still between the times that a test sets."""

    now: float = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock, and leave drawing to the test."""
    monkeypatch.setattr(live_lines, "REFRESHES_PER_SECOND", 0.001)
    clock = Clock()
    for module in (attack, training):
        monkeypatch.setattr(module, "time", clock)
    return clock


# Training


def show_training(console: Console, clock: Clock, first_epoch: int = 3) -> None:
    with TrainingDisplay(console, "a run", "eps 8/255") as display:
        display.begin(config(), 390, first_epoch, 0)
        clock.now += 39
        display.step(first_epoch, 390, 1.5, ANNEALED)
        clock.now += 3
        display.epoch(ROW)
        clock.now += 1.7
        display.step(4, 17, 1.5, ANNEALED)
        display.live.refresh()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_progress_of_training(width: int, clock: Clock) -> None:
    """17 steps of 128 images in 1.7 s; 407 steps in 43.7 s, and 76,813 to go, leave 2:17:27."""
    console = make_console(width)
    show_training(console, clock)
    lines = drawn(console)
    assert max(map(len, lines)) <= width
    place = [index for index, line in enumerate(lines) if "step 17/390" in line][-1]
    assert re.fullmatch(r"epoch 4/200  step 17/390 [━╸╺ ]+ 1,280 img/s  2:17:27 left", lines[place])
    assert lines[place + 1] == "loss 1.500  tau 2.20  lambda 0.80"
    assert lines[place + 2] == "val: student 81.1/52.2  average 82.3/53.4"


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_is_no_error(width: int, clock: Clock) -> None:
    console = make_console(width)
    show_training(console, clock)
    show_attack(console, clock)
    assert max(map(len, drawn(console))) <= width


def test_elsewhere_an_epoch_is_one_line(clock: Clock) -> None:
    console = make_console(80, is_terminal=False)
    show_training(console, clock)
    assert drawn(console) == [
        "a run: eps 8/255",
        "each epoch: mean loss; validation accuracy (%), clean/PGD-10; seconds",
        "resuming at epoch 3 of 200",
        "epoch 3/200  loss 1.250  student 81.1/52.2  average 82.3/53.4  42.0 s",
    ]


def test_without_an_average_an_epoch_has_the_accuracies_of_the_student() -> None:
    console = make_console(80, is_terminal=False)
    with TrainingDisplay(console, "a run") as display:
        display.begin(replace(config(), select="test"), 390, 1, 0)
        display.epoch(replace(ROW, counts={"student": ROW.counts["student"]}))
    explanation, epoch = drawn(console)[1:]
    assert "test accuracy" in explanation
    assert epoch == "epoch 3/200  loss 1.250  student 81.1/52.2  42.0 s"


def test_the_longest_line_of_an_epoch_fits_80_columns() -> None:
    console = make_console(80, is_terminal=False)
    all_correct = Counts(clean_correct=1000, robust_correct=1000)
    longest = replace(
        ROW,
        epoch=1000,
        train_loss=12.3456,
        counts={"student": all_correct, "average": all_correct},
        seconds=1234.5,
    )
    with TrainingDisplay(console, "a run") as display:
        display.begin(replace(config(), epochs=1000), 390, 1, 0)
        display.epoch(longest)
    lines = drawn(console)[1:]
    assert lines[-1].endswith("average 100.0/100.0  1234.5 s")
    assert max(map(len, lines)) <= 80


def test_before_the_first_step_the_elapsed_time_is_shown(clock: Clock) -> None:
    console = make_console(80)
    with TrainingDisplay(console, "a run") as display:
        clock.now += 2
        display.live.refresh()
        display.begin(config(), 390, 1, 0)
        clock.now += 75
        display.live.refresh()
    lines = drawn(console)
    assert any(re.fullmatch(r"preparing the run ━+ 0:00:02", line) for line in lines)
    pattern = r"epoch 1/200  preparing the first step ━+ 0:01:15"
    assert re.fullmatch(pattern, lines[-1])


def test_the_lines_move_without_calls_from_the_work() -> None:
    console = make_console(80)
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 1, 0)
        deadline = time.monotonic() + 10
        while "0:00:01" not in "".join(drawn(console)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "0:00:01" in "".join(drawn(console))


def test_a_validation_is_shown_until_its_epoch_is_finished(clock: Clock) -> None:
    console = make_console(80)
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 1, 0)
        clock.now += 39
        display.step(1, 390, 1.5, ANNEALED)
        display.validation("average", "pgd-10", 250, 1000)
        display.live.refresh()
        validating = drawn(console)
        display.epoch(ROW)
        display.live.refresh()
    pattern = r"epoch 1/200  validating average pgd-10 [━╸╺ ]+ 250/1,000  2:09:21 left"
    assert any(re.fullmatch(pattern, line) for line in validating)
    assert "validating" not in drawn(console)[-1]


def test_a_run_resumed_before_a_validation_shows_it(clock: Clock) -> None:
    console = make_console(80)
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 3, 390)
        display.validation("student", "clean", 0, 1000)
        display.live.refresh()
    assert re.fullmatch(
        r"epoch 3/200  validating student clean [━╸╺ ]+ 0/1,000", drawn(console)[-1]
    )


def test_a_run_resumed_within_an_epoch_shows_where_and_counts_from_there(clock: Clock) -> None:
    """30 steps of 128 images, in ten seconds, after the 360 that were taken before."""
    console = make_console(120)
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 3, 360)
        clock.now += 10.0
        display.step(3, 390, 1.5, ANNEALED)
        display.live.refresh()
    lines = drawn(console)
    assert "resuming at epoch 3 of 200, after 360 of 390 steps" in lines
    assert any("384 img/s" in line for line in lines)


NOTICES = {
    signal.SIGINT: "finishing this step, then saving; Ctrl-C once more to quit now",
    signal.SIGTERM: "SIGTERM: finishing this step, then saving; SIGTERM once more to quit now",
}


def test_a_stream_without_a_file_descriptor_gets_no_notice() -> None:
    """The signal handler must not raise, for example in a notebook."""
    console = make_console(80, is_terminal=False)
    TrainingDisplay(console, "a run").acknowledge(signal.SIGINT)
    assert drawn(console) == []


@pytest.mark.parametrize("number", NOTICES)
def test_a_signal_is_acknowledged_in_the_live_lines(number: signal.Signals, clock: Clock) -> None:
    console = make_console(80)
    with TrainingDisplay(console, "a run") as display:
        display.begin(config(), 390, 1, 0)
        display.acknowledge(number)
        display.live.refresh()
    assert drawn(console)[-1] == NOTICES[number]


def test_a_signal_is_acknowledged_by_a_line_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    with path.open("w") as stream:
        display = TrainingDisplay(Console(file=stream), "a run")
        display.acknowledge(signal.SIGINT)
    assert path.read_text() == f"{NOTICES[signal.SIGINT]}\n"


# Attacks


def show_attack(console: Console, clock: Clock) -> None:
    label = "a run best student autoattack"
    with AttackDisplay(console, label, num_images=10_000) as display:
        clock.now += 1
        display.batch("clean", 10_000, 10_000, 8_412)
        display.batch("apgd-ce", 0, 8_412, 8_412)
        clock.now += 10
        display.batch("apgd-ce", 250, 8_412, 8_300)
        display.live.refresh()
        clock.now += 1
        display.passes("apgd-ce", 50, 100, 250)
        display.live.refresh()
        clock.now += 100
        display.batch("apgd-ce", 8_412, 8_412, 8_211)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_progress_of_an_attack(width: int, clock: Clock) -> None:
    """After 10 s, 250 of 8,412 images leave 326 s; half a batch more after 11 s, 236 s."""
    console = make_console(width)
    show_attack(console, clock)
    lines = drawn(console)
    assert max(map(len, lines)) <= width - FREE_COLUMNS
    for left, below in (
        ("0:05:26", "8,300/10,000 robust  0:00:11 elapsed"),
        ("0:03:56", "8,300/10,000 robust  pass 50/100  4 passes/s  0:00:12 elapsed"),
    ):
        line = rf"apgd-ce [━╸╺ ]+ 250/8,412 images  {left} left"
        (place, *_) = (index for index, text in enumerate(lines) if re.fullmatch(line, text))
        assert lines[place + 1] == below


def test_the_bar_moves_within_a_batch(clock: Clock) -> None:
    """Of the only batch, a fourth and then three fourths are done."""
    console = make_console(40 + FREE_COLUMNS)
    lengths = []
    with AttackDisplay(console, "a run", num_images=250) as display:
        display.batch("square", 0, 250, 250)
        for done in (1250, 3750):
            clock.now += 1
            display.passes("square", done, 5000, 250)
            display.live.refresh()
            line = next(line for line in reversed(drawn(console)) if line.startswith("square"))
            lengths.append(line.count("━"))
        line = drawn(console)[-1]
    assert lengths[0] < lengths[1]
    assert "query 3,750/5,000" in line


def test_an_unknown_number_of_passes_is_no_error(clock: Clock) -> None:
    console = make_console(80)
    with AttackDisplay(console, "a run", num_images=250) as display:
        display.passes("before the attacks", 3, 0, 16)
        display.live.refresh()
        before = drawn(console)[-2:]
        display.batch("mine", 0, 250, 250)
        clock.now += 2
        display.passes("mine", 5, 0, 250)
        display.live.refresh()
        within = drawn(console)[-2:]
        display.passes("mine", 12, 10, 250)  # more than announced
        display.live.refresh()
    assert before[0].startswith("before the attacks ━")
    assert re.fullmatch(r"mine [━╸╺ ]+ 0/250 images", within[0])
    assert within[1].startswith("250/250 robust  pass 5  ")
    assert drawn(console)[-2].endswith("0/250 images  0:00:00 left")


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    """100 passes in each of ten seconds, then 20 in each of five, over several batches."""
    console = make_console(80)
    with AttackDisplay(console, "a run", num_images=1500) as display:
        display.batch("pgd-20", 0, 1500, 1500)
        for second in range(15):
            clock.now += 1
            display.passes("pgd-20", 100 if second < 10 else 20, 100, 100)
            display.live.refresh()
            if second == 9:
                fast = drawn(console)[-1]
            if second < 14:
                display.batch("pgd-20", 100 * (second + 1), 1500, 1500)
    assert "100 passes/s" in fast
    assert "20 passes/s" in drawn(console)[-1]


def test_a_long_name_of_a_stage_is_shortened(clock: Clock) -> None:
    console = make_console(80)
    name = "a-stage-of-a-plugin-with-a-very-long-name"
    with AttackDisplay(console, "a run", num_images=10_000) as display:
        display.batch(name, 9_000, 10_000, 10_000)
        clock.now += 4000
        display.passes(name, 12_345, 50_000, 250)
        display.live.refresh()
        display.batch(name, 10_000, 10_000, 10_000)
    lines = drawn(console)
    assert max(map(len, lines)) <= 80 - FREE_COLUMNS
    assert "  a-stage-of-a-plugin-w... 10,000/10,000 robust after 4000.0 s" in lines


def test_a_call_for_a_pass_takes_less_than_two_microseconds() -> None:
    display = AttackDisplay(make_console(80), "a run", num_images=250)
    times = timeit.repeat(lambda: display.passes("square", 1, 5000, 250), number=10_000, repeat=5)
    assert min(times) / 10_000 < 2e-6


def test_a_stage_is_one_line_without_a_terminal(clock: Clock) -> None:
    console = make_console(80, is_terminal=False)
    show_attack(console, clock)
    lines = drawn(console)
    assert lines[0] == "a run best student autoattack"
    assert lines[1:] == [
        "  clean     8,412/10,000 correct after 1.0 s",
        "  apgd-ce   8,211/10,000 robust after 112.0 s",
    ]
