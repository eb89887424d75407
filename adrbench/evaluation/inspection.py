"""Inspecting a run: what ADR does to its labels at a checkpoint, from the file to the record."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, Selection, Snapshot
from adrbench.checkpoints.restore import needs_arch, restore
from adrbench.checkpoints.settings_file import find_dataset
from adrbench.config.component_plugins import foreign_tokens
from adrbench.data import Dataset, Images, load_dataset, steps_per_epoch
from adrbench.data.hold_out import choose_held_out
from adrbench.errors import CheckpointError, DataError, RecordError, UsageError, argument
from adrbench.evaluation.rectified_labels import (
    find_disagreeing,
    find_moved,
    find_pairs,
    rectify_labels,
    shrink,
)
from adrbench.evaluation.targets.own import advise_arch, find_checkpoints
from adrbench.methods.adr import Rectified
from adrbench.methods.build import build_method
from adrbench.printable import get_logger
from adrbench.results.inspection import AnnealedEpoch, InspectRecord, LabeledImage
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import read_record, write_record
from adrbench.runtime.context import Context
from adrbench.runtime.files import check_writable
from adrbench.runtime.hashing import hash_file

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """An inspection before it runs: the checkpoint, and ADR with its teacher.

    `images` are the first of the `num_train` images that the run was trained on, and `positions`
    (num_train,) their places in the training split of the data set. `record` is the file of the
    result.
    """

    checkpoint: Checkpoint
    checkpoint_sha256: str
    images: Images
    positions: Tensor
    num_train: int
    dataset: str
    class_names: tuple[str, ...]
    targets: Rectified
    steps_per_epoch: int
    record: Path

    @property
    def snapshot(self) -> Snapshot:
        """The averaged weights, which are the teacher."""
        return self.checkpoint.snapshots["average"]

    @property
    def steps(self) -> int:
        """The number of steps after which the averaged weights were saved."""
        after_epochs = self.snapshot.epoch * self.steps_per_epoch
        return after_epochs if self.snapshot.steps is None else self.snapshot.steps

    @property
    def label(self) -> str:
        """A short name of what is inspected, for messages."""
        return f"{self.checkpoint.run} {self.checkpoint.selection}"

    def is_answered_by(self, record: InspectRecord) -> bool:
        """Return whether a record is that of the same checkpoint and images."""
        own = (self.checkpoint_sha256, self.checkpoint.data_sha256, len(self.images))
        return own == (record.checkpoint_sha256, record.data_sha256, record.n)

    def is_of_same_run(self, record: InspectRecord) -> bool:
        """Return whether a record is of the same run; those of early versions have no id."""
        return bool(record.run_id) and record.run_id == self.checkpoint.run_id


def plan_inspection(
    target: Path,
    *,
    selection: Selection | None,
    n: int | None,
    dataset: str | None,
    arch: str | None,
    data_dir: Path,
    out: Path,
) -> Inspection:
    """Read a checkpoint and its training images; `target` is it or the directory of its run.

    Of a directory, the best checkpoint is read, or the last where there is no best, unless
    `selection` names one. `n` is the number of images, None for all.

    Raises:
        CheckpointError: when the checkpoint is missing or damaged, or its method has no ADR.
        DataError: when the images are missing, or not those that the run was trained on.
        UsageError: for an `n` that is not a number of images.

    """
    path = find_checkpoint(target, selection)
    checkpoint = checkpoints.load(path)
    config = checkpoint.config
    check_inspectable(path, checkpoint)
    if arch is not None and not needs_arch(checkpoint):
        logger.warning(f"{argument('arch')} is ignored: {path} specifies its own.")
        arch = None
    teacher = restore(checkpoint, "average", path, arch=arch, advice=advise_arch(config.arch))
    loaded, positions = load_training_images(path, checkpoint, dataset, data_dir)
    num_steps = steps_per_epoch(len(loaded.train), config.batch_size)
    slots = build_method(
        config,
        teacher,
        num_classes=checkpoint.shape.num_classes,
        total_steps=config.epochs * num_steps,
    )
    if not isinstance(slots.targets, Rectified):
        raise _no_rectification(path, config.method)
    return Inspection(
        checkpoint=checkpoint,
        checkpoint_sha256=hash_file(path),
        images=loaded.train if n is None else loaded.train.first(n),
        positions=positions,
        num_train=len(loaded.train),
        dataset=loaded.name,
        class_names=loaded.class_names,
        targets=slots.targets,
        steps_per_epoch=num_steps,
        record=out / f"inspect-{checkpoint.run}-{checkpoint.selection}.json",
    )


def check_inspectable(path: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless a checkpoint has ADR."""
    if "targets" not in checkpoint.config.parsed_method().filled:
        raise _no_rectification(path, checkpoint.config.method)


def _no_rectification(path: Path, method: str) -> CheckpointError:
    return CheckpointError(
        f"{path} was trained with method {method!r}, which does not rectify labels: give a run "
        "whose method has ADR."
    )


def find_checkpoint(target: Path, selection: Selection | None) -> Path:
    """Return the checkpoint to inspect.

    Raises:
        CheckpointError: when there is none.
        UsageError: for a `selection` beside a file.

    """
    if not target.is_dir():
        if selection is not None:
            raise UsageError(
                f"{argument('selection', selection)} is for the directory of a run, but {target} "
                "is not a directory: omit it."
            )
        return target
    if selection is None:
        return find_checkpoints(target)[0]
    return target / {"best": checkpoints.BEST, "last": checkpoints.LAST}[selection]


