"""Outputs of attacks that maximize one loss: of every image, beside unchanged outcomes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks import PGD, OfficialAttack, Suite
from adrbench.attacks.stages import Stage
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import RecordError, UsageError
from adrbench.evaluation.batch_files import BatchesInMemory, BatchFiles, BatchStore
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.outputs import (
    NUM_KEPT_IMAGES,
    BatchOutputs,
    OutputForm,
    assemble_outputs,
    check_fits,
    check_offers_outputs,
)
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.results.outputs import Outputs, write_outputs
from messages import assert_one_sentence
from tiny import Linear, make_images, train_small_net

THREAT = ThreatModel(eps=0.03)
IMAGES = make_images(40, classes=3)
X, Y = to_float(IMAGES.pixels), IMAGES.labels
MODEL = train_small_net(IMAGES, classes=3, steps=20)
PGD_5 = PGD(steps=5)
APGD = OfficialAttack("apgd-ce")


def run(
    stage: Stage = PGD_5,
    store: BatchStore[BatchOutputs] | None = None,
    model: nn.Module = MODEL,
    **more: Any,
) -> Evaluation:
    suite = Suite(name="one", stages=[stage]).bind(THREAT, 3, 0)
    settings = {"batch_size": 7, "output_store": store} | more
    return evaluate(model, IMAGES, suite, THREAT, **settings)


def keep(stage: Stage = PGD_5, **more: Any) -> Outputs:
    outputs = run(stage, more.pop("store", None) or BatchesInMemory(), **more).outputs
    assert outputs is not None
    return outputs


def losses(logits: np.ndarray[Any, Any]) -> Tensor:
    return F.cross_entropy(torch.from_numpy(logits), Y, reduction="none")


@pytest.mark.parametrize(("side", "num_kept"), [(1024, 2), (1025, 0)])
def test_large_images_are_not_kept(side: int, num_kept: int) -> None:
    images = Images(torch.zeros(2, 1, side, 1, dtype=torch.uint8), torch.tensor([0, 1]))
    x = to_float(images.pixels).double()
    batch = BatchOutputs.of(
        x,
        x,
        indices=torch.arange(2),
        allowed=torch.ones(2, dtype=torch.bool),
        clean_logits=torch.eye(2),
        logits=torch.eye(2),
    )
    outputs = assemble_outputs(images, [batch], "pgd")
    assert (len(outputs.images), len(outputs.adversarial_images)) == (num_kept, num_kept)
    check_fits(images, num_classes=2)


def test_outputs_that_are_too_large_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError) as caught:
        check_fits(IMAGES, num_classes=60_000)
    assert_one_sentence(str(caught.value), "on 40 images of 60,000 classes, and at most", "fewer")


def content(outputs: Outputs, directory: Path) -> bytes:
    write_outputs(directory / "outputs.npz", outputs)
    written = (directory / "outputs.npz").read_bytes()
    (directory / "outputs.npz").unlink()
    return written


@pytest.mark.parametrize("stage", [PGD_5, PGD(steps=3, restarts=3), APGD], ids=str)
def test_outcomes_are_the_same_with_outputs(stage: Stage) -> None:
    without, kept = run(stage), run(stage, BatchesInMemory())
    assert without.outputs is None
    assert 0 < kept.robust_correct < kept.clean_correct < len(IMAGES)
    assert torch.equal(kept.clean, without.clean)
    assert torch.equal(kept.robust, without.robust)
    assert kept.warnings == without.warnings


def test_the_progress_saved_is_the_same_with_outputs(tmp_path: Path) -> None:
    saved = []
    for store in (None, BatchesInMemory[BatchOutputs]()):
        files = ProgressFiles(stem=tmp_path / "run", fingerprint="f", n=len(IMAGES), rank=0)
        run(store=store, progress_store=files)
        progress = files.load()
        assert progress is not None
        timeless = replace(progress, seconds=0.0, stage_seconds=0.0, stages=[])
        saved.append({name: str(value) for name, value in vars(timeless).items()})
        files.remove()
    assert saved[0] == saved[1]


@pytest.mark.parametrize("stage", [PGD_5, PGD(steps=3, restarts=3), PGD(loss="margin"), APGD])
def test_every_image_is_attacked(stage: Stage) -> None:
    evaluation = run(stage, BatchesInMemory())
    outputs = evaluation.outputs
    assert outputs is not None
    with torch.no_grad():
        clean = MODEL(X)
    torch.testing.assert_close(torch.from_numpy(outputs.clean_logits), clean)
    assert (outputs.labels == Y.numpy()).all()
    wrong = ~evaluation.clean
    assert wrong.sum() > 3
    increase = losses(outputs.adversarial_logits) - losses(outputs.clean_logits)
    assert (increase[wrong] > 0).all(), "misclassified images are attacked too"
    assert (increase > 0).float().mean() > 0.9
    assert (outputs.linf > 0.5 * THREAT.eps).all()
    assert (outputs.linf <= THREAT.eps + 1e-6).all()


def test_the_logits_are_those_of_the_last_iterates() -> None:
    """Logits of a linear model are W (x - 1/2), and the first images are kept as a whole."""
    model = Linear()
    outputs = keep(model=model)
    stage = PGD_5.bind(THREAT, 3, 0)
    x_adv = stage.maximize(model, X, Y, torch.arange(len(X)))
    expected = (x_adv.flatten(1) - 0.5) @ model.weight.detach().T
    torch.testing.assert_close(torch.from_numpy(outputs.adversarial_logits), expected)
    change = (x_adv - X).flatten(1)
    np.testing.assert_allclose(outputs.linf, change.abs().amax(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(outputs.l2, change.square().sum(1).sqrt().numpy(), rtol=1e-6)
    assert len(outputs.images) == NUM_KEPT_IMAGES
    np.testing.assert_array_equal(outputs.images, X[:NUM_KEPT_IMAGES].numpy())
    torch.testing.assert_close(
        torch.from_numpy(outputs.adversarial_images), x_adv[:NUM_KEPT_IMAGES]
    )


@pytest.mark.parametrize("batch_size", [3, 40, 100])
def test_outputs_of_pgd_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    one, other = keep(), keep(batch_size=batch_size)
    for name in ("clean_logits", "adversarial_logits", "linf", "l2", "images"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


class Recording(nn.Module):
    """A model that keeps the losses of the images that it receives in a full batch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = MODEL(x)
        self.losses.append(F.cross_entropy(logits.detach(), Y, reduction="none"))
        return logits


