"""From what a user points at to a record: find the weights, attack them, write the result."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from adrbench import checkpoint as checkpoints
from adrbench.attacks.suites import Suite, build_suite
from adrbench.checkpoint import Checkpoint
from adrbench.config import AttackConfig
from adrbench.datasets import DATASETS, Images, Source, load_split
from adrbench.errors import CheckpointError, UsageError, unknown_name
from adrbench.evaluation import Evaluation, OnBatch, evaluate
from adrbench.models import build_model, canonical_arch
from adrbench.models.foreign import load_foreign
from adrbench.models.zoo import load_zoo_model
from adrbench.provenance import describe_device, describe_software, now
from adrbench.records import AttackRecord, Threat, Verdicts, pack_verdicts, write_record
from adrbench.threat import ThreatModel
from adrbench.tokens import WEIGHTS

ZOO = "robustbench:"
#: RobustBench's radii, for weights whose own threat model is not known.
STANDARD_EPS = {"Linf": 8 / 255, "L2": 0.5}
#: The number of classes of each data set of the zoo, to place images of one's own.
ZOO_DATASETS = {"cifar10": 10, "cifar100": 100}
WEIGHTS_CHOICES = (*WEIGHTS, "both")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A set of weights to attack, what is known of it, and how to build its model.

    The fields up to `sha256` are those of a record; `threat` is what it was trained against,
    where that is known.
    """

    dataset: str
    arch: str
    activation: str
    method: str
    weights: str
    selection: str
    selected_on: str | None
    epoch: int | None
    seed: int | None
    run: str
    sha256: str
    threat: ThreatModel | None
    build: Callable[[], nn.Module]

    @property
    def label(self) -> str:
        """A short name for displays."""
        if self.weights == "file":
            return self.run
        return f"{self.run} {self.selection} {self.weights}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user said of the targets, beside their names; None is "as the target says"."""

    weights: str | None = None
    dataset: str | None = None
    arch: str | None = None
    activation: str = "relu"
    normalize: str | None = None
    norm: str | None = None
    data_dir: Path = Path("data")
    zoo_dir: Path = Path("models")


Say = Callable[[str], None]


def find_subjects(target: str, request: Request, say: Say) -> list[Subject]:
    """Return the weights that `target` names; `say` is told of anything assumed.

    Raises:
        UsageError: when something must be said that was not.
        CheckpointError: when a file cannot be read or does not fit its model.

    """
    if request.weights is not None and request.weights not in WEIGHTS_CHOICES:
        raise unknown_name("weights", request.weights, WEIGHTS_CHOICES)
    if target.startswith(ZOO):
        return [_zoo_subject(target, request, say)]
    path = Path(target)
    if not path.exists():
        raise CheckpointError(
            f"{target} does not exist: give a run directory, a checkpoint, or {ZOO}NAME."
        )
    if not path.is_dir():
        return _file_subjects(path, request, say)
    files = [path / name for name in (checkpoints.BEST, checkpoints.LAST)]
    found = [file for file in files if file.exists()]
    if not found:
        raise CheckpointError(f"{target} holds no best.pt or last.pt: train it first.")
    return [subject for file in found for subject in _file_subjects(file, request, say)]


def _file_subjects(path: Path, request: Request, say: Say) -> list[Subject]:
    content = checkpoints.read_file(path)
    if not checkpoints.is_ours(content):
        return [_foreign_subject(path, content, request, say)]
    checkpoint = checkpoints.parse(content, path)
    names = _wanted(checkpoint, request.weights)
    return [_own_subject(path, checkpoint, name, request) for name in names]


def _wanted(checkpoint: Checkpoint, weights: str | None) -> tuple[str, ...]:
    if weights == "both":
        return tuple(name for name in WEIGHTS if name in checkpoint.snapshots)
    return (weights or checkpoint.config.parsed_method().deployed,)