def load_training_images(
    path: Path, checkpoint: Checkpoint, dataset: str | None, data_dir: Path
) -> tuple[Dataset, Tensor]:
    """Return the data set of a checkpoint, whose `train` are the images that it was trained on.

    Images that were held out for validation are not among them. Also return the positions of the
    images in the training split of the data set.

    Raises:
        DataError: when the data set is missing, or has other training images.

    """
    config = checkpoint.config
    name = dataset or find_dataset(path, checkpoint)
    loaded = load_dataset(name, data_dir=data_dir, val_size=0)
    every = torch.arange(len(loaded.train))
    candidates = [every]  # a validation split of the data set's own is not drawn
    if 0 < (config.val_size or 0) < len(loaded.train):
        seed = config.seed if config.split_seed is None else config.split_seed
        candidates.insert(0, choose_held_out(loaded.train, config.val_size, seed)[0])
    for positions in candidates:
        train = loaded.train.take(positions)
        if train.sha256() == checkpoint.data_sha256:
            return replace(loaded, train=train), positions
    raise DataError(
        f"the training images of {name} are not those that {path} was trained on: give their "
        f"data set with {argument('dataset')}."
    )


def find_earlier(job: Inspection) -> InspectRecord | None:
    """Return the record of the same inspection; None where there is none, or one of the same run.

    The latter, of another epoch or another number of images, is replaced.

    Raises:
        RecordError: when the file is damaged or of another run.

    """
    if not job.record.exists():
        return None
    redo = f"give {argument('force', True)} to replace it"
    try:
        record = read_record(job.record)
    except RecordError as error:
        raise RecordError(f"{str(error).rstrip('.')}: {redo}.") from error
    if not isinstance(record, InspectRecord):
        raise RecordError(f"{job.record} is not the record of an inspection: {redo}.")
    if job.is_answered_by(record):
        return record
    if not job.is_of_same_run(record):
        raise RecordError(
            f"{job.record} is the record of another run called {record.run}: record to another "
            f"directory, or {redo}."
        )
    logger.info(
        f"{job.record} is replaced: it was of epoch {record.epoch} and {record.n:,} images of the "
        "same run."
    )
    return None


def inspect(
    job: Inspection,
    context: Context,
    *,
    batch_size: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> InspectRecord:
    """Rectify the labels of a checkpoint, and write the record; rank 0 alone writes it.

    `on_batch` is called with the numbers of finished and of all images.

    Raises:
        AdrbenchError: where outputs of the teacher are not finite, or the record cannot be written.

    """
    began = time.perf_counter()
    if context.process_group.is_rank_zero:
        check_writable(job.record.parent)
    record = _make_record(job, context.device, batch_size, on_batch, began)
    if context.process_group.is_rank_zero:
        write_record(job.record, record)
    return record


def _make_record(
    job: Inspection,
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int, int], None],
    began: float,
) -> InspectRecord:
    checkpoint, config, images = job.checkpoint, job.checkpoint.config, job.images
    annealed = job.targets.annealed(max(0, job.steps - 1))
    labels = rectify_labels(
        job.targets.teacher,
        images,
        annealed,
        num_classes=checkpoint.shape.num_classes,
        batch_size=batch_size,
        device=device,
        on_batch=on_batch,
    )
    num_disagreeing, disagreeing = find_disagreeing(labels, images)
    channels, height, width = shrink(images.pixels[:1]).shape[1:]
    return InspectRecord(
        run=checkpoint.run,
        run_id=checkpoint.run_id,
        dataset=job.dataset,
        arch=config.arch,
        method=config.method,
        seed=config.seed,
        label=checkpoint.label,
        selection=checkpoint.selection,
        epoch=job.snapshot.epoch,
        steps=job.steps,
        total_steps=config.epochs * job.steps_per_epoch,
        num_classes=checkpoint.shape.num_classes,
        class_names=job.class_names,
        data_sha256=checkpoint.data_sha256,
        checkpoint_sha256=job.checkpoint_sha256,
        num_train=job.num_train,
        n=len(images),
        temperature=annealed["temperature"],
        interpolation=annealed["interpolation"],
        schedule=tuple(
            AnnealedEpoch(epoch=epoch, **job.targets.annealed(epoch * job.steps_per_epoch - 1))
            for epoch in range(1, config.epochs + 1)
        ),
        class_counts=tuple(labels.class_counts.tolist()),
        mean_labels=labels.means,
        mean_entropy=float(labels.entropy.mean()),
        mean_label_probability=float(labels.label_probability.mean()),
        pairs=tuple(find_pairs(labels)),
        num_disagreeing=num_disagreeing,
        image_shape=(channels, height, width),
        moved=_place(job, find_moved(labels, images)),
        disagreeing=_place(job, disagreeing),
        software=describe_software(
            {
                "architectures": [config.arch],
                "datasets": [config.dataset],
                "methods": foreign_tokens(config.method),
            }
        ),
        device=describe_device(device),
        created=now(),
        seconds=time.perf_counter() - began,
    )


def _place(job: Inspection, images: Iterable[LabeledImage]) -> tuple[LabeledImage, ...]:
    """Return the images with their positions in the training split of the data set."""
    return tuple(replace(one, position=int(job.positions[one.index])) for one in images)