def test_apgd_keeps_the_iterate_of_the_highest_loss() -> None:
    stage = APGD.bind(THREAT, 3, 0)
    assert stage.maximize is not None
    model = Recording()
    x_adv = stage.maximize(model, X, Y, torch.arange(len(X)))
    _, *of_iterates = model.losses  # the first pass is on the clean images
    assert len(of_iterates) == 101, "no image leaves the batch, and no iteration is left out"
    with torch.no_grad():
        found = F.cross_entropy(MODEL(x_adv), Y, reduction="none")
    torch.testing.assert_close(found, torch.stack(of_iterates).amax(0))


def test_of_several_restarts_the_one_of_the_highest_loss_is_kept() -> None:
    single = [PGD(steps=1, restarts=k).bind(THREAT, 3, 0) for k in (1, 2, 5)]
    with torch.no_grad():
        iterates = [stage.maximize(MODEL, X, Y, torch.arange(40)) for stage in single]
        found = [F.cross_entropy(MODEL(x_adv), Y, reduction="none") for x_adv in iterates]
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()
    assert (found[0] < found[2]).any()


def test_images_that_pgd_attacked_are_not_attacked_again() -> None:
    passes = {"evaluation": 0, "outputs": 0}

    def count(stage: str, done: int, expected: int, images: int) -> None:
        passes[where] += images

    where = "evaluation"
    evaluation = run(callbacks=ProgressCallbacks(on_pass=count))
    where = "outputs"
    keep(callbacks=ProgressCallbacks(on_pass=count))
    num_wrong = len(IMAGES) - evaluation.clean_correct
    assert passes["outputs"] - passes["evaluation"] == PGD_5.num_passes * num_wrong


class StopError(Exception):
    """The end of a process."""


def make_files(directory: Path, fingerprint: str = "f") -> BatchFiles[BatchOutputs]:
    return BatchFiles(
        stem=directory / ".run.outputs",
        form=OutputForm(images=IMAGES, threat=THREAT, num_classes=3, batch_size=7),
        fingerprint=fingerprint,
        what="outputs",
    )


@pytest.mark.parametrize("stage", [PGD_5, APGD], ids=["pgd", "apgd-ce"])
def test_an_evaluation_killed_between_batches_has_the_same_outputs(
    stage: Stage, tmp_path: Path
) -> None:
    progress = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=40, rank=0)
    files = make_files(tmp_path)
    calls, kills = 0, 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise StopError

    for _ in range(20):
        calls = 0
        try:
            resumed = keep(
                stage,
                store=files,
                progress_store=progress,
                callbacks=ProgressCallbacks(on_batch=stop),
            )
            break
        except StopError:
            kills += 1
    assert kills > 3
    files.remove()
    progress.remove()
    assert content(resumed, tmp_path) == content(keep(stage), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_begun_without_outputs_is_finished_with_them(tmp_path: Path) -> None:
    progress = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=40, rank=0)

    def stop(stage: str, done: int, *_: int) -> None:
        if stage == PGD_5.name and done:
            raise StopError

    with pytest.raises(StopError):
        run(progress_store=progress, callbacks=ProgressCallbacks(on_batch=stop))
    resumed = keep(progress_store=progress)
    np.testing.assert_allclose(
        resumed.adversarial_logits, keep().adversarial_logits, rtol=1e-4, atol=1e-5
    )


