"""`adrbench.evaluate`: attack any model, and save the result for the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from torch import Tensor, nn

from adrbench.attacks.find_suite import as_suite
from adrbench.attacks.stages import Stage
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import NORMS, STANDARD_EPS, ThreatModel
from adrbench.data import Source
from adrbench.data.loading import recognize
from adrbench.display.attack import AttackDisplay
from adrbench.errors import RecordError, UsageError, unknown_name
from adrbench.evaluation import jobs
from adrbench.evaluation.evaluate import Evaluation
from adrbench.evaluation.finished import read_own_record
from adrbench.evaluation.inputs import as_images, check_labels_within
from adrbench.evaluation.jobs import Job
from adrbench.evaluation.run import run_in_memory, save_examples
from adrbench.evaluation.saved_state import locate_state
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.evaluation.targets import TargetModel
from adrbench.models.architectures import DEFAULT_ACTIVATION
from adrbench.models.modes import device_of
from adrbench.results.records import AttackRecord, StageResult, write_record
from adrbench.runtime.context import Context
from adrbench.runtime.devices import choose_device
from adrbench.runtime.hashing import hash_weights

#: What a data set is called whose name the caller does not give.
UNNAMED_DATASET = "custom"


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The result of an evaluation of n images, as returned by `evaluate`.

    `clean` and `robust` are per-example outcomes, (n,) booleans in the order of the images:
    whether the model classifies the image correctly, and whether it still does under every attack
    of the suite. `adversarial` holds the adversarial examples, (n, C, H, W) float32 in [0, 1], or
    None if they were not kept. `record` is the record that `adrbench attack` would write.
    """

    clean: npt.NDArray[np.bool_]
    robust: npt.NDArray[np.bool_]
    adversarial: Tensor | None
    record: AttackRecord
    _job: Job
    _evaluation: Evaluation

    @property
    def clean_accuracy(self) -> float:
        """The fraction of images that are classified correctly without an attack."""
        return self.record.clean_correct / self.record.n

    @property
    def robust_accuracy(self) -> float:
        """The fraction of images that are classified correctly under every attack."""
        return self.record.robust_correct / self.record.n

    @property
    def stages(self) -> tuple[StageResult, ...]:
        """Each attack in order: its name, the number of robust images after it, its seconds."""
        return self.record.stages

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the robust accuracy may be unreliable, one sentence per reason."""
        return self.record.warnings

    def save(self, directory: str | Path = "results", *, force: bool = False) -> Path:
        """Write the record to `directory`, where `adrbench report` finds it; return its path.

        Raises:
            RecordError: when the file contains another record, unless `force` is true.

        """
        path = Path(directory) / self._job.path.name
        if path.exists() and not force:
            held = read_own_record(self._job, path)
            if held.verdicts != self.record.verdicts:
                raise RecordError(
                    f"{path} contains the same evaluation with different outcomes: give "
                    "another directory, or force=True to replace it."
                )
            return path
        write_record(path, self.record)
        return path

    def save_adversarial(self, path: str | Path) -> None:
        """Write the adversarial examples, as `adrbench attack --save-adversarial` does.

        `path` ends in `.npz` (examples, labels, outcomes, and the kind of each example) or in `.pt`
        (only the tensor of examples, which is the format that RobustBench requires).

        Raises:
            UsageError: when the examples were not kept, or `path` has another suffix.

        """
        if self._evaluation.adversarial is None:
            raise UsageError(
                "the examples were not kept: call evaluate with keep_adversarial=True."
            )
        save_examples(Path(path), self._job, self._evaluation)

    def __repr__(self) -> str:
        return (
            f"Result({self._job.label}: clean {self.record.clean_correct}/{self.record.n}, robust "
            f"{self.record.robust_correct}/{self.record.n})"
        )


def evaluate(
    model: nn.Module,
    x: Tensor | npt.NDArray[np.floating],
    y: Tensor | npt.NDArray[np.integer],
    *,
    suite: str | Stage | Suite = "autoattack",
    norm: str = "Linf",
    eps: float | None = None,
    name: str = "model",
    dataset: str | None = None,
    batch_size: int = 250,
    device: str | None = None,
    seed: int = 0,
    precision: Literal["float32"] = "float32",
    keep_adversarial: bool = False,
    progress: bool = False,
    state_path: str | Path | None = None,
) -> Result:
    """Attack any model and return its per-example robustness.

    The outcomes, the record and the warnings are the same as those of `adrbench attack`. For
    AutoAttack, the outcomes match the official package's `run_standard_evaluation` with the same
    seed and batch size, up to rounding.

    Args:
        model: Maps images (N, C, H, W) in [0, 1] to logits (N, number of classes); any
            normalization must be part of it. It is evaluated in eval mode; its mode and device are
            restored afterwards.
        x: Images, (N, C, H, W) floating point in [0, 1].
        y: Class indices, (N,) integers.
        suite: A name (see `adrbench list suites`), `package.module:attribute`, an attack such as
            `adrbench.attacks.PGD(steps=50)`, or an `adrbench.Suite` of attacks.
        norm: "Linf" or "L2".
        eps: Radius as a fraction of the pixel range; 8/255 (Linf) or 0.5 (L2) by default.
        name: Name of the model in tables.
        dataset: Name of the data set in tables; "custom" by default. The complete CIFAR-10 test set
            in its official order is recognized; results on it have this name and are ranked among
            RobustBench's entries.
        batch_size: Images per batch. AutoAttack's random draws depend on it, PGD's do not.
        device: "auto", "cpu", "cuda" or "cuda:K"; by default, the device of the model.
        seed: Seed of the attacks.
        precision: Precision of the evaluation; only "float32" (with TF32 off) is allowed.
        keep_adversarial: Whether to return the adversarial examples in the result.
        progress: Whether to show the progress on stderr, as the command line does.
        state_path: Where to save the progress of the evaluation until it is finished: outcomes in
            `<state_path>.0.state`, examples in `<state_path>.*.npz`. The same call resumes it.
            No other process can use it meanwhile, which `<state_path>.lock` ensures.

    Raises:
        DataError: for images or labels of a wrong type, shape or range.
        UsageError: for an unknown name, a number out of range, or a model that does not accept the
            images or does not return logits (N, number of classes).
        NonFiniteLogitsError: when the model's logits on unperturbed images are not finite.
        RecordError: when the progress at `state_path` belongs to another evaluation.
        AdrbenchError: when `state_path` is not writable, or another process is using it.

    Example:
        >>> import torch, adrbench
        >>> x, y = adrbench.load_examples("digits", n=50)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> result = adrbench.evaluate(model, x, y, suite="pgd-20", eps=0.1, name="linear")
        >>> result.robust_accuracy <= result.clean_accuracy
        True

    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if precision != "float32":
        raise UsageError(f"precision is {precision!r}: evaluations run in float32.")
    threat = ThreatModel(norm=norm, eps=STANDARD_EPS[norm] if eps is None else eps)
    location = None if state_path is None else locate_state(state_path)
    job = _plan(
        model,
        x,
        y,
        threat=threat,
        suite=suite,
        config=AttackConfig(
            suite=suite if isinstance(suite, str) else as_suite(suite).name,
            batch_size=batch_size,
            seed=seed,
        ),
        name=name,
        dataset=dataset or UNNAMED_DATASET,
    )
    context = Context(device=device_of(model) if device is None else choose_device(device))
    console = Console(stderr=True, quiet=not progress)
    with AttackDisplay(console, job.label, num_images=len(job.images)) as display:
        evaluation, record = run_in_memory(
            job,
            context,
            ProgressCallbacks(on_batch=display.batch, on_pass=display.passes),
            location=location,
            keep_adversarial=keep_adversarial,
        )
    adversarial = evaluation.adversarial
    return Result(
        clean=evaluation.clean.numpy(),
        robust=evaluation.robust.numpy(),
        adversarial=adversarial.x_adv if adversarial else None,
        record=record,
        _job=job,
        _evaluation=evaluation,
    )


def _plan(
    model: nn.Module,
    x: Tensor | npt.NDArray[np.floating],
    y: Tensor | npt.NDArray[np.integer],
    *,
    threat: ThreatModel,
    suite: str | Stage | Suite,
    config: AttackConfig,
    name: str,
    dataset: str,
) -> Job:
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: give a torch.nn.Module.")
    for what, text in (("name", name), ("dataset", dataset)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise UsageError(f"{what} is {text!r}: give a name that can be printed.")
    images = as_images(x, y)
    target = TargetModel(
        dataset=dataset,
        arch=type(model).__qualname__,
        activation=DEFAULT_ACTIVATION,
        run=name,
        checkpoint_sha256=hash_weights(model),
        threat_model=threat,
        model=model,
    )
    logits = jobs.compute_logits(target, images, dataset)
    check_labels_within(images.labels, logits.shape[1], name)
    source = Source(
        name=dataset,
        summary=dataset,
        num_classes=logits.shape[1],
        read=lambda data_dir, part: images if part == "test" else None,
    )
    source = recognize(source, images)
    return jobs.plan(
        target,
        config,
        test=images,
        info=source,
        out=Path(),
        suite=None if isinstance(suite, str) else as_suite(suite),
        clean_logits=logits,
    )
