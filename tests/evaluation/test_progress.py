"""Progress of an evaluation: saved after every batch, resumed after any, combined over ranks."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.pgd import PGD
from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import RecordError
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.progress import Progress, ProgressFiles, ProgressStore, begin, combine
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.results.records import StageResult
from adrbench.runtime.hashing import hash_json
from adrbench.runtime.process_group import SingleProcess
from killed_store import KilledAfter
from logs import logged
from messages import assert_one_line
from tiny import Linear, make_images, train_small_net

THREAT = ThreatModel(eps=0.05)
IMAGES = make_images(53)
T = TypeVar("T")


def pgd_suite() -> Suite:
    stages = tuple(
        PGD(name=f"pgd-{steps}", threat=THREAT, steps=steps, alpha=0.01, seed=steps)
        for steps in (1, 3, 10)
    )
    return Suite(name="pgds", stages=stages, parameters={})


def progress_store(directory: Path, rank: int = 0, **changes: Any) -> ProgressFiles:
    settings: dict[str, Any] = {"fingerprint": "f", "n": 53, **changes}
    return ProgressFiles(stem=directory / ".run-[1]", rank=rank, **settings)


def run(
    suite: Suite, progress_store: Any = None, model: nn.Module | None = None, **more: Any
) -> Evaluation:
    return evaluate(
        model or Linear(),
        IMAGES,
        suite,
        THREAT,
        batch_size=7,
        progress_store=progress_store,
        **more,
    )


def test_progress_after_other_attacks_is_refused(tmp_path: Path) -> None:
    """Stages are resumed by their number, so their order must be the same."""
    store, suite = progress_store(tmp_path), pgd_suite()
    made = begin(len(IMAGES))
    made.finish_stage("clean")
    made.finish_stage("pgd-1")
    store.save(made)
    turned = Suite(name="pgds", stages=suite.stages[::-1], parameters={})
    with pytest.raises(
        RecordError, match="after the attacks clean, pgd-1, but the suite has pgd-10"
    ):
        run(turned, store)
    assert len(run(suite, store).stages) == 3


def assert_same(one: Evaluation, other: Evaluation) -> None:
    assert torch.equal(one.clean, other.clean)
    assert torch.equal(one.robust, other.robust)
    assert [(s.name, s.survivors) for s in one.stages] == [
        (s.name, s.survivors) for s in other.stages
    ]
    assert one.warnings == other.warnings


def test_an_evaluation_killed_after_any_batch_has_the_same_outcomes(tmp_path: Path) -> None:
    uninterrupted = run(pgd_suite())
    assert 0 < uninterrupted.robust_correct < uninterrupted.clean_correct
    for allowed in range(100):
        directory = tmp_path / str(allowed)
        try:
            run(pgd_suite(), KilledAfter(progress_store(directory), allowed))
        except KeyboardInterrupt:
            pass
        else:
            break
        reported: list[tuple[str, int, int, int]] = []
        assert_same(
            run(
                pgd_suite(),
                progress_store(directory),
                callbacks=ProgressCallbacks(on_batch=lambda *seen, to=reported: to.append(seen)),
            ),
            uninterrupted,
        )
        assert reported[0][1] > 0 or reported[0][0] != "clean", "it resumes where it was killed"
    assert allowed > 15


@pytest.mark.slow
def test_autoattack_killed_repeatedly_has_the_same_outcomes(tmp_path: Path) -> None:
    """Each process finishes one batch; every attack has two or three."""
    images, model = IMAGES.first(12), train_small_net(IMAGES, 3)
    suite = build_suite(AttackConfig(suite="autoattack", batch_size=5), THREAT, 3)

    def run_on_few(store: ProgressStore | None = None) -> Evaluation:
        return evaluate(model, images, suite, THREAT, batch_size=5, progress_store=store)

    uninterrupted = run_on_few()
    assert 5 < uninterrupted.robust_correct < uninterrupted.clean_correct
    attempts = 0
    while True:
        attempts += 1
        try:
            result = run_on_few(KilledAfter(progress_store(tmp_path, n=12), 0))
        except KeyboardInterrupt:
            continue
        break
    assert attempts > 2 * (1 + len(suite.stages))
    assert_same(result, uninterrupted)


def test_warnings_from_before_an_interruption_are_kept(tmp_path: Path) -> None:
    class Doubtful:
        name = "doubtful"
        label_loss = None

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
            import warnings

            if 0 in indices:
                warnings.warn(ReliabilityWarning("the first image is odd"), stacklevel=2)
            return x

    images = make_images(53)
    images = type(images)(images.pixels, torch.zeros_like(images.labels))

    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([9.0, 0.0]).expand(len(x), 2) + 0 * x.flatten(1).sum(1, True)

    suite = Suite(name="doubt", stages=(Doubtful(),), parameters={})
    killed = KilledAfter(progress_store(tmp_path), 12)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Zero(), images, suite, THREAT, batch_size=7, progress_store=killed)
    result = evaluate(
        Zero(), images, suite, THREAT, batch_size=7, progress_store=progress_store(tmp_path)
    )
    assert result.warnings == ("the first image is odd",)


def progress() -> Progress:
    made = begin(53)
    made.survivors[3] = False
    made.done = {0, 2}
    made.finish_stage("clean")
    made.survivors[10:20] = False
    made.done = {1}
    made.nonfinite = {12, 13}
    made.warnings = ["odd"]
    made.seconds, made.stage_seconds, made.memory_format = 12.5, 2.25, "contiguous"
    return made


def test_resuming_is_logged(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(pgd_suite(), KilledAfter(progress_store(tmp_path), 9))
    with logged() as messages:
        run(pgd_suite(), progress_store(tmp_path))
    (message,) = messages
    assert re.fullmatch(r"resuming after 2 batches of pgd-1; robust: \d+/53 after clean\.", message)


def equal(one: Progress, other: Progress) -> bool:
    masks = ("entered", "survivors", "clean")
    plain = ("done", "nonfinite", "stages", "warnings", "seconds", "stage_seconds", "memory_format")
    return all(torch.equal(getattr(one, m), getattr(other, m)) for m in masks) and all(
        getattr(one, name) == getattr(other, name) for name in plain
    )


def test_progress_survives_a_round_trip_and_is_removed(tmp_path: Path) -> None:
    files = progress_store(tmp_path)
    assert files.load() is None
    files.save(progress())
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("."), "it must not be taken for a record"
    loaded = files.load()
    assert loaded is not None
    assert equal(loaded, progress())
    files.remove()
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    files = progress_store(tmp_path)
    files.save(progress())
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    refused = 0
    for place in range(len(content)):
        for bit in (0, 2, 5):
            changed = bytes([content[place] ^ (1 << bit)])
            file.write_bytes(content[:place] + changed + content[place + 1 :])
            try:
                loaded = files.load()
            except RecordError as error:
                refused += 1
                assert_one_line(str(error))
            else:
                assert loaded is not None
                assert equal(loaded, progress()), (place, bit)
    assert refused > len(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Expecting value"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "it is incomplete"),
        (b'{"sha256": ""}', "it is incomplete"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / ".run-[1].0.state").write_bytes(content)
    with pytest.raises(RecordError, match=rf"is damaged \(.*{words}.*\): start the evaluation"):
        progress_store(tmp_path).load()


def mark(mask: str, index: int, value: bool) -> Callable[[Progress], None]:
    def change(made: Progress) -> None:
        getattr(made, mask)[index] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        mark("survivors", 3, True),
        mark("entered", 3, True),
        mark("entered", 5, False),
        lambda made: setattr(made, "clean", None),
        lambda made: made.stages.clear(),
    ],
)
def test_outcomes_that_contradict_each_other_are_refused(
    tmp_path: Path, change: Callable[[Progress], object]
) -> None:
    """Of 53 images, the clean pass removed number 3 and the first batch of pgd-1 10 to 19."""
    made = progress()
    change(made)
    progress_store(tmp_path).save(made)
    with pytest.raises(RecordError, match=r"\(its outcomes contradict each other\)"):
        progress_store(tmp_path).load()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        *((name, [-1], name) for name in ("done", "nonfinite", "unconfirmed", "repeated")),
        *((name, [53], name) for name in ("done", "nonfinite", "unconfirmed", "repeated")),
        *((name, [1, 1], "twice") for name in ("done", "nonfinite", "unconfirmed", "repeated")),
        ("done", [2**62], "done"),
        ("done", [], "contradict"),
        ("rechecked", -1, "rechecked"),
        ("rechecked", 10**9, "rechecked"),
        ("seconds", -1.0, "seconds"),
        ("stage_seconds", math.inf, "seconds"),
        ("stage_seconds", math.nan, "seconds"),
        ("stages", [("clean", 54)], "survivors"),
        ("stages", [("clean", -1)], "survivors"),
        ("stages", [("clean", 51)], "contradict"),
        ("stages", [("clean", 51), ("pgd-1", 52)], "survivors"),
        ("stages", [("clean", 53), ("pgd-1", 52)], "contradict"),
    ],
)
def test_values_out_of_range_are_refused(
    tmp_path: Path, field: str, value: Any, words: str
) -> None:
    store = progress_store(tmp_path)
    store.save(progress())
    if field == "stages":
        value = [{"name": name, "survivors": held, "seconds": 1.0} for name, held in value]
    state = json.loads(store.own_file.read_bytes())["state"] | {field: value}
    before = json.dumps({"sha256": hash_json(state), "state": state}).encode()
    store.own_file.write_bytes(before)
    with pytest.raises(RecordError, match=words) as raised:
        store.load()
    assert_one_line(str(raised.value))
    assert store.own_file.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.done.add(8),
        lambda made: made.done.add(51),
        lambda made: made.survivors.__setitem__(52, False),
    ],
)
def test_batches_that_the_stage_lacks_are_refused(
    tmp_path: Path, change: Callable[[Progress], object]
) -> None:
    """Of 53 images in batches of 7, all are in batches 0 to 7."""
    store = progress_store(tmp_path)
    made = begin(53)
    made.survivors[:7] = False
    made.done = {0}
    change(made)
    store.save(made)
    with pytest.raises(RecordError, match="of clean contradicts its 8 batches") as raised:
        run(pgd_suite(), store)
    assert_one_line(str(raised.value))


def test_a_file_of_schema_1_is_read(tmp_path: Path) -> None:
    saved = Path(__file__).parents[1] / "fixtures" / "progress" / "schema-1.state"
    (tmp_path / ".run-[1].0.state").write_bytes(saved.read_bytes())
    loaded = progress_store(tmp_path).load()
    assert loaded is not None
    expected = progress()
    expected.stages = [StageResult(name="clean", survivors=52, seconds=1.5)]
    expected.nonfinite = set()
    assert equal(loaded, expected)


LOGITS = torch.tensor([[100.0, -3.0, 0.5], [2.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "g"},
        {"n": 52},
        {"clean_logits": LOGITS + torch.tensor([0.0, 0.0, 0.11])},
        {"clean_logits": LOGITS[:1]},
        {"clean_logits": LOGITS * torch.nan},
    ],
)
def test_progress_of_another_evaluation_is_refused(tmp_path: Path, change: Any) -> None:
    progress_store(tmp_path, clean_logits=LOGITS).save(progress())
    (before,) = (path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(
        RecordError, match="contains the progress of another evaluation, or of one with other"
    ):
        progress_store(tmp_path, **{"clean_logits": LOGITS, **change}).load()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_progress_is_accepted_with_the_rounding_of_another_machine(tmp_path: Path) -> None:
    """The largest logit is 100, so that a difference of 0.1 is allowed."""
    progress_store(tmp_path, clean_logits=LOGITS).save(progress())
    assert progress_store(tmp_path, clean_logits=LOGITS + 0.09).load() is not None
    assert progress_store(tmp_path).load() is not None


@pytest.mark.parametrize("name", [".run-1", ".run-[1].b", ".run-[1].0", ".run-[1]-2"])
def test_files_of_a_longer_record_name_are_not_found(tmp_path: Path, name: str) -> None:
    other = ProgressFiles(stem=tmp_path / name, fingerprint="f", n=53, rank=0)
    other.save(progress())
    assert progress_store(tmp_path).files() == []
    progress_store(tmp_path).remove()
    assert other.load() is not None


def test_progress_of_several_ranks_is_combined(tmp_path: Path) -> None:
    """Six images in batches of two: rank 0 did batches 0 and 2, rank 1 batch 1, rank 2 is behind.

    Rank 0 has survivors 1 to 4, rank 1 fooled the model on 3: together 1, 2 and 4 survive. The
    logits of image 0 were not finite on rank 0, those of 1 on rank 1; rank 2 saw other ones.
    """
    stages = [StageResult(name="clean", survivors=6, seconds=1.0)]
    parts = []
    for rank, (survivors, done, finished) in enumerate(
        [
            ([0, 1, 1, 1, 1, 0], {0, 2}, stages),
            ([1, 1, 1, 0, 1, 1], {1}, stages),
            ([0, 0, 0, 0, 0, 0], {0}, []),
        ]
    ):
        part = begin(6)
        part.clean = torch.ones(6, dtype=torch.bool) if finished else None
        part.survivors = torch.tensor(survivors).bool()
        part.done, part.stages, part.warnings = set(done), list(finished), [f"of {rank}", "all"]
        part.nonfinite = {rank}
        part.seconds = part.stage_seconds = float(rank)
        progress_store(tmp_path, rank, n=6).save(part)
        parts.append(part)
    whole = progress_store(tmp_path, n=6).load()
    assert whole is not None
    assert whole.survivors.int().tolist() == [0, 1, 1, 0, 1, 0]
    assert whole.done == {0, 1, 2}
    assert whole.nonfinite == {0, 1}
    assert whole.warnings == ["of 0", "all", "of 1", "of 2"], "those of earlier stages count too"
    assert (whole.seconds, whole.stages) == (1.0, stages)
    assert torch.equal(combine(parts[::-1]).survivors, whole.survivors)


@dataclass(kw_only=True)
class HalfOf(SingleProcess):
    """One of two ranks that share every stage evenly and are killed before they synchronize."""

    files: ProgressFiles
    rank: int = 0

    def claim(self, items: Sequence[T]) -> Iterator[T]:
        return iter(items[self.rank :: 2])

    def broadcast(self, value: T) -> T:
        if value is None and self.rank:
            return self.files.load()  # type: ignore[return-value]
        return value

    def all_reduce_and(self, mask: Tensor) -> Tensor:
        raise KeyboardInterrupt


@pytest.mark.parametrize("finished_by", [1, 2])
def test_one_process_resumes_the_work_of_two(tmp_path: Path, finished_by: int) -> None:
    """Ranks are killed at the end of every stage; those that resume find every batch done."""
    uninterrupted = run(pgd_suite())
    for _ in range(3):
        for rank in range(finished_by):
            files = progress_store(tmp_path, rank)
            with pytest.raises(KeyboardInterrupt):
                run(pgd_suite(), files, process_group=HalfOf(rank=rank, files=files))
    assert len(list(tmp_path.iterdir())) == finished_by
    assert_same(run(pgd_suite(), progress_store(tmp_path)), uninterrupted)