def test_outputs_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    keep(store=make_files(tmp_path))
    with pytest.raises(RecordError, match=r"the outputs in .* belong to another evaluation"):
        keep(store=make_files(tmp_path, "g"))


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("indices", lambda a: a + 10**6, "indices has an entry that is not from 0 to 39"),
        ("indices", lambda a: a * 0, "indices has an entry twice"),
        ("indices", lambda a: a[:2], "rows, not 2"),
        ("clean_logits", lambda a: a[:, :2], "clean_logits has type float32 and shape"),
        ("adversarial_logits", lambda a: a.astype(float), "adversarial_logits has type float64"),
        ("linf", lambda a: -1 - a, "linf has values that are not sizes of perturbations"),
        ("l2", lambda a: a * np.float32(np.nan), "l2 has values that are not sizes of"),
        ("images", lambda a: 1 - a, "images has other images than those of the evaluation"),
        ("images", lambda a: a[:1], "images has 1 rows, not"),
        ("adversarial_images", lambda a: 1 - a, "adversarial_images are outside the threat model"),
    ],
)
def test_edited_outputs_are_refused(
    name: str, edit: Callable[[Any], object], words: str, tmp_path: Path
) -> None:
    files = make_files(tmp_path)
    keep(store=files)
    path = files.path_of(1, 0)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, name: edit(arrays[name])})
    with pytest.raises(RecordError, match=words) as caught:
        list(files.load())
    assert_one_sentence(str(caught.value), "are damaged (")


def test_outputs_that_are_not_those_of_every_image_are_refused() -> None:
    batches = BatchesInMemory[BatchOutputs]()
    keep(store=batches)
    contents = list(batches.batches.values())
    for some in (contents[1:], [*contents, contents[0]]):
        with pytest.raises(RecordError, match="are not those on 40 images, once each: start"):
            assemble_outputs(IMAGES, some, "pgd-5")


class Leaving:
    """An attack whose images are outside the ball, or outside [0, 1], where `y` is 0."""

    name = "leaving"

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return x

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return torch.where((y == 0).view(-1, 1, 1, 1), self.change(x), (x + 0.01).clamp(0, 1))


@pytest.mark.parametrize(
    "change",
    [lambda x: 1 - x, lambda x: x - 1.01, lambda x: x * torch.nan],
    ids=["outside the ball", "below 0", "nan"],
)
def test_images_outside_the_threat_model_are_replaced_by_the_clean_ones(
    change: Callable[[Tensor], Tensor],
) -> None:
    evaluation = run(Leaving(change), BatchesInMemory())
    outputs = evaluation.outputs
    assert outputs is not None
    left = outputs.labels == 0
    np.testing.assert_array_equal(outputs.adversarial_logits[left], outputs.clean_logits[left])
    assert (outputs.linf[left] == 0).all()
    assert (outputs.linf[~left] > 0).all()
    assert np.isfinite(outputs.adversarial_images).all()
    assert [text for text in evaluation.warnings if "outside the threat model" in text] == [
        "leaving returned images outside the threat model: the clean images replace them in the "
        "outputs."
    ]


class Overflowing(nn.Module):
    """A model whose logits are infinite on images that have changed and whose label is 0."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = MODEL(x)
        nearest = torch.cdist(x.flatten(1), X.flatten(1)).min(1)
        overflows = (nearest.values > 0.02) & (Y[nearest.indices] == 0)
        return torch.where(overflows[:, None], torch.inf, logits)


def test_logits_that_are_not_finite_are_kept_and_counted() -> None:
    evaluation = run(store=BatchesInMemory(), model=Overflowing())
    outputs = evaluation.outputs
    assert outputs is not None
    assert np.isfinite(outputs.clean_logits).all()
    is_finite = np.isfinite(outputs.adversarial_logits).all(1)
    assert (is_finite == (outputs.labels != 0)).all()
    expected = (
        f"the outputs under pgd-5 are not finite (NaN or infinity) on {(~is_finite).sum()} of 40 "
        "images: they are kept as they are."
    )
    assert expected in evaluation.warnings


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "has no attack"),
        ([PGD(), PGD(loss="margin")], "a mixture of those say nothing about calibration"),
        ([OfficialAttack("square")], "does not maximize one loss to the end"),
        ([OfficialAttack("fab-t")], "does not maximize one loss to the end"),
        ([OfficialAttack("apgd-t")], "does not maximize one loss to the end"),
    ],
    ids=["clean", "several", "square", "fab-t", "apgd-t"],
)
def test_other_suites_offer_no_outputs(stages: list[Stage], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        check_offers_outputs(Suite(name="own", stages=stages))
    assert "such as pgd-20, cw or apgd-ce" in str(raised.value)


def test_passes_are_split_where_memory_is_short() -> None:
    class Small(nn.Module):
        """A model that runs out of memory on more than three images."""

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError
            logits: Tensor = MODEL(x)
            return logits

    found = keep(model=Small(), check_reliability=False)
    np.testing.assert_allclose(
        found.adversarial_logits, keep().adversarial_logits, rtol=1e-4, atol=1e-5
    )
