"""Whether a clean accuracy and an average are plausible: by hand, and in records."""

import math
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.evaluation.plausibility import Accuracy, doubt_accuracy, doubt_average
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.models.architectures import build_model
from adrbench.results.records import AttackRecord, read_records
from messages import assert_one_sentence
from runner import QUICK, Outcome, succeed

HALF, CHANCE = "is less than half of that recorded in training", "does not exceed chance"


@pytest.mark.parametrize(
    ("correct", "n", "num_classes", "recorded", "expected"),
    [
        # Chance is 10 % and its standard error at 200 images 2.1 %: up to 16.4 %, 32 images.
        (32, 200, 10, None, {CHANCE}),
        (33, 200, 10, None, set()),
        (28, 200, 10, (92, 100), {HALF, CHANCE}),
        (28, 200, 10, (29, 100), {CHANCE}),
        # 45 % is under half of 92 %, 46 % is not.
        (90, 200, 10, (92, 100), {HALF}),
        (92, 200, 10, (92, 100), set()),
        # With 10 images, 30 % is within three standard errors of chance, and of 55 %; so is 10 %.
        (3, 10, 10, None, set()),
        (1, 10, 10, None, set()),
        (0, 10, 10, None, {CHANCE}),
        # A model with 92 % has 5 of 10 correct with probability 0.05 %; half is 4.6.
        (5, 10, 10, (92, 100), set()),
        (4, 10, 10, (92, 100), {HALF}),
        # One with 20 % has none of 10 correct with probability 11 %; one with 50 % hardly ever.
        (0, 10, 100, (20, 100), {CHANCE}),
        (0, 10, 100, (50, 100), {HALF, CHANCE}),
        # Two classes: 50 % + 3 * 5 % is within three standard errors of 75 % up to 62 %.
        (62, 100, 2, None, {CHANCE}),
        (63, 100, 2, None, set()),
        (10, 10, 2, None, set()),
        (1, 1, 2, None, set()),
        (0, 1, 10, None, set()),
        # A hundred classes: 1 % + 3 * 0.1 % of 10,000.
        (129, 10_000, 100, None, {CHANCE}),
        (130, 10_000, 100, None, set()),
    ],
)
def test_clean_accuracies(
    correct: int,
    n: int,
    num_classes: int,
    recorded: tuple[int, int] | None,
    expected: set[str],
) -> None:
    before = Accuracy(correct=recorded[0], n=recorded[1]) if recorded else None
    doubts = list(
        doubt_accuracy(Accuracy(correct=correct, n=n), num_classes=num_classes, recorded=before)
    )
    assert {words for words in (HALF, CHANCE) for text in doubts if words in text} == expected
    assert len(doubts) == len(expected)
    for text in doubts:
        assert_one_sentence(text, f"({correct:,} of {n:,})", "normalization")


def test_a_fair_classifier_of_ten_images_is_hardly_ever_doubted() -> None:
    """At 55 % of ten classes, only 0 of 10 is doubted: 0.45^10 is 0.03 %."""
    chance = sum(
        math.comb(10, k) * 0.55**k * 0.45 ** (10 - k)
        for k in range(11)
        if list(doubt_accuracy(Accuracy(correct=k, n=10), num_classes=10))
    )
    assert chance < 0.001


@pytest.mark.parametrize(
    ("steps", "decay", "words"),
    [
        (149, 0.98, "149 updates, but with decay 0.98 they need 150, 3 / (1 - decay), to catch up"),
        (20, 0.98, "the initial weights still contribute 67 %"),
        (150, 0.98, None),
        (600, 0.995, None),
        (599, 0.995, "with decay 0.995 they need 600,"),
        # In floating point 3 / (1 - 0.9) is 30.000000000000007 and 30 * (1 - 0.9) under 3.
        (30, 0.9, None),
        (29, 0.9, "with decay 0.9 they need 30,"),
        # 3 / 0.35 is 8.57.
        (9, 0.65, None),
        (8, 0.65, "with decay 0.65 they need 9,"),
        (5, 1.0, "need infinitely many, 3 / (1 - decay), to catch up: the initial weights still "
         "contribute 100 %"),
        (3, 0.0, None),
    ],
)  # fmt: skip
def test_averages_that_have_not_caught_up(steps: int, decay: float, words: str | None) -> None:
    doubts = list(doubt_average(steps=steps, decay=decay))
    assert len(doubts) == (words is not None)
    for text in doubts:
        assert words is not None
        assert_one_sentence(text, words, "attack the student weights")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch on the digits, 20 steps, with averaged weights."""
    out = tmp_path_factory.mktemp("trained")
    succeed(
        "train", "digits", "--method", "wa", *QUICK, "--name", "run",
        "--out", out, "--results", out / "trained",
    )  # fmt: skip
    return out / "run" / "last.pt"


def attack(target: Path, out: Path, *options: str) -> tuple[AttackRecord, Outcome]:
    outcome = succeed("attack", target, "--suite", "fgsm", "--out", out, *options)
    (record,) = read_records(out)
    assert isinstance(record, AttackRecord)
    return record, outcome


def test_an_average_of_few_steps_is_doubted_in_output_and_record(
    trained: Path, tmp_path: Path
) -> None:
    record, outcome = attack(trained, tmp_path / "average", "--n", "100")
    (text,) = (text for text in record.warnings if "averaged weights" in text)
    assert "had 20 updates" in text
    assert f"warning: run last average fgsm 0.1: {text}" in outcome.err
    student, _ = attack(trained, tmp_path / "student", "--weights", "student", "--n", "100")
    assert not any("averaged weights" in text for text in student.warnings)


def test_files_that_do_not_state_their_steps_are_not_doubted(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained, weights_only=True)
    for snapshot in content["snapshots"].values():
        del snapshot["steps"]
    summed = {key: value for key, value in content.items() if key != checkpoints.CHECKSUM}
    content |= {checkpoints.CHECKSUM: checkpoints.checksum(summed)}
    torch.save(content, tmp_path / "old.pt")
    (target,) = resolve_targets(str(tmp_path / "old.pt"), TargetOptions(weights="average"))
    assert (target.training.averaged_steps, target.training.decay) == (None, 0.98)


def test_a_wrong_normalization_is_doubted_in_output_and_record(
    trained: Path, tmp_path: Path
) -> None:
    """Pixels times 255 leave nothing of the accuracy that the validation recorded."""
    checkpoint = checkpoints.load(trained)
    weights = checkpoint.snapshots["student"]
    state = weights.state | {"std": weights.state["std"] / 255, "mean": weights.state["mean"] * 0}
    wrong = {**checkpoint.snapshots, "student": type(weights)(
        state=state, epoch=weights.epoch, counts=weights.counts, steps=weights.steps
    )}  # fmt: skip
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    path = tmp_path / "wrong.pt"
    checkpoints.save(path, type(checkpoint)(**fields | {"snapshots": wrong}))
    assert weights.counts is not None
    record, outcome = attack(path, tmp_path / "results", "--weights", "student", "--n", "200")
    (text,) = (text for text in record.warnings if HALF in text)
    assert f"({weights.counts.clean_correct} of 143)" in text
    assert text in outcome.err


def test_third_party_weights_are_compared_with_chance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("small-cnn", num_classes=10, in_channels=1)
    torch.save(model.state_dict(), tmp_path / "untrained.pt")
    options = ("--arch", "small-cnn", "--dataset", "digits", "--eps", "0.1", "--n", "200")
    record, outcome = attack(tmp_path / "untrained.pt", tmp_path / "results", *options)
    (text,) = (text for text in record.warnings if CHANCE in text)
    assert text in outcome.err
