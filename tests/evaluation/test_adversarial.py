"""Adversarial examples: what stands for each image, and that a kill loses none."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adrbench.attacks.pgd import PGD
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import to_float
from adrbench.errors import RecordError, UsageError
from adrbench.evaluation.adversarial import (
    KINDS,
    BatchExamples,
    ExampleForm,
    assemble,
    check_destination,
    write_examples,
)
from adrbench.evaluation.batch_files import BatchesInMemory, BatchFiles, BatchStore
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.stage_runner import ProgressCallbacks
from messages import assert_one_sentence
from tiny import labelled_by, make_images, train_small_net

THREAT = ThreatModel(eps=0.03)
IMAGES = make_images(40, classes=3)
MODEL = train_small_net(IMAGES, classes=3)
SUITE = Suite(
    name="two",
    stages=[
        PGD(name="weak", threat=THREAT, steps=1, alpha=0.01, seed=0),
        PGD(name="strong", threat=THREAT, steps=10, alpha=0.01, loss="margin", seed=0),
    ],
)


def run(store: BatchStore[BatchExamples], **more: object) -> Evaluation:
    return evaluate(MODEL, IMAGES, SUITE, THREAT, batch_size=7, example_store=store, **more)  # type: ignore[arg-type]


def make_files(directory: Path, fingerprint: str = "f", **more: str) -> BatchFiles[BatchExamples]:
    return BatchFiles(
        stem=directory / ".run",
        form=ExampleForm(images=IMAGES, threat=THREAT, batch_size=7),
        fingerprint=fingerprint,
        what="adversarial examples",
        **more,
    )


def counts(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = MODEL(x)
    return logits.argmax(1) == IMAGES.labels


def test_judging_the_examples_again_gives_the_outcomes() -> None:
    evaluation = run(BatchesInMemory())
    adversarial = evaluation.adversarial
    assert adversarial is not None
    assert 0 < evaluation.robust_correct < evaluation.clean_correct
    assert torch.equal(counts(adversarial.x_adv), evaluation.robust)
    x = to_float(IMAGES.pixels)
    assert THREAT.distance(x, adversarial.x_adv).max() <= THREAT.eps + 1e-6
    assert adversarial.x_adv.min() >= 0
    assert adversarial.x_adv.max() <= 1


def test_every_image_says_what_stands_for_it() -> None:
    evaluation = run(BatchesInMemory())
    adversarial = evaluation.adversarial
    assert adversarial is not None
    kinds = np.array(KINDS)[adversarial.kinds.numpy()]
    assert ((kinds == "success") == ~evaluation.robust.numpy()).all()
    # PGD returns its last iterate, so that every survivor has one.
    assert (kinds[evaluation.robust.numpy()] == "failure").all()
    stage = np.array(adversarial.stage_names)[adversarial.stages.numpy()]
    assert ((stage == "clean") == ~evaluation.clean.numpy()).all()
    left = {one.name: one.survivors for one in evaluation.stages}
    first = (stage == "weak") & (kinds == "success")
    assert first.sum() == evaluation.clean_correct - left["weak"]


def test_of_failed_examples_the_one_of_the_highest_loss_is_kept() -> None:
    x = torch.zeros(2, 1, 1, 1)

    def piece(value: float, loss: list[float], success: list[bool]) -> BatchExamples:
        return BatchExamples(
            indices=torch.tensor([0, 1]),
            x_adv=torch.full((2, 1, 1, 1), value),
            success=torch.tensor(success),
            loss=torch.tensor(loss),
        )

    pieces = [
        (1, piece(0.1, [2.0, 1.0], [False, False])),
        (2, piece(0.2, [1.0, 1.5], [False, False])),
        (3, piece(0.3, [0.5, 9.0], [True, False])),
    ]
    both = assemble(x, pieces[:2], ("clean", "a", "b"), robust=torch.tensor([True, True]))
    assert both.x_adv.flatten().tolist() == pytest.approx([0.1, 0.2])
    assert both.stages.tolist() == [1, 2]
    robust = torch.tensor([False, True])
    third = assemble(x, pieces, ("clean", "a", "b", "c"), robust=robust)
    assert third.x_adv.flatten().tolist() == pytest.approx([0.3, 0.3])
    assert [KINDS[kind] for kind in third.kinds] == ["success", "failure"]
    for names, outcomes in ((("clean", "a", "b"), robust), (("clean", "a", "b", "c"), ~robust)):
        with pytest.raises(RecordError, match="contradict the outcomes of the attacks: start"):
            assemble(x, pieces, names, robust=outcomes)


class StopError(Exception):
    """The end of a process."""


def test_an_evaluation_that_is_killed_keeps_the_examples_of_its_finished_batches(
    tmp_path: Path,
) -> None:
    whole = run(BatchesInMemory()).adversarial
    progress = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=40, rank=0)
    files = make_files(tmp_path)
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise StopError

    stopping = ProgressCallbacks(on_batch=stop)
    for _ in range(20):
        calls = 0
        try:
            resumed = run(files, progress_store=progress, callbacks=stopping).adversarial
            break
        except StopError:
            continue
    assert whole is not None
    assert resumed is not None
    for name in ("x_adv", "kinds", "stages"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name))
    files.remove()
    progress.remove()
    assert list(tmp_path.iterdir()) == []


def test_progress_without_examples_is_refused_when_they_are_to_be_kept(tmp_path: Path) -> None:
    progress = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=40, rank=0)

    def stop(stage: str, *_: int) -> None:
        if stage == "strong":
            raise StopError

    stopping = ProgressCallbacks(on_batch=stop)
    with pytest.raises(StopError):
        evaluate(
            MODEL,
            IMAGES,
            SUITE,
            THREAT,
            batch_size=7,
            progress_store=progress,
            callbacks=stopping,
        )
    with pytest.raises(RecordError, match="did not keep its adversarial examples"):
        run(make_files(tmp_path), progress_store=progress)


def test_a_damaged_file_of_examples_is_one_error(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    run(files)
    next(iter(tmp_path.iterdir())).write_bytes(b"PK")
    with pytest.raises(RecordError, match="are damaged"):
        list(files.load())


def change(path: Path, **changes: object) -> None:
    """Replace arrays in the file of a batch, as somebody could who has its fingerprint."""
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("indices", lambda a: a + 10**6, "indices has an entry that is not from 0 to 39"),
        ("indices", lambda a: a - 10**6, "indices has an entry that is not from 0 to 39"),
        ("indices", lambda a: a * 0, "indices has an entry twice"),
        ("indices", lambda a: a.astype(float), r"indices has type float64 and shape \(7,\), not"),
        ("x_adv", lambda a: a[:1], "its arrays have 1 and 7 rows"),
        ("x_adv", lambda a: np.concatenate([a, a]), "x_adv has type float32 and shape"),
        ("x_adv", lambda a: a[..., :1], "x_adv has type float32 and shape"),
        ("x_adv", lambda a: a.astype(float), "x_adv has type float64"),
        ("x_adv", lambda a: a * np.float32(np.nan), "some are outside the threat model"),
        ("x_adv", lambda a: a + np.float32(100), "some are outside the threat model"),
        ("x_adv", lambda a: 1 - a, "some are outside the threat model"),
        ("success", lambda a: a.astype(np.uint8), "success has type uint8"),
        ("success", lambda a: a.astype(str), "success has type <U5"),
        ("loss", lambda a: a[0], r"loss has type float32 and shape \(\), not"),
        ("loss", lambda a: a * 1j, "loss has type complex64"),
        ("loss", lambda a: a * np.float32(np.nan), "loss has an entry that is NaN"),
        ("loss", lambda a: np.array([None] * 7), "loss contains objects"),
    ],
)
def test_edited_examples_are_refused(
    name: str, edit: Callable[[Any], object], words: str, tmp_path: Path
) -> None:
    files = make_files(tmp_path)
    run(files)
    path = files.path_of(1, 0)
    with np.load(path) as arrays:
        edited = edit(arrays[name])
    change(path, **{name: edited})
    before = path.read_bytes()
    for read in (lambda: files.has(1, 0), lambda: list(files.load())):
        with pytest.raises(RecordError, match=words) as caught:
            read()
        assert_one_sentence(str(caught.value))
        assert "are damaged (" in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_of_examples_is_not_unpacked_beyond_the_size_of_a_batch(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    run(files)
    path = files.path_of(1, 0)
    with np.load(path) as arrays:
        large = {**arrays, "more": np.zeros(10**8, np.uint8)}
    np.savez_compressed(path, **large)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(RecordError, match=r"are damaged \(it (unpacks to|has) 1?[\d,]+ bytes"):
        list(files.load())
    assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    tracemalloc.stop()


def test_a_file_of_examples_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    run(files)
    assert files.has(0, 0)
    other = make_files(tmp_path, "g", remedy="use others")
    for read in (lambda: other.has(0, 0), lambda: next(other.load())):
        with pytest.raises(RecordError, match="belong to another evaluation: use others"):
            read()
    assert not other.has(9, 9)


def test_both_forms_of_the_file(tmp_path: Path) -> None:
    evaluation = run(BatchesInMemory())
    assert evaluation.adversarial is not None
    for name in ("a.npz", "a.pt"):
        write_examples(
            tmp_path / name,
            evaluation.adversarial,
            labels=IMAGES.labels,
            clean=evaluation.clean,
            robust=evaluation.robust,
        )
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert (arrays["robust"] == counts(torch.from_numpy(arrays["x_adv"])).numpy()).all()
        assert arrays["robust"].sum() == evaluation.robust_correct
        assert arrays["clean"].sum() == evaluation.clean_correct
        assert set(arrays["kind"]) <= set(KINDS)
        assert arrays["index"].tolist() == list(range(40))
        assert (arrays["y"] == IMAGES.labels.numpy()).all()
    tensor = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(tensor, evaluation.adversarial.x_adv)


def test_another_ending_is_refused() -> None:
    with pytest.raises(UsageError, match=r"ends in \.npz or \.pt"):
        check_destination(Path("x.png"))


def test_a_model_that_fails_on_no_image_leaves_the_clean_ones() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = labelled_by(model, make_images(5))
    suite = Suite(name="none", stages=[])
    evaluation = evaluate(
        model, images, suite, THREAT, batch_size=5, example_store=BatchesInMemory()
    )
    assert evaluation.adversarial is not None
    assert torch.equal(evaluation.adversarial.x_adv, to_float(images.pixels))
    assert [KINDS[kind] for kind in evaluation.adversarial.kinds] == ["clean"] * 5