def _own_subject(path: Path, checkpoint: Checkpoint, weights: str, request: Request) -> Subject:
    config = checkpoint.config
    model = checkpoints.restore(checkpoint, weights, path)
    snapshot = checkpoint.snapshots[weights]
    return Subject(
        dataset=request.dataset or config.dataset,
        arch=config.arch,
        activation=config.activation,
        method=config.method,
        weights=weights,
        selection=checkpoint.selection,
        selected_on=config.select,
        epoch=snapshot.epoch,
        seed=config.seed,
        run=checkpoint.run,
        sha256=checkpoints.sha256(path),
        threat=config.threat_model(),
        build=lambda: model,
    )


def _foreign_subject(path: Path, content: object, request: Request, say: Say) -> Subject:
    if request.arch is None or request.dataset is None:
        raise UsageError(
            f"{path} is not an adrbench checkpoint: for weights from elsewhere, give --arch and "
            "--dataset (and --normalize, when the pixels were normalised outside the model)."
        )
    images, info = load_split(request.dataset, "test", data_dir=request.data_dir)
    model = build_model(
        request.arch,
        num_classes=info.num_classes,
        in_channels=images.pixels.shape[1],
        activation=request.activation,
    )
    weights = request.weights if request.weights in WEIGHTS else None
    report = load_foreign(
        content,
        model,
        normalize=_normalization(request.normalize),
        weights=weights,
    )
    if request.normalize is None and not report.normalization_in_file:
        say(
            f"{path} holds no normalisation, so pixels go in as they are, in [0, 1]; if it was "
            "trained on normalised images, give --normalize (such as --normalize cifar10)."
        )
    arch = canonical_arch(request.arch)
    return _unknown_history(
        request, run=path.stem, arch=arch, sha256=checkpoints.sha256(path), model=model
    )


