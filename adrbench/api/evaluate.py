"""`adrbench.evaluate`: attack any model, at one radius or several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard, overload

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor, nn

from adrbench.api.result import Result
from adrbench.attacks.find_suite import as_suite
from adrbench.attacks.stages import Stage
from adrbench.attacks.suites import Suite
from adrbench.config.declare import convert, settings_of, wrong_type
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import NORMS, STANDARD_EPS, ThreatModel
from adrbench.data import Source
from adrbench.data.loading import recognize
from adrbench.display.attack import AttackDisplay
from adrbench.errors import UsageError, unknown_name
from adrbench.evaluation import planning
from adrbench.evaluation.begun import adopt_begun
from adrbench.evaluation.inputs import as_images, check_labels_within
from adrbench.evaluation.job import Job
from adrbench.evaluation.run import run_in_memory
from adrbench.evaluation.saved_state import locate_state
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.evaluation.state_files import StateLocation
from adrbench.evaluation.targets import TargetModel
from adrbench.models.architectures import DEFAULT_ACTIVATION
from adrbench.models.foreign import fingerprint_weights
from adrbench.models.frozen import Freezer
from adrbench.models.modes import device_of
from adrbench.printable import is_printable
from adrbench.runtime.arithmetic import Precision
from adrbench.runtime.context import Context
from adrbench.runtime.devices import choose_device
from adrbench.runtime.memory_errors import explaining_memory_errors

#: What a data set is called whose name the caller does not give.
UNNAMED_DATASET = "custom"

Images = Tensor | npt.NDArray[np.floating]
Labels = Tensor | npt.NDArray[np.integer]


@overload
def evaluate(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    suite: str | Stage | Suite = ...,
    norm: str = ...,
    eps: float | None = ...,
    name: str = ...,
    dataset: str | None = ...,
    batch_size: int = ...,
    device: str | None = ...,
    seed: int = ...,
    precision: Precision = ...,
    keep_adversarial: bool = ...,
    keep_outputs: bool = ...,
    progress: bool = ...,
    state_path: str | Path | None = ...,
) -> Result: ...


@overload
def evaluate(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    suite: str | Stage | Suite = ...,
    norm: str = ...,
    eps: Sequence[float],
    name: str = ...,
    dataset: str | None = ...,
    batch_size: int = ...,
    device: str | None = ...,
    seed: int = ...,
    precision: Precision = ...,
    keep_adversarial: bool = ...,
    keep_outputs: bool = ...,
    progress: bool = ...,
) -> list[Result]: ...


def evaluate(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    suite: str | Stage | Suite = "autoattack",
    norm: str = "Linf",
    eps: float | Sequence[float] | None = None,
    name: str = "model",
    dataset: str | None = None,
    batch_size: int = 250,
    device: str | None = None,
    seed: int = 0,
    precision: Precision = "auto",
    keep_adversarial: bool = False,
    keep_outputs: bool = False,
    progress: bool = False,
    state_path: str | Path | None = None,
) -> Result | list[Result]:
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
        eps: Radius as a fraction of the pixel range; 8/255 (Linf) or 0.5 (L2) by default. For
            several, such as `[2/255, 4/255]`, a list of results is returned.
        name: Name of the model in tables.
        dataset: Name of the data set in tables; "custom" by default. The complete CIFAR-10 test set
            in its official order is recognized; results on it have this name and are ranked among
            RobustBench's entries.
        batch_size: Images per batch. AutoAttack's random draws depend on it, PGD's do not.
        device: "auto", "cpu", "cuda" or "cuda:K"; by default, the device of the model.
        seed: Seed of the attacks.
        precision: Arithmetic in which attacks search: "float32" (with TF32 off), "tf32",
            "bfloat16", "float16", or "auto": TF32 on a GPU that has it, else float32. Outcomes are
            judged in float32; images that an attack fools only in its own arithmetic are attacked
            again in float32.
        keep_adversarial: Whether to return the adversarial examples in the result.
        keep_outputs: Whether to attack all images, also misclassified ones, and to return the
            model's logits in the result; for suites of one attack that maximizes a loss: `fgsm`,
            `pgd`, `pgd-K`, `cw`, `apgd-ce`, or an attack that has `maximize`.
        progress: Whether to show the progress on stderr, as the command line does.
        state_path: Where to save the progress of the evaluation until it is finished: outcomes in
            `<state_path>.0.state`, examples and outputs in `<state_path>.*.npz`. The same call
            resumes it. No other process can use it meanwhile, which `<state_path>.lock` ensures.

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
        >>> results = adrbench.evaluate(model, x, y, suite="pgd-20", eps=[0.05, 0.1])
        >>> [round(result.record.threat_model.eps, 2) for result in results]
        [0.05, 0.1]

    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: give a torch.nn.Module.")
    if device is not None and not isinstance(device, str):
        raise wrong_type("device", device, "a text such as 'cuda:0'")
    threats = _list_threats(norm, eps)
    if _is_several(eps) and state_path is not None:
        raise UsageError("state_path is for the progress of one evaluation: give one eps with it.")
    location = None if state_path is None else locate_state(state_path)
    context = Context(device=device_of(model) if device is None else choose_device(device))
    planned = _plan(
        model,
        x,
        y,
        threats=threats,
        suite=suite if isinstance(suite, str) else as_suite(suite),
        settings={"batch_size": batch_size, "seed": seed, "precision": precision},
        device=context.device,
        name=name,
        dataset=UNNAMED_DATASET if dataset is None else dataset,
    )
    if location is not None:
        planned = [adopt_begun(job, context.device, location) for job in planned]
    if keep_outputs:
        for job in planned:
            planning.check_outputs(job)
    freezer = Freezer()
    results = [
        _run(
            job,
            context,
            freezer,
            keep_adversarial=keep_adversarial,
            keep_outputs=keep_outputs,
            progress=progress,
            location=location,
        )
        for job in planned
    ]
    return results if _is_several(eps) else results[0]


def _list_threats(norm: str, eps: float | Sequence[float] | None) -> list[ThreatModel]:
    """Return the threat model of each radius."""
    if not isinstance(norm, str) or norm not in NORMS:
        raise unknown_name("norm", str(norm), NORMS)
    radii: Sequence[Any] = eps if _is_several(eps) else [STANDARD_EPS[norm] if eps is None else eps]
    if len(radii) == 0:
        raise UsageError("eps is empty: give at least one radius, such as 8/255.")
    return [ThreatModel(norm=norm, eps=radius) for radius in radii]


def _is_several(eps: object) -> TypeGuard[Sequence[float]]:
    return isinstance(eps, list | tuple | np.ndarray) and np.ndim(eps) == 1


def _run(
    job: Job,
    context: Context,
    freezer: Freezer,
    *,
    keep_adversarial: bool,
    keep_outputs: bool,
    progress: bool,
    location: StateLocation | None,
) -> Result:
    console = Console(stderr=True, quiet=not progress)
    with (
        AttackDisplay(console, job.title, num_images=len(job.images)) as display,
        explaining_memory_errors(job.config.batch_size),
    ):
        evaluation, record = run_in_memory(
            job,
            context,
            ProgressCallbacks(on_batch=display.batch, on_pass=display.passes),
            location=location,
            keep_adversarial=keep_adversarial,
            keep_outputs=keep_outputs,
            freezer=freezer,
        )
    examples = evaluation.adversarial
    return Result(
        clean=evaluation.clean.numpy(),
        robust=evaluation.robust.numpy(),
        adversarial=examples.x_adv if examples else None,
        outputs=evaluation.outputs,
        record=record,
        _key=job.key,
        _file_name=job.path.name,
        _labels=job.images.labels,
        _examples=examples,
    )


def _plan(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    threats: Sequence[ThreatModel],
    suite: str | Suite,
    settings: dict[str, object],
    device: torch.device,
    name: str,
    dataset: str,
) -> list[Job]:
    """Return the evaluation under each threat model."""
    for what, text in (("name", name), ("dataset", dataset)):
        if not isinstance(text, str) or not text.strip() or not is_printable(text):
            raise UsageError(f"{what} is {text!r}: give a name that can be printed.")
    declared = settings_of(AttackConfig)
    config = AttackConfig(
        suite=suite if isinstance(suite, str) else suite.name,
        **{key: convert(declared[key], value) for key, value in settings.items()},
    )
    images = as_images(x, y)
    target = TargetModel(
        dataset=dataset,
        arch=type(model).__qualname__,
        activation=DEFAULT_ACTIVATION,
        run=name,
        checkpoint_sha256=fingerprint_weights(name, model),
        threat_model=threats[0],
        model=model,
    )
    logits = planning.compute_logits(target, images, dataset)
    check_labels_within(images.labels, logits.shape[1], name)
    source = Source(
        name=dataset,
        summary=dataset,
        num_classes=logits.shape[1],
        read=lambda data_dir, part: images if part == "test" else None,
    )
    source = recognize(source, images)
    return [
        planning.plan(
            target.at_radius(threat.eps),
            config,
            test=images,
            info=source,
            out=Path(),
            suite=None if isinstance(suite, str) else suite,
            clean_logits=logits,
            device=device,
        )
        for threat in threats
    ]