def _normalization(name: str | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and deviation that --normalize names, None for none."""
    if name is None or name == "none":
        return None
    known = {
        key: (source.mean, source.std)
        for key, source in DATASETS.items()
        if source.mean is not None and source.std is not None
    }
    if name not in known:
        raise unknown_name("normalisation", name, [*known, "none"])
    return known[name]


def _zoo_subject(target: str, request: Request, say: Say) -> Subject:
    name = target.removeprefix(ZOO)
    if request.dataset is None:
        raise UsageError(f"{target} needs --dataset cifar10 or cifar100.")
    zoo_dataset = request.dataset
    if request.dataset not in DATASETS:
        _, info = load_split(request.dataset, "test", data_dir=request.data_dir)
        fitting = [key for key, classes in ZOO_DATASETS.items() if classes == info.num_classes]
        if not fitting:
            raise UsageError(
                f"{request.dataset} has {info.num_classes} classes: RobustBench has models of "
                "cifar10 (10 classes) and cifar100 (100 classes)."
            )
        zoo_dataset = fitting[0]
        say(f"{name} is taken from the zoo's {zoo_dataset} models.")
    norm = request.norm or "Linf"
    model = load_zoo_model(name, dataset=zoo_dataset, norm=norm, zoo_dir=request.zoo_dir)
    return _unknown_history(
        request, run=target, arch=name, sha256=_sha256_of_weights(model), model=model
    )


def _unknown_history(
    request: Request, *, run: str, arch: str, sha256: str, model: nn.Module
) -> Subject:
    assert request.dataset is not None
    return Subject(
        dataset=request.dataset,
        arch=arch,
        activation=request.activation,
        method="",
        weights="file",
        selection="file",
        selected_on=None,
        epoch=None,
        seed=None,
        run=run,
        sha256=sha256,
        threat=None,
        build=lambda: model,
    )


def _sha256_of_weights(model: nn.Module) -> str:
    """Return a fingerprint of weights that come from several files, or from nowhere on disk."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def choose_threat(subject: Subject, norm: str | None, eps: float | None) -> ThreatModel:
    """Return what to attack within: as asked, else as trained, else RobustBench's radius."""
    trained = subject.threat
    norm = norm or (trained.norm if trained else "Linf")
    if eps is None:
        same = trained is not None and trained.norm == norm
        eps = trained.eps if trained and same else STANDARD_EPS.get(norm)
    return ThreatModel(norm=norm, eps=eps if eps is not None else STANDARD_EPS["Linf"])


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to make: a subject, its images, a suite, and where the record goes."""

    subject: Subject
    config: AttackConfig
    images: Images
    info: Source
    num_test: int
    suite: Suite
    path: Path


def plan(subject: Subject, config: AttackConfig, *, data_dir: Path, out: Path, say: Say) -> Job:
    """Return the evaluation of `subject`, its images loaded and its model known to fit them."""
    test, info = load_split(subject.dataset, "test", data_dir=data_dir)
    if config.n is not None and config.n > len(test):
        say(f"{info.name} has {len(test):,} test images, not {config.n:,}: all of them are used.")
    images = test.first(min(config.n or len(test), len(test)))
    suite = build_suite(config, info.num_classes)
    identity = {
        "checkpoint": subject.sha256,
        "weights": subject.weights,
        "data": images.sha256(),
        "norm": config.threat_model.norm,
        "eps": config.threat_model.eps,
        "suite": suite.name,
        "parameters": dict(suite.parameters),
        "seed": config.seed,
        "batch_size": config.batch_size if suite.batch_dependent else None,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    parts = [subject.run, subject.selection, subject.weights, suite.name]
    if subject.weights == "file":
        parts = [subject.run, suite.name]
    stem = "-".join(parts).replace(":", "-").replace("/", "-")
    return Job(
        subject=subject,
        config=config,
        images=images,
        info=info,
        num_test=len(test),
        suite=suite,
        path=out / f"{stem}-{digest[:8]}.json",
    )


def run(job: Job, device: torch.device, on_batch: OnBatch) -> AttackRecord:
    """Make the evaluation and write its record."""
    began = time.perf_counter()
    model = job.subject.build().to(device)
    check_fit(job, model, device)
    images = job.images.to(device)
    evaluation = evaluate(
        model,
        images,
        job.suite,
        job.config.threat_model,
        batch_size=job.config.batch_size,
        on_batch=on_batch,
    )
    record = _record(job, evaluation, device, time.perf_counter() - began)
    write_record(job.path, record)
    return record


def check_fit(job: Job, model: nn.Module, device: torch.device) -> None:
    """Raise UsageError unless the model takes these images and knows these classes."""
    one = job.images.first(1).to(device).pixels.float() / 255
    try:
        with torch.no_grad():
            logits = model.eval()(one)
    except RuntimeError as error:
        raise UsageError(
            f"{job.subject.label} does not take images of shape {tuple(one.shape[1:])} from "
            f"{job.info.name}: give the --dataset it was trained for."
        ) from error
    if logits.shape[1] != job.info.num_classes:
        raise UsageError(
            f"{job.subject.label} has {logits.shape[1]} classes, {job.info.name} has "
            f"{job.info.num_classes}: give the --dataset it was trained for."
        )


def _record(job: Job, evaluation: Evaluation, device: torch.device, seconds: float) -> AttackRecord:
    subject, config = job.subject, job.config
    return AttackRecord(
        dataset=job.info.name,
        split="test",
        n=len(job.images),
        num_test=job.num_test,
        num_classes=job.info.num_classes,
        published_test_set=job.info.published,
        data_sha256=job.images.sha256(),
        arch=subject.arch,
        activation=subject.activation,
        method=subject.method,
        weights=subject.weights,  # type: ignore[arg-type]
        selection=subject.selection,  # type: ignore[arg-type]
        selected_on=subject.selected_on,  # type: ignore[arg-type]
        epoch=subject.epoch,
        seed=subject.seed,
        run=subject.run,
        checkpoint_sha256=subject.sha256,
        threat_model=Threat(
            norm=config.threat_model.norm,  # type: ignore[arg-type]
            eps=config.threat_model.eps,
        ),
        suite=job.suite.name,
        parameters=dict(job.suite.parameters),
        attack_seed=config.seed,
        batch_size=config.batch_size,
        clean_correct=evaluation.clean_correct,
        robust_correct=evaluation.robust_correct,
        stages=evaluation.stages,
        verdicts=Verdicts(
            clean=pack_verdicts(evaluation.clean.numpy()),
            robust=pack_verdicts(evaluation.robust.numpy()),
        ),
        warnings=evaluation.warnings,
        software=describe_software(),
        device=describe_device(device),
        precision="float32",
        created=now(),
        seconds=seconds,
    )
